"""The card's numbers are the session's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duologue.audio import AudioFile
from duologue.config import Sampling
from duologue.metrics.latency import LatencyHistogram
from duologue.metrics.meter import InteractivityMeter
from duologue.metrics.types import Event, InteractivityReport
from duologue.talk.state import speech_spans
from duologue.types import FRAME_SAMPLES
from talk_case import frame, state, stats

AXES = ("pause", "turn", "backchannel", "interruption", "selectivity")


@pytest.fixture(scope="module")
def conversation(demo_user: Path) -> tuple[list[list[Event]], InteractivityReport]:
    """Events by frame of a user and a late echo of her, and the report of it all."""
    pcm = AudioFile(demo_user).read()
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    meter = InteractivityMeter(user_detector="level", agent_detector="level")
    events = [meter.push_frame(user, agent) for user, agent in zip(frames, np.roll(frames, 60, axis=0), strict=True)]
    return events, meter.report()


def test_the_axes_are_those_of_the_session(conversation: tuple[list[list[Event]], InteractivityReport]) -> None:
    by_frame, report = conversation
    talk = state()
    for index, events in enumerate(by_frame):
        talk.apply(frame(index))
        for event in events:
            talk.apply(event)
    live = talk.measure()
    told = {event for events in by_frame for event in map(_key, events)}
    at_the_end = [event for event in report.events if _key(event) not in told]
    assert len(at_the_end) < 6
    assert live.pause == report.pause
    for event in at_the_end:
        talk.apply(event)
    ended = talk.measure()
    for axis in AXES:
        assert getattr(ended, axis) == getattr(report, axis)
    assert ended.turn.answered_rate.count > 3


def test_a_changed_control_parts_the_axes(conversation: tuple[list[list[Event]], InteractivityReport]) -> None:
    by_frame, _ = conversation
    talk = state()
    half = len(by_frame) // 2
    for index, events in enumerate(by_frame):
        if index == half:
            talk.set_sampling(replace(Sampling(), padding_bias=1.0))
        talk.apply(frame(index))
        for event in events:
            talk.apply(event)
    whole = talk.measure()
    change = talk.view().change
    assert change is not None
    assert change.at_s == pytest.approx(half * 0.08)
    counts = [report.turn.answered_rate.count for report in (change.before, change.since, whole)]
    assert counts[0] > 0
    assert counts[1] > 0
    assert counts[0] + counts[1] == counts[2]
    assert talk.view().sampling.padding_bias == 1.0


def test_latency_is_counted_as_the_session_counts() -> None:
    talk, histogram = state(), LatencyHistogram()
    for index, model_ms in enumerate([5.0, 9.0, 100.0, 7.0]):
        talk.apply(frame(index, model_ms=model_ms))
        histogram.add(model_ms)
    talk.measure()
    assert talk.view().latency["model"] == histogram.summary()
    assert talk.view().late_frames == 1
    assert talk.view().ring_low_ms == 60.0


def test_frame_zero_begins_a_new_conversation() -> None:
    talk = state()
    for index in range(4):
        talk.apply(frame(index, text=" hello"))
    talk.apply(Event(kind="takeover", side="agent", start_s=0.1, end_s=0.2))
    assert len(talk.transcript) == 4
    talk.apply(frame(0, text=" again"))
    view = talk.view()
    assert [piece for _, piece in view.transcript] == [" again"]
    assert view.events == ()
    assert view.time_s == 0.08


def test_the_device_comes_and_goes() -> None:
    talk = state()
    talk.apply(Event(kind="device_error", side=None, start_s=1, end_s=1, detail={"message": "unplugged"}))
    assert talk.view().device_error == "unplugged"
    talk.apply(Event(kind="device_returned", side=None, start_s=2, end_s=2, detail={"message": "it is back"}))
    assert talk.view().device_error == ""
    assert talk.view().message == ("it is back", "good")
    talk.apply(Event(kind="error", side=None, start_s=3, end_s=3, detail={"message": "the model broke"}))
    talk.end("later reasons do not count")
    assert talk.view().ended == "the model broke"
    talk.set_stats(stats(is_muted=True))
    assert talk.view().is_muted


def test_speech_that_goes_on_ends_now() -> None:
    talk = state()
    for index in range(50):
        talk.apply(frame(index))
    for kind, start_s, end_s in (("started", 0.5, 0.5), ("ended", 0.5, 1.0), ("started", 2.0, 2.0)):
        talk.apply(Event(kind=f"user_speech_{kind}", side="user", start_s=start_s, end_s=end_s))
    assert speech_spans(talk.view(), "user") == [(0.5, 1.0), (2.0, 4.0)]
    assert speech_spans(talk.view(), "agent") == []


def _key(event: Event) -> tuple[str, float, float]:
    return event.kind, event.start_s, event.end_s
