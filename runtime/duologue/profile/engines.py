"""What each engine and precision available here makes of a frame: in real time, back to back, and on the GPU alone."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, cast

from duologue.agent import DuplexAgent
from duologue.config import AgentConfig
from duologue.engine.base import StepEngine
from duologue.metrics.types import Event, InteractivityReport
from duologue.profile.clock import Clock
from duologue.profile.frames import FrameTime, Pacing, RunProfile, profile_run, run_frames
from duologue.profile.host import Pressure, PressureMeter, resident_mb
from duologue.profile.timing import Timing, summarise
from duologue.types import Codes, FrameResult, Pcm

_log = logging.getLogger(__name__)
_DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
_CODEC_PRECISIONS: tuple[Literal["float32", "float16", "int8"], ...] = ("float32", "float16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """One engine at one precision.

    Attributes:
        engine: "onnx" or "torch".
        dtype: Precision of the model.
        device: "cpu" or "cuda".
        codec_precision: Precision of the codec's weights.
        error: Why it could not be measured, or "".
        load_s: Time to load the agent, imports included.
        first_frame_ms: Time of the first frame, which is in no run.
        resident_before_mb: Memory of this process before loading.
        resident_loaded_mb: After loading.
        resident_after_mb: After the runs.
        gpu_memory_mb: Most memory that torch took on the GPU, or None.
        runs: The measured runs.
        model_on_gpu: Model step by the GPU's own clock, or None without one.
        interactivity: How the agent of these frames behaved: medians "answer_offset_s" and "stop_latency_s",
            "overlap_share", "backchannels_per_min"; None where nothing of the kind happened.
    """

    engine: str
    dtype: str
    device: str
    codec_precision: str = "float32"
    error: str = ""
    load_s: float = 0.0
    first_frame_ms: float = 0.0
    resident_before_mb: float = 0.0
    resident_loaded_mb: float = 0.0
    resident_after_mb: float = 0.0
    gpu_memory_mb: float | None = None
    runs: tuple[RunProfile, ...] = ()
    model_on_gpu: Timing | None = None
    interactivity: dict[str, float | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Engine, precision and device in words."""
        codec = "" if self.codec_precision == "float32" else f", codec {self.codec_precision}"
        return f"{self.engine} {self.dtype} {self.device}{codec}"

    def run(self, pacing: Pacing) -> RunProfile:
        """Return the run of that pacing.

        Raises:
            KeyError: There is none.
        """
        return {run.pacing: run for run in self.runs}[pacing]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredEngine:
    """A profile and every frame behind it.

    Attributes:
        profile: The statistics.
        times: Frames by pacing.
        pressure: What others took from the host during the run in real time.
        events: What happened between user and agent, by pacing; times are from the frame before the first of `times`.
    """

    profile: EngineProfile
    times: dict[Pacing, list[FrameTime]]
    pressure: Pressure
    events: dict[Pacing, tuple[Event, ...]] = field(default_factory=dict)


def candidates(config: AgentConfig, *, is_engine_chosen: bool, is_dtype_chosen: bool) -> list[AgentConfig]:
    """Return the settings to measure: first those given, then what else is installed and was not ruled out.

    Where nothing was ruled out, those given are also measured with every other precision of the codec.

    Args:
        config: Settings of the conversation that is to meet the budget.
        is_engine_chosen: Whether other engines are of no interest.
        is_dtype_chosen: Whether other precisions are of no interest.
    """
    installed = [("onnx", "float32")] if find_spec("onnxruntime") else []
    installed += [("torch", dtype) for dtype in _DTYPES] if find_spec("torch") else []
    chosen = [config if config.engine == "torch" else replace(config, dtype="float32")]
    for engine, dtype in installed:
        is_wanted = not (is_engine_chosen and engine != config.engine) and not (
            is_dtype_chosen and dtype != config.dtype
        )
        other = replace(config, engine=cast(Any, engine), dtype=cast(Any, dtype))
        if is_wanted and other not in chosen:
            chosen.append(other)
    if not (is_engine_chosen or is_dtype_chosen):
        others = (precision for precision in _CODEC_PRECISIONS if precision != config.codec_precision)
        chosen += [replace(chosen[0], codec_precision=precision) for precision in others]
    return chosen


def measure_engine(
    name: str | None,
    config: AgentConfig,
    frames: Sequence[Pcm],
    clock: Clock,
    *,
    and_then: Callable[[DuplexAgent], None] | None = None,
) -> MeasuredEngine:
    """Load an agent and run the frames through it twice, each time in a fresh conversation.

    Args:
        name: As `DuplexAgent.load`.
        config: Its settings.
        frames: What the user says; the first one warms up.
        clock: Time.
        and_then: Called with the agent after its runs, while it is loaded.

    Raises:
        DuologueError: As `DuplexAgent.load`.
    """
    try:
        return _measure(name, config, frames, clock, and_then)
    finally:
        _release(config)


def failed_engine(config: AgentConfig, error: Exception) -> MeasuredEngine:
    """Return the row of an engine that could not be measured."""
    _log.warning("%s %s on %s: %s", config.engine, config.dtype, config.device, error)
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    profile = EngineProfile(
        engine=config.engine,
        dtype=config.dtype,
        device=config.device,
        codec_precision=config.codec_precision,
        error=reason,
    )
    return MeasuredEngine(profile=profile, times={}, pressure=Pressure(cpu_share=None, steal_share=None))


def model_by_events(engine: StepEngine, user_codes: Sequence[Codes]) -> Timing:
    """Time model steps by CUDA events, so that neither codec nor launching Python counts.

    Args:
        engine: A torch engine on a GPU.
        user_codes: The user's frames, each of shape [8]; the first one warms up.
    """
    torch = import_module("torch")
    stream = engine.stream(seed=0)
    times_ms = []
    for codes in user_codes:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        stream.step(codes)
        end.record()
        end.synchronize()
        times_ms.append(float(begin.elapsed_time(end)))
    return summarise(times_ms[1:])


def _measure(
    name: str | None,
    config: AgentConfig,
    frames: Sequence[Pcm],
    clock: Clock,
    and_then: Callable[[DuplexAgent], None] | None,
) -> MeasuredEngine:
    is_torch_gpu = config.engine == "torch" and config.device == "cuda"
    before_mb, begun_s = resident_mb(), clock.now_s()
    agent = DuplexAgent.load(name, config)
    load_s, loaded_mb = clock.now_s() - begun_s, resident_mb()
    meter = PressureMeter()
    paced = _converse(agent, frames, clock, "real_time")
    pressure = meter.read()
    hurried = _converse(agent, frames, clock, "back_to_back")
    profile = EngineProfile(
        engine=config.engine,
        dtype=config.dtype,
        device=config.device,
        codec_precision=config.codec_precision,
        load_s=load_s,
        first_frame_ms=paced.first_ms,
        resident_before_mb=before_mb,
        resident_loaded_mb=loaded_mb,
        resident_after_mb=resident_mb(),
        gpu_memory_mb=import_module("torch").cuda.max_memory_allocated() / 1e6 if is_torch_gpu else None,
        runs=(profile_run(paced.times, pacing="real_time"), profile_run(hurried.times, pacing="back_to_back")),
        model_on_gpu=model_by_events(agent.engine, paced.codes) if is_torch_gpu else None,
        interactivity=_manner(paced.report),
    )
    if and_then is not None:
        and_then(agent)
    times: dict[Pacing, list[FrameTime]] = {"real_time": paced.times, "back_to_back": hurried.times}
    events: dict[Pacing, tuple[Event, ...]] = {
        "real_time": tuple(paced.report.events),
        "back_to_back": tuple(hurried.report.events),
    }
    return MeasuredEngine(profile=profile, times=times, pressure=pressure, events=events)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversation:
    times: list[FrameTime]
    first_ms: float
    codes: list[Codes]
    report: InteractivityReport


def _manner(report: InteractivityReport) -> dict[str, float | None]:
    return {
        "answer_offset_s": report.turn.fto_s.p50,
        "stop_latency_s": report.interruption.stop_latency_s.p50,
        "overlap_share": report.floor.overlap_share.value,
        "backchannels_per_min": report.backchannel.per_user_speech_min.value,
    }


def _release(config: AgentConfig) -> None:
    """Give the memory of the engine just measured back, so that the next one finds room."""
    gc.collect()
    if config.engine == "torch" and config.device == "cuda" and find_spec("torch"):
        torch = import_module("torch")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def _converse(agent: DuplexAgent, frames: Sequence[Pcm], clock: Clock, pacing: Pacing) -> _Conversation:
    codes: list[Codes] = []
    with agent.session(seed=0) as session:

        def step(frame: Pcm) -> FrameResult:
            result = session.step(frame)
            codes.append(result.user_codes)
            return result

        first_ms = step(frames[0]).stage_ms["total"]
        times = run_frames(step, frames[1:], clock, pacing=pacing)
        return _Conversation(times=times, first_ms=first_ms, codes=codes, report=session.report())
