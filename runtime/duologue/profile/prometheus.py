"""The profile in Prometheus' text format, for a node's textfile collector or a push gateway: seconds and bytes."""

from __future__ import annotations

from collections.abc import Iterator

from duologue.profile.audio_facts import AudioFacts
from duologue.profile.engines import EngineProfile
from duologue.profile.report import ProfileReport
from duologue.profile.timing import BUCKETS_MS, Timing

Labels = dict[str, str]


def render_prometheus(report: ProfileReport) -> str:
    """Return a report as Prometheus text (format version 0.0.4).

    Args:
        report: What was found.
    """
    book = _Book()
    _add_host(book, report)
    for engine in report.engines:
        if not engine.error:
            _add_engine(book, engine)
    conditions = {"idle": report.wakeups.idle, "frames": report.wakeups.frames, "hogged": report.wakeups.hogged}
    for condition, timing in conditions.items():
        book.histogram("wakeup_delay_seconds", "Lateness of a 1 ms ticker thread.", timing, {"condition": condition})
    for part in report.mouth_to_ear:
        labels = {"part": part.name, "basis": part.basis}
        book.gauge("mouth_to_ear_seconds", "Expected latency by part; the sum is the whole.", part.ms / 1e3, labels)
    if report.audio is not None:
        _add_audio(book, report.audio)
    return book.text()


class _Book:
    """Samples in families, each family announced once."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, list[str]]] = {}

    def gauge(self, name: str, help_text: str, value: float, labels: Labels | None = None) -> None:
        self._add(name, "gauge", help_text, [f"duologue_{name}{_labels(labels or {})} {_number(value)}"])

    def counter(self, name: str, help_text: str, value: float, labels: Labels | None = None) -> None:
        self._add(name, "counter", help_text, [f"duologue_{name}{_labels(labels or {})} {_number(value)}"])

    def histogram(self, name: str, help_text: str, timing: Timing, labels: Labels) -> None:
        self._add(name, "histogram", help_text, list(_histogram_lines(f"duologue_{name}", timing, labels)))

    def text(self) -> str:
        lines: list[str] = []
        for name, (kind, help_text, samples) in self._families.items():
            lines += [f"# HELP duologue_{name} {help_text}", f"# TYPE duologue_{name} {kind}", *samples]
        return "\n".join(lines) + "\n"

    def _add(self, name: str, kind: str, help_text: str, samples: list[str]) -> None:
        self._families.setdefault(name, (kind, help_text, []))[2].extend(samples)


def _histogram_lines(name: str, timing: Timing, labels: Labels) -> Iterator[str]:
    for edge_ms, count in zip(BUCKETS_MS, timing.buckets, strict=True):
        yield f"{name}_bucket{_labels({**labels, 'le': _number(edge_ms / 1e3)})} {count}"
    yield f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {timing.count}"
    yield f"{name}_sum{_labels(labels)} {_number(timing.total_ms / 1e3)}"
    yield f"{name}_count{_labels(labels)} {timing.count}"


def _add_host(book: _Book, report: ProfileReport) -> None:
    host = report.host
    facts = {"cpu": host.cpu, "isa": host.isa, "kernel": host.kernel, "governor": host.governor, "agent": report.agent}
    facts |= {"gpu": host.gpu.name if host.gpu else "", "version": host.versions.get("duologue", "")}
    book.gauge("host_info", "The machine and the agent, in the labels.", 1, facts)
    book.gauge("usable_cores", "Cores that the process may use at once.", host.usable_cores)
    book.gauge("memory_bandwidth_bytes_per_second", "What one thread reads from memory.", 1e9 * host.bandwidth_gb_s)
    book.gauge("frame_budget_seconds", "Time that one frame may take.", report.frame_budget_ms / 1e3)
    book.gauge("budget_met", "1 if the judged engine met the budget, else 0.", float(report.verdict.is_met))
    pressure = {"cpu_pressure_ratio": report.pressure.cpu_share, "cpu_steal_ratio": report.pressure.steal_share}
    for name, value in pressure.items():
        if value is not None:
            book.gauge(name, "Share of the time that others took from the judged run.", value)


def _add_engine(book: _Book, engine: EngineProfile) -> None:
    labels = {"engine": engine.engine, "dtype": engine.dtype, "device": engine.device, "codec": engine.codec_precision}
    book.gauge("load_seconds", "Time to load the agent.", engine.load_s, labels)
    book.gauge("first_frame_seconds", "Time of the first frame.", engine.first_frame_ms / 1e3, labels)
    memory_mb = {
        "before": engine.resident_before_mb,
        "loaded": engine.resident_loaded_mb,
        "after": engine.resident_after_mb,
    }
    for state, size_mb in memory_mb.items():
        book.gauge("resident_memory_bytes", "Memory of the process.", 1e6 * size_mb, {**labels, "state": state})
    if engine.gpu_memory_mb is not None:
        book.gauge("gpu_memory_peak_bytes", "Most memory taken on the GPU.", 1e6 * engine.gpu_memory_mb, labels)
    if engine.model_on_gpu is not None:
        book.histogram("gpu_model_seconds", "Model step by the GPU's clock.", engine.model_on_gpu, labels)
    for run in engine.runs:
        run_labels = {**labels, "pacing": run.pacing}
        book.counter("frames_total", "Frames measured.", run.frames, run_labels)
        book.counter("late_frames_total", "Frames complete after the next was due.", run.late_frames, run_labels)
        book.gauge("real_time_factor", "Mean frame time over the budget.", run.real_time_factor, run_labels)
        for stage, timing in run.stages.items():
            book.histogram("stage_seconds", "Wall time of a stage of a frame.", timing, {**run_labels, "stage": stage})


def _add_audio(book: _Book, audio: AudioFacts) -> None:
    for thread, callback in enumerate(audio.callbacks):
        labels = {"thread": str(thread)}
        book.histogram("audio_callback_gap_seconds", "Time between driver callbacks.", callback.gap, labels)
        book.histogram("audio_callback_body_seconds", "Time inside driver callbacks.", callback.body, labels)
        book.counter("audio_late_callbacks_total", "Callbacks that came or ended too late.", callback.late, labels)
        for kind, count in callback.xruns.items():
            book.counter("audio_xruns_total", "Callbacks with a loss reported.", count, {**labels, "kind": kind})
    book.histogram("audio_resample_seconds", "Time per frame of converting rates.", audio.resample, {})
    book.histogram("audio_queue_seconds", "Time from a complete frame to its step.", audio.queue, {})
    if audio.aec is not None:
        book.histogram("audio_aec_seconds", "Time per frame of cancelling echo.", audio.aec, {})
    lost_ms = {
        "lost_input": audio.lost_input_ms,
        "concealed": audio.concealed_ms,
        "dropped": audio.dropped_ms,
        "cut": audio.cut_ms,
        "inserted": audio.inserted_ms,
    }
    for kind, ms in lost_ms.items():
        book.counter("audio_altered_seconds_total", "Audio lost or bent, by kind.", ms / 1e3, {"kind": kind})
    for work, clicks in {"none": audio.bare_clicks, "agent": audio.agent_clicks}.items():
        if clicks is not None:
            book.gauge("audio_loop_seconds", "Median click loop, lag included.", clicks.p50_ms / 1e3, {"work": work})
    reported = {"input": audio.device.input_latency_ms, "output": audio.device.output_latency_ms}
    for side, ms in reported.items():
        book.gauge("audio_reported_latency_seconds", "What the driver claims.", ms / 1e3, {"side": side})
    book.gauge("audio_slack_min_seconds", "Least audio left when a reply came.", audio.slack_min_ms / 1e3)
    if audio.drift_ppm is not None:
        book.gauge("audio_drift_ratio", "Loudspeaker's clock over the microphone's, minus 1.", audio.drift_ppm / 1e6)


def _labels(labels: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return f"{value:.9g}"
