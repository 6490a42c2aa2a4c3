"""The verdict: who meets the budget, and what the one line blames."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from duologue.profile.budget import judge, latency_parts
from duologue.profile.host import Pressure
from duologue.profile.report import Verdict
from profile_sample import QUIET, audio, engine, frame_times


def _judge(
    model_ms: Sequence[float],
    *,
    hurried_ms: float | None = None,
    wake_up_ms: Sequence[float] | None = None,
    pressure: Pressure = QUIET,
    device_ms: float | None = None,
) -> Verdict:
    times = frame_times(model_ms, wake_up_ms=wake_up_ms)
    hurried = frame_times([hurried_ms] * len(model_ms) if hurried_ms else model_ms)
    measured = engine(times, hurried, pressure=pressure)
    sound = audio(device_ms=device_ms) if device_ms else None
    compute_ms = measured.profile.run("real_time").stages["total"].p95_ms
    parts = latency_parts(delay_frames=1, compute_ms=compute_ms, audio=sound)
    return judge(measured.profile, times, pressure=pressure, parts=parts)


def test_a_fast_engine_meets_the_budget() -> None:
    verdict = _judge([7.0] * 100)
    assert verdict.is_met
    assert (verdict.p95_ms, verdict.late_share, verdict.headroom) == (10.0, 0.0, 8.0)
    assert "the model's own delay (frame and acoustic delay) is 160 of 170 ms" in verdict.cause
    assert "model is 7.0 of 10.0 ms" in verdict.cause


def test_a_slow_device_dominates_the_latency() -> None:
    verdict = _judge([7.0] * 100, device_ms=300.0)
    assert verdict.is_met
    assert "device is 300 of 500 ms" in verdict.cause


@pytest.mark.parametrize(("late", "is_met"), [(1, True), (2, False)])
def test_one_late_frame_in_a_hundred_is_allowed(late: int, is_met: bool) -> None:
    assert _judge([7.0] * (100 - late) + [100.0] * late).is_met is is_met


def test_p95_alone_fails_the_budget() -> None:
    verdict = _judge([7.0] * 94 + [78.0] * 6)
    assert not verdict.is_met
    assert verdict.p95_ms == 81.0


def test_an_engine_that_is_always_too_slow() -> None:
    cause = _judge([90.0] * 50).cause
    assert cause == "late: every frame is too slow, model takes 90 of 93 ms"


def test_a_processor_that_slows_down_between_frames() -> None:
    cause = _judge([90.0] * 50, hurried_ms=40.0).cause
    assert "slows down between frames (43 ms back to back, 93 ms in real time)" in cause


def test_single_slow_steps_of_the_model() -> None:
    cause = _judge([7.0] * 90 + [97.0] * 10).cause
    assert cause == "late: in 10 of 100 frames model takes 90 ms more than its median"


def test_late_wake_ups() -> None:
    waits_ms = [0.0, 0.0, 0.0, 100.0] * 10
    cause = _judge([7.0] * 40, wake_up_ms=waits_ms).cause
    assert cause == "late: in 10 of 40 frames the wake-up takes 100 ms more than its median"


def test_a_frame_behind_a_late_one_does_not_blame_the_scheduler() -> None:
    model_ms = [7.0] * 38 + [200.0, 7.0]
    cause = _judge(model_ms, wake_up_ms=[0.0] * 39 + [123.0]).cause
    assert "model takes" in cause


@pytest.mark.parametrize(
    ("pressure", "blamed"),
    [
        (Pressure(cpu_share=0.6, steal_share=0.0), "tasks waited for a core in 60% of the time"),
        (Pressure(cpu_share=0.6, steal_share=0.1), "the hypervisor gave 10% of the cores to others"),
        (Pressure(cpu_share=None, steal_share=None), "median"),
    ],
)
def test_the_host_is_named_when_it_was_busy(pressure: Pressure, blamed: str) -> None:
    assert blamed in _judge([7.0] * 90 + [97.0] * 10, pressure=pressure).cause


def test_latency_adds_up() -> None:
    parts = latency_parts(delay_frames=2, compute_ms=10.0, audio=audio(device_ms=20.0))
    assert {part.name: (part.ms, part.basis) for part in parts} == {
        "frame": (80, "algorithmic"),
        "acoustic delay": (160, "algorithmic"),
        "compute (p95)": (10.0, "measured"),
        "queue (p95)": (2.0, "measured"),
        "safety of the loop": (28.0, "setting"),
        "device": (20.0, "measured"),
    }


def test_without_clicks_the_claim_counts_and_is_named_so() -> None:
    parts = latency_parts(delay_frames=1, compute_ms=60.0, audio=audio(device_ms=None, claimed_ms=33.0))
    assert [(part.name, part.ms, part.basis) for part in parts[3:]] == [("device", 33.0, "reported")]
