"""The meter on real calls: live equals offline, snapshots, and figures recomputed from scratch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.audio.resample import resample
from duologue.errors import AudioError, ConfigError
from duologue.metrics import InteractivityMeter, InteractivityReport, measure
from duologue.metrics.activity import SpeechDetector
from duologue.metrics.degenerate import render_speech
from duologue.types import FRAME_SAMPLES, Pcm
from interactivity_oracle import fill, runs

SECONDS = 90


@pytest.fixture(scope="module", params=["call49", "call40"])
def call(request: pytest.FixtureRequest, shared_dir: Path) -> tuple[Pcm, Pcm]:
    """User and agent of a real call, both 24 kHz, whole frames."""
    sides = []
    for side in ("caller", "agent"):
        pcm, rate = soundfile.read(shared_dir / "data" / "real_calls" / f"{request.param}_{side}.wav", dtype="float32")
        sides.append(resample(pcm[: SECONDS * rate], rate, 24_000))
    return sides[0], sides[1]


def live(meter: InteractivityMeter, user: Pcm, agent: Pcm) -> InteractivityReport:
    for begin in range(0, len(user), FRAME_SAMPLES):
        meter.push_frame(user[begin : begin + FRAME_SAMPLES], agent[begin : begin + FRAME_SAMPLES])
    return meter.report()


def test_live_equals_offline_and_a_report_disturbs_nothing(call: tuple[Pcm, Pcm]) -> None:
    user, agent = call
    meter = InteractivityMeter(agent_detector="speech")
    told = []
    for begin in range(0, len(user), FRAME_SAMPLES):
        told += meter.push_frame(user[begin : begin + FRAME_SAMPLES], agent[begin : begin + FRAME_SAMPLES])
        if begin == 500 * FRAME_SAMPLES:
            meter.report()
    report = meter.report()
    assert report == measure(user, agent, 24_000, agent_detector="speech")
    assert list(report.events[: len(told)]) == told
    assert len(told) > 50


def test_restored_meter_goes_on_bit_for_bit(call: tuple[Pcm, Pcm]) -> None:
    user, agent = (pcm[: 600 * FRAME_SAMPLES] for pcm in call)
    cut = 301 * FRAME_SAMPLES
    meter = InteractivityMeter()
    live(meter, user[:cut], agent[:cut])
    snapshot = meter.snapshot()
    uninterrupted = live(meter, user[cut:], agent[cut:])
    other = InteractivityMeter()
    other.restore(snapshot)
    assert live(other, user[cut:], agent[cut:]) == uninterrupted


def test_offsets_and_overlap_agree_with_a_computation_from_scratch(call: tuple[Pcm, Pcm]) -> None:
    user, agent = call
    report = measure(user, agent, 24_000, agent_detector="speech")
    on = {}
    for side, pcm in (("user", user), ("agent", agent)):
        detector = SpeechDetector()
        ticks = np.concatenate([detector.push(pcm), detector.finish()])
        on[side] = fill(runs(ticks, 20), len(ticks))
    offsets = []
    alone = np.flatnonzero(on["user"] ^ on["agent"])
    for before, now in pairwise(alone.tolist()):
        old, new = ("user" if on["user"][tick] else "agent" for tick in (before, now))
        if old != new:
            start = next(start for start, end in runs(on[new]) if start <= now < end)
            stop = max(end for _, end in runs(on[old]) if end <= now)
            offsets.append((start - stop) / 100)
    assert list(report.floor.fto_s.values) == pytest.approx(offsets)
    expected = np.quantile(offsets, [0.05, 0.5, 0.95])
    fto = report.floor.fto_s
    assert [fto.p5, fto.p50, fto.p95] == pytest.approx(expected, abs=1e-3)
    assert report.floor.overlap_share.value == pytest.approx((on["user"] & on["agent"]).mean(), abs=1e-3)
    assert report.floor.silence_share.value == pytest.approx((~on["user"] & ~on["agent"]).mean(), abs=1e-3)
    assert report.agent.speech_share.value == pytest.approx(on["agent"].mean(), abs=1e-3)


def test_scripted_conversation_gives_the_scripted_numbers() -> None:
    user = render_speech([(1, 4), (4.6, 7), (12, 15), (22, 22.4)], 30)
    agent = render_speech([(2.9, 3.3), (7.2, 10), (13, 13.2), (15.4, 18), (20, 25)], 30)
    report = measure(user, agent, 24_000, user_detector="level")
    assert report.duration_s == pytest.approx(30, abs=0.08)
    assert report.user.spans == ((1.0, 4.0), (4.6, 7.0), (12.0, 15.0), (22.0, 22.4))
    assert report.pause.takeover_rate.value == 0
    assert report.pause.takeover_rate.count == 1
    assert report.turn.fto_s.values == (0.2, 0.4)
    assert (report.turn.answered_rate.value, report.turn.answered_rate.count) == (1.0, 2)
    assert report.backchannel.per_user_speech_min.count == 2
    assert report.backchannel.per_user_speech_min.value == pytest.approx(60 * 2 / 8.8, abs=1e-3)
    # Nearest ends of the user's IPUs: 4.0 for the onset at 2.9, and 15.0 for the onset at 13.0.
    assert report.backchannel.placement_s.values == (-1.1, -2.0)
    assert (report.selectivity.selectivity.value, report.selectivity.selectivity.count) == (1.0, 1)
    assert report.interruption.yield_rate.value is None


def test_recordings_at_other_rates_and_unequal_lengths_are_measured() -> None:
    user = render_speech([(1, 3)], 6)[::3]
    agent = render_speech([(3.5, 5)], 5)[::3]
    report = measure(np.ascontiguousarray(user), np.ascontiguousarray(agent), 8_000, user_detector="level")
    assert report.turn.fto_s.values == pytest.approx((0.5,), abs=0.011)
    assert report.duration_s == pytest.approx(6, abs=0.08)


def test_bad_input_is_refused_in_one_line() -> None:
    good = np.zeros(FRAME_SAMPLES, dtype=np.float32)
    with pytest.raises(AudioError, match=r"the agent's frame has shape \[5\]"):
        InteractivityMeter().push_frame(good, good[:5])
    with pytest.raises(AudioError, match="the user's channel is float32"):
        measure(good[:0], good, 24_000)
    with pytest.raises(AudioError, match="the user's channel is float64"):
        measure(good.astype(np.float64), good, 24_000)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="holds NaN"):
        measure(good, np.full(10, np.nan, dtype=np.float32), 24_000)
    with pytest.raises(AudioError, match=r"the agent's channel reaches 32767; expected \[-1, 1\]; divide int16"):
        measure(good, good - 32767, 24_000)
    with pytest.raises(ConfigError, match="out of range"):
        measure(good, good, 10)
    with pytest.raises(ConfigError, match="unknown activity detector"):
        InteractivityMeter(user_detector="ears")


def test_silence_on_both_sides_gives_an_empty_report() -> None:
    report = measure(np.zeros(48_000, dtype=np.float32), np.zeros(48_000, dtype=np.float32), 24_000)
    assert report.events == ()
    assert report.floor.silence_share.value == 1.0
    assert report.turn.answered_rate.value is None
    assert report.turn.answered_rate.band is not None
