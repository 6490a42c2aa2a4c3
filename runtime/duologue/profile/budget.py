"""The verdict: where mouth-to-ear latency goes, whether the budget is met, and the one line that says why not."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.audio.canceller import ADDED_DELAY_MS
from duologue.profile.audio_facts import AudioFacts
from duologue.profile.engines import EngineProfile
from duologue.profile.frames import FrameTime, RunProfile
from duologue.profile.host import Pressure
from duologue.profile.report import LatencyPart, Verdict
from duologue.types import FRAME_MS

MAX_LATE_SHARE = 0.01
"""Share of late frames that still meets the budget."""
_BUSY_SHARE = 0.25
_STEAL_SHARE = 0.02


def latency_parts(*, delay_frames: int, compute_ms: float, audio: AudioFacts | None) -> tuple[LatencyPart, ...]:
    """Return what mouth-to-ear latency is expected to consist of.

    Args:
        delay_frames: Frames between the model's first level of codes and its last (the acoustic delay).
        compute_ms: 95 % quantile of a frame.
        audio: The device, if there is one.
    """
    parts = [
        LatencyPart(name="frame", ms=FRAME_MS, basis="algorithmic"),
        LatencyPart(name="acoustic delay", ms=FRAME_MS * delay_frames, basis="algorithmic"),
        LatencyPart(name="compute (p95)", ms=compute_ms, basis="measured"),
    ]
    if audio is None:
        return tuple(parts)
    if audio.aec is not None:
        parts.append(LatencyPart(name="echo canceller", ms=ADDED_DELAY_MS, basis="algorithmic"))
    # What must wait for the loudspeaker covers a frame's wait for its step, the computing, and some safety.
    spare_ms = max(0.0, audio.loop_lag_ms - FRAME_MS - compute_ms)
    queue_ms = min(audio.queue.p95_ms, spare_ms)
    if queue_ms:
        parts.append(LatencyPart(name="queue (p95)", ms=queue_ms, basis="measured"))
    if spare_ms > queue_ms:
        parts.append(LatencyPart(name="safety of the loop", ms=spare_ms - queue_ms, basis="setting"))
    measured_ms = audio.measured_device_ms
    if measured_ms is not None:
        parts.append(LatencyPart(name="device", ms=measured_ms, basis="measured"))
    else:
        parts.append(LatencyPart(name="device", ms=audio.reported_device_ms, basis="reported"))
    return tuple(parts)


def judge(
    engine: EngineProfile,
    times: Sequence[FrameTime],
    *,
    pressure: Pressure,
    parts: Sequence[LatencyPart],
    audio: AudioFacts | None = None,
) -> Verdict:
    """Return the verdict on an engine that was measured in real time.

    Args:
        engine: The judged engine.
        times: Its frames in real time.
        pressure: What others took from the host.
        parts: Expected latency.
        audio: The device, if there is one.
    """
    run = engine.run("real_time")
    total = run.stages["total"]
    is_met = total.p95_ms <= FRAME_MS and run.late_share <= MAX_LATE_SHARE
    cause = _latency_cause(run, parts) if is_met else _lateness_cause(engine, times, pressure)
    return Verdict(
        engine=engine.name,
        is_met=is_met,
        p95_ms=total.p95_ms,
        late_share=run.late_share,
        headroom=FRAME_MS / total.p95_ms if total.p95_ms else 0.0,
        cause=cause + _sound_cause(audio),
    )


def _latency_cause(run: RunProfile, parts: Sequence[LatencyPart]) -> str:
    sum_ms = sum(part.ms for part in parts)
    largest = max(_merged(parts), key=lambda part: part[1])
    stage, stage_ms = _largest_stage(run)
    line = f"latency: {largest[0]} is {largest[1]:.0f} of {sum_ms:.0f} ms"
    return f"{line}; of the computing, {stage} is {stage_ms:.1f} of {run.stages['total'].p50_ms:.1f} ms"


def _sound_cause(audio: AudioFacts | None) -> str:
    if audio is None or not audio.concealed_ms:
        return ""
    return f"; with the sound device {audio.concealed_ms:.0f} ms of the agent's audio came too late"


def _merged(parts: Sequence[LatencyPart]) -> list[tuple[str, float]]:
    """Count what the model's design imposes as one, since no machine changes it."""
    algorithmic_ms = sum(part.ms for part in parts if part.basis == "algorithmic")
    rest = [(part.name, part.ms) for part in parts if part.basis != "algorithmic"]
    return [("the model's own delay (frame and acoustic delay)", algorithmic_ms), *rest]


def _largest_stage(run: RunProfile) -> tuple[str, float]:
    medians = {stage: timing.p50_ms for stage, timing in run.stages.items() if stage != "total"}
    return max(medians.items(), key=lambda item: item[1])


def _lateness_cause(engine: EngineProfile, times: Sequence[FrameTime], pressure: Pressure) -> str:
    run, hurried = engine.run("real_time"), engine.run("back_to_back")
    total = run.stages["total"]
    stage, stage_ms = _largest_stage(run)
    if total.p50_ms > FRAME_MS and hurried.stages["total"].p50_ms <= FRAME_MS:
        change = f"{hurried.stages['total'].p50_ms:.0f} ms back to back, {total.p50_ms:.0f} ms in real time"
        return f"late: the processor slows down between frames ({change}); pin its frequency or keep it awake"
    if total.p50_ms > FRAME_MS:
        return f"late: every frame is too slow, {stage} takes {stage_ms:.0f} of {total.p50_ms:.0f} ms"
    late = [time for time in times if time.is_late] or sorted(times, key=lambda time: -time.stage_ms["total"])[:1]
    host = _host_cause(pressure)
    excess = _excess_ms(run, late)
    worst = max(excess, key=lambda name: excess[name])
    what = "the wake-up takes" if worst == "wake-up" else f"{worst} takes"
    line = f"late: in {len(late)} of {run.frames} frames {what} {excess[worst]:.0f} ms more than its median"
    return f"{line}; {host}" if host else line


def _host_cause(pressure: Pressure) -> str:
    if pressure.steal_share is not None and pressure.steal_share > _STEAL_SHARE:
        return f"the hypervisor gave {pressure.steal_share:.0%} of the cores to others"
    if pressure.cpu_share is not None and pressure.cpu_share > _BUSY_SHARE:
        return f"tasks waited for a core in {pressure.cpu_share:.0%} of the time, so the host is too busy"
    return ""


def _excess_ms(run: RunProfile, late: Sequence[FrameTime]) -> dict[str, float]:
    """Return by how much each stage exceeds its median in late frames, on average."""
    excess = {
        stage: sum(time.stage_ms[stage] for time in late) / len(late) - timing.p50_ms
        for stage, timing in run.stages.items()
        if stage != "total"
    }
    waits_ms = [1e3 * (time.begun_s - time.due_s) for time in late if not _follows_late(time, late)]
    excess["wake-up"] = sum(waits_ms) / len(waits_ms) - run.wake_up.p50_ms if waits_ms else 0.0
    return excess


def _follows_late(time: FrameTime, late: Sequence[FrameTime]) -> bool:
    # A frame that waits for a late one before it is not held up by the scheduler.
    return any(other.index == time.index - 1 for other in late)
