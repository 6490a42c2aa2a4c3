"""The profile as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from duologue.profile.audio_facts import AudioFacts, ClickFacts
from duologue.profile.engines import EngineProfile
from duologue.profile.frames import RunProfile
from duologue.profile.host import HostFacts
from duologue.profile.report import LatencyPart, ProfileReport
from duologue.profile.timing import Timing
from duologue.types import FRAME_MS

_PACING = {"real_time": "in real time", "back_to_back": "back to back"}
_HEAD = f"{'p50':>9}{'p95':>9}{'p99':>9}{'p99.9':>9}{'max':>9}"


def render_table(report: ProfileReport) -> str:
    """Return a report as text for a font of one width.

    Args:
        report: What was found.
    """
    lines = [
        f"agent     {report.agent}",
        *_host_lines(report.host),
        f"meanwhile {_pressure_line(report)}",
        "",
        f"frames against the budget of {report.frame_budget_ms:g} ms, in ms",
        f"{'':34}{_HEAD}{'late':>8}{'RTF':>7}{'budget':>8}",
    ]
    for engine in report.engines:
        lines += _engine_lines(engine)
    lines += ["", *_wakeup_lines(report), "", *_audio_lines(report), "", *_latency_lines(report), "", *_verdict(report)]
    return "\n".join(lines)


def _host_lines(host: HostFacts) -> Iterator[str]:
    isas = ", ".join(host.isas)
    yield f"host      {host.cpu}, {host.usable_cores:g} of {host.cores} cores usable, {host.isa} (of {isas})"
    limit = f" (container: {host.memory_limit_gb:.1f} GB)" if host.memory_limit_gb is not None else ""
    governor = host.governor or "unknown"
    yield (
        f"          {host.kernel}, governor {governor}, {host.memory_gb:.0f} GB of memory{limit}, "
        f"{host.bandwidth_gb_s:.1f} GB/s"
    )
    lock = "unlimited" if host.memory_lock_mb is None else f"{host.memory_lock_mb:.0f} MB"
    load = "unknown" if host.load is None else f"{host.load:.1f}"
    yield (
        f"          load {load}, real-time priority {host.realtime_priority or 'none'}, memory lock {lock}, "
        f"GIL {'on' if host.is_gil_enabled else 'off'}"
    )
    yield "          " + ", ".join(f"{name} {version}" for name, version in host.versions.items())
    if host.gpu is not None:
        gpu = host.gpu
        yield (
            f"gpu       {gpu.name}, {gpu.memory_gb:.0f} GB, {gpu.bandwidth_gb_s:.0f} GB/s, "
            f"driver {gpu.driver or 'unknown'}, CUDA {gpu.cuda}"
        )


def _pressure_line(report: ProfileReport) -> str:
    shares = {
        "tasks waiting for a core": report.pressure.cpu_share,
        "cores taken by the hypervisor": report.pressure.steal_share,
    }
    known = [f"{name} {share:.1%} of the time" for name, share in shares.items() if share is not None]
    return ", ".join(known) or "this system does not tell what others took"


def _engine_lines(engine: EngineProfile) -> Iterator[str]:
    if engine.error:
        yield f"{engine.name}: not measured, {engine.error}"
        return
    for run in engine.runs:
        total = run.stages["total"]
        yield _row(f"{engine.name}, {_PACING[run.pacing]}", total) + _lateness(run) + f"{total.p95_ms / FRAME_MS:8.1%}"
    for stage, timing in engine.runs[0].stages.items():
        if stage != "total":
            yield _row(f"  {stage}", timing) + _share(timing)
    if engine.model_on_gpu is not None:
        yield _row("  model by the GPU's clock", engine.model_on_gpu)
    yield f"  interactivity  {_manner(engine)}"
    gpu = f", GPU {engine.gpu_memory_mb:.0f} MB" if engine.gpu_memory_mb is not None else ""
    yield (
        f"  load {engine.load_s:.2f} s, first frame {engine.first_frame_ms:.1f} ms, resident "
        f"{engine.resident_before_mb:.0f} -> {engine.resident_loaded_mb:.0f} MB loaded -> "
        f"{engine.resident_after_mb:.0f} MB after {2 * (engine.runs[0].frames + 1)} frames{gpu}"
    )


def _manner(engine: EngineProfile) -> str:
    def shown(name: str, unit: str = "") -> str:
        value = engine.interactivity.get(name)
        return "-" if value is None else f"{value:.2f}{unit}"

    return (
        f"answers after {shown('answer_offset_s', ' s')}, yields after {shown('stop_latency_s', ' s')}, both talk "
        f"{shown('overlap_share')} of the time, {shown('backchannels_per_min')} backchannels per min of user speech"
    )


def _lateness(run: RunProfile) -> str:
    return f"{run.late_share:8.1%}{run.real_time_factor:7.3f}"


def _share(timing: Timing) -> str:
    """Return the share of a frame's budget, in the budget's column."""
    return f"{timing.p95_ms / FRAME_MS:23.1%}"


def _row(name: str, timing: Timing) -> str:
    values = (timing.p50_ms, timing.p95_ms, timing.p99_ms, timing.p999_ms, timing.max_ms)
    return f"{name:34}" + "".join(f"{value:9.2f}" for value in values)


def _wakeup_lines(report: ProfileReport) -> Iterator[str]:
    wakeups = report.wakeups
    yield f"{'wake-ups of a 1 ms ticker, late by':34}{_HEAD}"
    yield _row("  idle: the scheduler", wakeups.idle)
    yield _row("  while frames run", wakeups.frames)
    yield _row("  frame's own wake-up", report.engines[0].run("real_time").wake_up)
    yield _row(f"  with a GIL hog ({wakeups.hog_hold.p50_ms:.0f} ms a time)", wakeups.hogged)
    yield _row("  frames with that hog", wakeups.hogged_run.stages["total"]) + _lateness(wakeups.hogged_run)


def _audio_lines(report: ProfileReport) -> Iterator[str]:
    audio = report.audio
    if audio is None:
        yield f"no audio: {report.no_audio}"
        return
    device = audio.device
    thread = f", thread {device.scheduling}" if device.scheduling else ""
    yield f"audio     {device.input_name} -> {device.output_name} ({device.host_api}), {_rates(audio)}{thread}"
    yield (
        f"  latency reported {audio.reported_device_ms:.1f} ms (in {device.input_latency_ms:.1f}, "
        f"out {device.output_latency_ms:.1f}), measured {_measured(audio)}"
    )
    yield f"  clicks  {_clicks(audio.bare_clicks)} bare; {_clicks(audio.agent_clicks)} with the agent"
    for callback in audio.callbacks:
        xruns = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in callback.xruns.items() if count)
        yield _row(f"  callback gap ({callback.calls} calls)", callback.gap) + f"{callback.late:6d} late"
        yield _row("  callback body", callback.body)
        yield f"  xruns   {xruns or 'none'}"
    yield _row("  queue before the step", audio.queue) + _share(audio.queue)
    yield _row("  resampling, per frame", audio.resample) + _share(audio.resample)
    if audio.aec is not None:
        yield _row("  echo cancelling, per frame", audio.aec) + _share(audio.aec)
    yield (
        f"  rings   {audio.slack_p50_ms:.1f} ms left when a reply came (least {audio.slack_min_ms:.1f}), "
        f"backlog p50 {audio.backlog_ms.p50_ms:.1f}, max {audio.backlog_ms.max_ms:.1f} ms"
    )
    yield (
        f"  lost    {audio.lost_input_ms:.1f} ms of input; concealed {audio.concealed_ms:.1f} ms in "
        f"{audio.concealed_events} events; dropped {audio.dropped_ms:.1f}, cut {audio.cut_ms:.1f}, "
        f"inserted {audio.inserted_ms:.1f} ms"
    )
    drift = "unknown (needs 10 s)" if audio.drift_ppm is None else f"{audio.drift_ppm:+.1f} ppm"
    yield f"  drift   {drift}"


def _rates(audio: AudioFacts) -> str:
    rates = dict.fromkeys((audio.device.input_hz, audio.device.output_hz))
    return f"{' / '.join(f'{rate:g}' for rate in rates)} Hz, blocks of about {audio.block_ms:.0f} ms"


def _measured(audio: AudioFacts) -> str:
    if audio.measured_device_ms is None:
        return "not: no click came back (is the microphone in reach of the loudspeaker?)"
    return f"{audio.measured_device_ms:.1f} ms"


def _clicks(clicks: ClickFacts | None) -> str:
    if clicks is None:
        return "none heard"
    spread = f"{clicks.min_ms:.1f} to {clicks.max_ms:.1f}"
    return f"{clicks.heard} of {clicks.sent} heard, {clicks.p50_ms:.1f} ms ({spread})"


def _latency_lines(report: ProfileReport) -> Iterator[str]:
    yield f"mouth to ear, expected: {report.mouth_to_ear_ms:.1f} ms"
    for part in report.mouth_to_ear:
        yield f"  {part.name:22}{part.ms:8.1f} ms  {part.basis}"
    if report.audio is None:
        yield "  device                      not measured; add it"
    elif report.audio.agent_clicks is not None:
        delay_ms = _delay_ms(report.mouth_to_ear)
        clicks_ms = report.audio.agent_clicks.p50_ms
        yield (
            f"  measured with the agent {clicks_ms + delay_ms:.1f} ms: click loop {clicks_ms:.1f} ms "
            f"+ acoustic delay {delay_ms:.0f} ms"
        )


def _delay_ms(parts: tuple[LatencyPart, ...]) -> float:
    return next((part.ms for part in parts if part.name == "acoustic delay"), 0.0)


def _verdict(report: ProfileReport) -> Iterator[str]:
    verdict = report.verdict
    state = "met" if verdict.is_met else "MISSED"
    yield (
        f"budget {state} by {verdict.engine}: p95 {verdict.p95_ms:.1f} of {FRAME_MS} ms, "
        f"{verdict.late_share:.1%} late, headroom {verdict.headroom:.1f}x"
    )
    yield verdict.cause
