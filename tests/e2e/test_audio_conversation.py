"""Conversations over JACK, measured by the user's own recording of both sides and held against the live figures."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.audio.driver import PortAudioSpec
from duologue.audio.echo import EchoAgent
from duologue.audio.files import AudioFile
from duologue.audio.live import open_live
from duologue.audio.wire import LiveStats
from duologue.metrics.meter import measure
from duologue.metrics.types import Event, InteractivityReport
from duologue.profile.host import PressureMeter
from duologue.types import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ
from virtual_jack import JackServer, VirtualUser, find_delay, loop_delays_ms

pytestmark = pytest.mark.audio

DEVICE = PortAudioSpec(input="vmic", output="vspk", host_api="JACK")
LEAD_S = 3
"""Silence before the user's first word, in which the measured conversation begins."""
FRAME_S = FRAME_MS / 1e3
MAX_OVERHEAD_MS = 25.0
BUSY_OVERHEAD_MS = 80.0
BUSY_SHARE = 0.25
"""Share of the time in which tasks waited for a core, above which the host and not we are measured."""


def _answering_echo() -> EchoAgent:
    return EchoAgent(delay_frames=30)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What the agent's side knew of a conversation, and what the user recorded of it, both at 24 kHz."""

    said: np.ndarray
    heard: np.ndarray
    recorded: np.ndarray
    report: InteractivityReport
    stats: LiveStats
    playout_ms: float
    losses: int

    @property
    def begin(self) -> int:
        """Where in the agent's recording the user's begins; it began before."""
        first_words = self.said[LEAD_S * SAMPLE_RATE_HZ :][: 5 * SAMPLE_RATE_HZ]
        limit = (LEAD_S + 2) * SAMPLE_RATE_HZ
        return find_delay(first_words, self.recorded[: 10 * SAMPLE_RATE_HZ, 0], limit=limit) - LEAD_S * SAMPLE_RATE_HZ

    @property
    def way(self) -> int:
        """Samples from the user's mouth to his ear, but for the agent's own delay."""
        return round((FRAME_MS + self.playout_ms) * SAMPLE_RATE_HZ / 1e3)

    def own_report(self, detectors: dict[str, str]) -> InteractivityReport:
        """Measure the user's own recording: what he said and, earlier by the way, what he heard."""
        user, agent = self.said[-self.begin :], self.heard[self.way - self.begin :]
        return measure(user.copy(), agent.copy(), SAMPLE_RATE_HZ, **detectors)


def converse(user: VirtualUser, said: np.ndarray, folder: Path, **settings: object) -> Conversation:
    path = folder / "conversation.wav"
    heard: list[tuple[np.ndarray, int]] = []
    with open_live(device=DEVICE, record_path=str(path), **settings) as live:
        while live.stats().frames < 3:
            time.sleep(0.05)
        before = live.stats()
        listener = threading.Thread(target=lambda: heard.append(user.converse(len(said))))
        listener.start()
        # The user's recording runs already, so it holds all that is measured from here on.
        time.sleep(0.8)
        earlier = live.reset()
        listener.join()
        # Nothing more is heard, so that report and recording end together.
        user.close()
        stats, report = live.stats(), live.report()
    recorded, _ = soundfile.read(path, dtype="float32")
    begin = earlier * FRAME_SAMPLES
    flagged = sum(one.flagged for one in stats.counters.callbacks)
    concealed = stats.counters.concealed_events - before.counters.concealed_events
    return Conversation(
        said=said,
        heard=heard[0][0],
        recorded=recorded[begin : begin + report.latency["total"].count * FRAME_SAMPLES],
        report=report,
        stats=stats,
        playout_ms=stats.playout_ms,
        losses=flagged
        + heard[0][1]
        + concealed
        + round(stats.cut_agent_ms + stats.inserted_ms + stats.dropped_user_ms),
    )


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


def _said(recording: Path, seconds: int) -> np.ndarray:
    voice = np.resize(AudioFile(recording).read(SAMPLE_RATE_HZ), (seconds - LEAD_S) * SAMPLE_RATE_HZ)
    return np.concatenate([np.zeros(LEAD_S * SAMPLE_RATE_HZ, dtype=np.float32), voice])


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
    said = _said(demo_user, seconds)
    talk = converse(seat_user(said), said, tmp_path, load_agent=load_agent, playout_ms=80.0)
    detectors = {"user_detector": detector}
    again = measure(talk.recorded[:, 0].copy(), talk.recorded[:, 1].copy(), SAMPLE_RATE_HZ, **detectors)
    assert replace(talk.report, latency={}, late_frames=0) == replace(again, latency={}, late_frames=0)
    until_s = seconds - 2.0
    counts = assert_same(talk.report, talk.own_report(detectors), until_s=until_s, losses=talk.losses)
    # Whatever the agent says, the user is heard; an agent that answers makes events of both sides.
    assert counts["user_speech_ended"] >= seconds / 6
    if load_agent is not None:
        assert counts["agent_speech_ended"] >= seconds / 6
        assert {"overlap", "floor_transfer", "utterance"} <= counts.keys()


def test_mouth_to_ear_is_the_design_the_computing_and_little_more(
    start_server: Callable[..., JackServer],
    seat_user: Callable[[np.ndarray], VirtualUser],
    demo_user: Path,
    tmp_path: Path,
) -> None:
    start_server(block_samples=240)
    said = _said(demo_user, 25)
    pressure = PressureMeter()
    talk = converse(seat_user(said), said, tmp_path)
    busy_share = pressure.read().cpu_share or 0.0
    # Once settled: what waits for the loudspeaker follows the latest reply of ten seconds.
    found = loop_delays_ms(said, talk.heard, talk.recorded, begin=talk.begin)
    delays_ms = [delay_ms for second, delay_ms in found if second >= 15]
    assert len(delays_ms) >= 3
    overhead_ms = float(np.median(delays_ms)) - FRAME_MS - talk.report.latency["total"].p50_ms
    assert 0 < overhead_ms <= (MAX_OVERHEAD_MS if busy_share < BUSY_SHARE else BUSY_OVERHEAD_MS), (
        busy_share,
        delays_ms,
    )
