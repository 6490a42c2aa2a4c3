"""Conversations over JACK, measured by the user's own recording of both sides and held against the live figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duologue.audio.echo import EchoAgent
from duologue.metrics.meter import measure
from duologue.metrics.types import Event, InteractivityReport
from duologue.types import FRAME_MS, SAMPLE_RATE_HZ
from jack_conversation import converse, lead_in
from virtual_jack import JackServer, VirtualUser

pytestmark = pytest.mark.audio

FRAME_S = FRAME_MS / 1e3


def _answering_echo() -> EchoAgent:
    return EchoAgent(delay_frames=30)


def assert_same(live: InteractivityReport, own: InteractivityReport, *, until_s: float, losses: int) -> Counter[str]:
    """Hold two reports against each other, as far as both were certain of their events; return how many of a kind.

    Without a loss the two sides have the same samples, so every kind has as many events and every edge lies within a
    frame. Each loss moves what follows by a block and may part or join two events.
    """

    def settled(report: InteractivityReport) -> list[Event]:
        events = [event for event in report.events if event.known_s is not None and event.known_s <= until_s]
        return sorted(events, key=lambda event: (event.kind, event.start_s, event.end_s))

    ours, his = settled(live), settled(own)
    counts = Counter(event.kind for event in ours), Counter(event.kind for event in his)
    if losses == 0:
        assert counts[0] == counts[1]
        for one, other in zip(ours, his, strict=True):
            assert one.side == other.side
            assert one.start_s == pytest.approx(other.start_s, abs=FRAME_S)
            assert one.end_s == pytest.approx(other.end_s, abs=FRAME_S)
            assert (one.value_s is None) == (other.value_s is None)
            assert one.value_s is None or one.value_s == pytest.approx(other.value_s, abs=FRAME_S)
    else:
        for kind in counts[0] | counts[1]:
            assert abs(counts[0][kind] - counts[1][kind]) <= 2 * losses, (kind, counts, losses)
    return counts[0]


@pytest.mark.parametrize(
    ("load_agent", "detector", "seconds"),
    [(_answering_echo, "level", 25), (None, "speech", 60)],
    ids=["echo", "bundled"],
)
def test_the_users_own_recording_tells_the_same_as_the_live_metrics(
    start_server: Callable[..., JackServer],
    seat_user: Callable[[np.ndarray], VirtualUser],
    demo_user: Path,
    tmp_path: Path,
    load_agent: Callable[[], EchoAgent] | None,
    detector: str,
    seconds: int,
) -> None:
    start_server()
    said = lead_in(demo_user, seconds)
    talk = converse(seat_user(said), said, tmp_path, load_agent=load_agent, playout_ms=80.0)
    detectors = {"user_detector": detector}
    again = measure(talk.recorded[:, 0].copy(), talk.recorded[:, 1].copy(), SAMPLE_RATE_HZ, **detectors)
    assert replace(talk.report, latency={}, late_frames=0) == replace(again, latency={}, late_frames=0)
    until_s = seconds - 2.0
    counts = assert_same(talk.report, talk.own_report(detectors), until_s=until_s, losses=talk.losses)
    # The echo says all that the user says; the bundled agent answers in some of his pauses.
    assert counts["user_speech_ended"] >= seconds / 6
    assert counts["agent_speech_ended"] >= seconds / (6 if load_agent is not None else 15)
    assert {"overlap", "floor_transfer", "utterance"} <= counts.keys()
