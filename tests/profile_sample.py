"""A small profile made of known numbers, and a clock that tests move."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.audio.device import StreamInfo
from duologue.profile.audio_facts import AudioFacts, AudioMoment, CallbackFacts, ClickFacts, DriverCall
from duologue.profile.budget import judge, latency_parts
from duologue.profile.engines import EngineProfile, MeasuredEngine
from duologue.profile.frames import FrameTime, Pacing, profile_run
from duologue.profile.host import HostFacts, Pressure
from duologue.profile.report import ProfileReport, Wakeups
from duologue.profile.timing import summarise
from duologue.types import FRAME_MS

QUIET = Pressure(cpu_share=0.0, steal_share=0.0)


class FakeClock:
    """Time that passes only by waiting, each wait ending late by `oversleep_s`."""

    def __init__(self, oversleep_s: float = 0.0) -> None:
        self.time_s = 100.0
        self.oversleep_s = oversleep_s

    def now_s(self) -> float:
        return self.time_s

    def sleep_until(self, due_s: float) -> None:
        if due_s > self.time_s:
            self.time_s = due_s + self.oversleep_s


def frame_times(model_ms: Sequence[float], *, wake_up_ms: Sequence[float] | None = None) -> list[FrameTime]:
    """Frames that are due every 80 ms, begin late by `wake_up_ms` and spend 1 ms in each stage but the model."""
    waits_ms = wake_up_ms or [0.0] * len(model_ms)
    return [
        FrameTime(
            index=index,
            due_s=index * 0.08,
            begun_s=index * 0.08 + wait_ms / 1e3,
            stage_ms={"encode": 1.0, "model": cost_ms, "decode": 1.0, "metrics": 1.0, "total": cost_ms + 3.0},
            is_late=wait_ms + cost_ms + 3.0 > FRAME_MS,
        )
        for index, (cost_ms, wait_ms) in enumerate(zip(model_ms, waits_ms, strict=True))
    ]


def engine(
    real_time: Sequence[FrameTime], back_to_back: Sequence[FrameTime], *, pressure: Pressure = QUIET
) -> MeasuredEngine:
    times: dict[Pacing, list[FrameTime]] = {"real_time": list(real_time), "back_to_back": list(back_to_back)}
    runs = tuple(profile_run(values, pacing=pacing) for pacing, values in times.items())
    profile = EngineProfile(engine="onnx", dtype="float32", device="cpu", load_s=0.5, runs=runs)
    return MeasuredEngine(profile=profile, times=times, pressure=pressure)


def audio(*, claimed_ms: float = 5.0, device_ms: float | None = 20.0, cancels_echo: bool = False) -> AudioFacts:
    clicks = None
    if device_ms is not None:
        loop_ms = 120.0 + device_ms
        clicks = ClickFacts(sent=5, heard=5, p50_ms=loop_ms, min_ms=loop_ms, max_ms=loop_ms)
    callback = CallbackFacts(
        calls=100, late=1, xruns={"input_overflow": 2}, gap=summarise([10.0] * 99), body=summarise([0.01] * 100)
    )
    return AudioFacts(
        device=StreamInfo(
            input_name='mic "1"',
            output_name="speaker",
            host_api="simulated",
            input_hz=24_000,
            output_hz=24_000,
            output_latency_ms=claimed_ms,
        ),
        bare_lag_ms=120.0,
        loop_lag_ms=120.0,
        bare_clicks=clicks,
        agent_clicks=clicks,
        callbacks=(callback,),
        slack_min_ms=12.0,
        slack_p50_ms=30.0,
        backlog_ms=summarise([0.0, 10.0]),
        queue=summarise([1.0, 2.0]),
        resample=summarise([0.2, 0.3]),
        aec=summarise([0.8, 0.9]) if cancels_echo else None,
        moments=(AudioMoment(at_s=7.0, lag_ms=120.0, fill_ms=110.0, backlog_ms=10.0),),
        calls=(
            DriverCall(thread=0, at_s=6.0, body_ms=0.02),
            DriverCall(thread=0, at_s=6.05, body_ms=0.03, xruns=("input_overflow", "output_underflow")),
        ),
        lost_input_ms=0.0,
        concealed_ms=3.0,
        concealed_events=1,
        dropped_ms=0.0,
        cut_ms=0.0,
        inserted_ms=0.0,
        drift_ppm=-12.5,
    )


def host() -> HostFacts:
    return HostFacts(
        cpu='A "quoted" \\ processor',
        cores=4,
        usable_cores=1.5,
        isa="avx2",
        isas=("scalar", "avx2"),
        governor="performance",
        kernel="Linux 6",
        memory_gb=8.0,
        memory_limit_gb=2.0,
        bandwidth_gb_s=20.0,
        load=0.5,
        realtime_priority=0,
        memory_lock_mb=None,
        is_gil_enabled=True,
        versions={"python": "3.11", "duologue": "0.1.0"},
    )


def report(engines: Sequence[MeasuredEngine], *, sound: AudioFacts | None) -> ProfileReport:
    judged = engines[0]
    run = judged.profile.run("real_time")
    parts = latency_parts(delay_frames=1, compute_ms=run.stages["total"].p95_ms, audio=sound)
    tick = summarise([0.1, 0.2])
    return ProfileReport(
        agent="test",
        host=host(),
        pressure=judged.pressure,
        engines=tuple(one.profile for one in engines),
        wakeups=Wakeups(idle=tick, frames=tick, hogged=tick, hog_hold=summarise([75.0]), hogged_run=run),
        audio=sound,
        no_audio="" if sound else "no device",
        mouth_to_ear=parts,
        verdict=judge(judged.profile, judged.times["real_time"], pressure=judged.pressure, parts=parts, audio=sound),
    )
