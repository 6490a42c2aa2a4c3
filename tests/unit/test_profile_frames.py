"""Pacing and lateness under a clock that the test moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from duologue.profile.frames import Pacing, profile_run, run_frames, user_frames
from duologue.types import FRAME_SAMPLES, FrameResult
from profile_sample import FakeClock


def _run(costs_ms: Sequence[float], *, pacing: Pacing, oversleep_s: float = 0.0) -> tuple[FakeClock, list[float], list]:
    clock = FakeClock(oversleep_s)
    costs = iter(costs_ms)

    def step(frame: np.ndarray) -> FrameResult:
        cost_ms = next(costs)
        clock.time_s += cost_ms / 1e3
        return FrameResult(
            index=0,
            pcm=frame,
            text="",
            user_codes=np.zeros(8, dtype=np.int32),
            agent_codes=None,
            stage_ms={"model": cost_ms - 1, "total": cost_ms},
        )

    frames = [np.zeros(FRAME_SAMPLES, dtype=np.float32)] * len(costs_ms)
    times = run_frames(step, frames, clock, pacing=pacing)
    return clock, [round(1e3 * (time.begun_s - 100.0), 6) for time in times], times


def test_real_time_waits_for_every_frame() -> None:
    clock, begun_ms, times = _run([10, 20, 10], pacing="real_time")
    assert begun_ms == [0, 80, 160]
    assert clock.time_s == pytest.approx(100.170)
    run = profile_run(times, pacing="real_time")
    assert (run.frames, run.late_frames, run.longest_late_run) == (3, 0, 0)
    assert run.real_time_factor == pytest.approx((40 / 3) / 80)
    assert run.stages["model"].p50_ms == 9
    assert run.wake_up.max_ms == pytest.approx(0, abs=1e-6)


def test_a_slow_frame_makes_those_behind_it_late_until_they_have_caught_up() -> None:
    _, begun_ms, times = _run([10, 200, 30, 30, 10], pacing="real_time")
    assert begun_ms == [0, 80, 280, 310, 340]
    assert [time.is_late for time in times] == [False, True, True, True, False]
    run = profile_run(times, pacing="real_time")
    assert (run.late_frames, run.longest_late_run) == (3, 3)
    assert run.late_share == pytest.approx(0.6)
    assert run.wake_up.max_ms == pytest.approx(120)


def test_a_late_wake_up_counts_against_the_deadline() -> None:
    _, _, times = _run([60, 40, 60], pacing="real_time", oversleep_s=0.030)
    assert [time.is_late for time in times] == [False, False, True]


def test_back_to_back_waits_for_nothing() -> None:
    _, begun_ms, times = _run([10, 90, 10], pacing="back_to_back", oversleep_s=0.030)
    assert begun_ms == [0, 10, 100]
    assert [time.is_late for time in times] == [False, True, False]
    assert profile_run(times, pacing="back_to_back").wake_up.max_ms == 0


def test_no_frames() -> None:
    run = profile_run([], pacing="real_time")
    assert (run.frames, run.late_share, run.real_time_factor) == (0, 0.0, 0.0)


def test_a_short_recording_is_repeated() -> None:
    length = len({frame.tobytes() for frame in user_frames(2000)})
    frames = user_frames(length + 3)
    assert 100 < length < 2000
    assert all(frame.shape == (FRAME_SAMPLES,) and frame.dtype == np.float32 for frame in frames)
    np.testing.assert_array_equal(user_frames(3), frames[:3])
