"""Measure a sound device: one click loop with nothing to compute, one with the agent's work in it."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from duologue._native import AudioPort
from duologue.audio.canceller import EchoCanceller
from duologue.audio.device import DeviceSpec, OpenDevice, StreamInfo
from duologue.audio.loop import DuplexLoop, LoopFrame, LoopSettings
from duologue.audio.playout import WINDOW_FRAMES, first_playout_ms
from duologue.audio.port import XRUN_KINDS, PortCounters, SharedPort, read_counters
from duologue.errors import DeviceError
from duologue.profile.audio_facts import AudioFacts, AudioMoment, CallbackFacts, DriverCall, Step
from duologue.profile.clicks import ClickLoop
from duologue.profile.clock import Clock, MonotonicClock
from duologue.profile.timing import from_histogram, summarise
from duologue.types import FRAME_MS, FRAME_RATE_HZ, SAMPLE_RATE_HZ, Pcm

_SILENT_S = 2.0
_WAIT_S = 0.25
_SAMPLES_PER_MS = SAMPLE_RATE_HZ / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRun:
    """What one run through a device left behind.

    Attributes:
        device: What it agreed to.
        counters: Of the port.
        settling_frames: Frames that passed before the playout had settled.
        frames: Every frame since.
        times_s: When each was done.
        calls: Callbacks, from the beginning.
        dropped_samples: User's samples skipped to keep the lag bounded.
        cut_samples: Agent's samples cut likewise.
        inserted_samples: Silence inserted.
        drift_ppm: Between the two directions, or None before 10 s.
    """

    device: StreamInfo
    counters: PortCounters
    settling_frames: int
    frames: Sequence[LoopFrame]
    times_s: Sequence[float]
    calls: Sequence[DriverCall]
    dropped_samples: int
    cut_samples: int
    inserted_samples: int
    drift_ppm: float | None

    @property
    def lag_ms(self) -> float:
        """Median lag that the loop held."""
        return summarise([frame.lag_ms for frame in self.frames]).p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProbe:
    """An `AudioProbe` for any device that can be opened.

    Attributes:
        spec: The device.
        settings: Delays of the loop that the agent is in; None takes those of a live conversation.
        cancels_echo: Whether to cancel echo meanwhile, for what it costs.
        clock: Time.
    """

    spec: DeviceSpec
    settings: LoopSettings | None = None
    cancels_echo: bool = False
    clock: Clock = field(default_factory=MonotonicClock)

    def measure(self, step: Step, seconds: float) -> AudioFacts:
        """Run the device bare and then with a conversation; see `AudioProbe.measure`.

        Raises:
            DeviceError: There is no device, or it fails or falls silent.
            MissingExtraError: The sound package is not installed.
        """
        bare, busy = ClickLoop(), ClickLoop(step)
        bare_run = self._run(bare, LoopSettings(), seconds)
        settings = self.settings
        if settings is None:
            settings = LoopSettings(playout_ms=first_playout_ms(step), adapts_playout=True)
        run = self._run(busy, settings, seconds, cancels_echo=self.cancels_echo)
        return facts_of(run, bare_run, bare, busy)

    def _run(self, step: ClickLoop, settings: LoopSettings, seconds: float, *, cancels_echo: bool = False) -> LoopRun:
        shared = SharedPort()
        try:
            return self._open_and_drive(shared, step, settings, seconds, cancels_echo)
        finally:
            # Whatever held the port went with the call above: the memory can be given back only then.
            shared.close()

    def _open_and_drive(
        self, shared: SharedPort, step: ClickLoop, settings: LoopSettings, seconds: float, cancels_echo: bool
    ) -> LoopRun:
        device = self.spec.open(shared)
        try:
            canceller = _Unheard() if cancels_echo else None
            one_clock = device.info.is_one_clock
            loop = DuplexLoop(shared.port, step, settings, is_one_clock=one_clock, canceller=canceller)
            settling_s = min(seconds, WINDOW_FRAMES / FRAME_RATE_HZ) if settings.adapts_playout else 0.0
            return self._drive(shared.port, device, loop, seconds, settling_s)
        finally:
            device.close()

    def _drive(
        self, port: AudioPort, device: OpenDevice, loop: DuplexLoop, seconds: float, settling_s: float
    ) -> LoopRun:
        frames: list[LoopFrame] = []
        times_s: list[float] = []
        log = _CallLog(port)
        device.start()
        begun_s = alive_s = self.clock.now_s()
        while self.clock.now_s() < begun_s + settling_s + seconds:
            calls = port.calls
            port.wait_input(loop.samples_to_wait_for, _WAIT_S)
            for frame in loop.pump():
                frames.append(frame)
                times_s.append(self.clock.now_s())
            log.read()
            if port.calls > calls:
                alive_s = self.clock.now_s()
            if self.clock.now_s() - alive_s > _SILENT_S or not device.is_alive():
                raise DeviceError(f"{device.info.input_name!r} fell silent; is the sound server alive?")
        settling_frames = bisect(times_s, begun_s + settling_s) if settling_s else 0
        return LoopRun(
            device=device.info,
            counters=read_counters(port),
            settling_frames=settling_frames,
            frames=frames[settling_frames:],
            times_s=times_s[settling_frames:],
            calls=log.calls,
            dropped_samples=loop.counters.dropped_user,
            cut_samples=loop.counters.cut_agent,
            inserted_samples=loop.counters.inserted,
            drift_ppm=loop.drift_ppm,
        )


class _CallLog:
    """Collects the port's callbacks before the newest ones overwrite them."""

    def __init__(self, port: AudioPort) -> None:
        self.calls: list[DriverCall] = []
        self._port = port
        self._next = [0, 0]

    def read(self) -> None:
        for thread in (0, 1):
            self._next[thread], rows = self._port.calls_since(thread, self._next[thread])
            for begun_ns, body_ns, flags in rows.tolist():
                xruns = tuple(kind for bit, kind in enumerate(XRUN_KINDS) if flags >> bit & 1)
                self.calls.append(DriverCall(thread=thread, at_s=begun_ns / 1e9, body_ms=body_ns / 1e6, xruns=xruns))


class _Unheard(EchoCanceller):
    """Works as in a conversation, but what it makes is not used: it would take the very clicks out."""

    def process(self, user: Pcm, agent: Pcm, *, device_delay_ms: float = 0.0) -> Pcm:
        super().process(user, agent, device_delay_ms=device_delay_ms)
        return user


def facts_of(run: LoopRun, bare_run: LoopRun, bare: ClickLoop, busy: ClickLoop) -> AudioFacts:
    """Return what two runs say about the device.

    Args:
        run: The one with the agent's work.
        bare_run: The one without.
        bare: Clicks of the run without.
        busy: Clicks of the run with it.
    """
    callbacks = tuple(
        CallbackFacts(
            calls=one.calls,
            late=one.late,
            xruns=one.xruns,
            gap=from_histogram(one.gap),
            body=from_histogram(one.body),
        )
        for one in run.counters.callbacks
    )
    moments = tuple(
        AudioMoment(at_s=at_s, lag_ms=frame.lag_ms, fill_ms=frame.fill_ms, backlog_ms=frame.backlog_ms)
        for at_s, frame in zip(run.times_s, run.frames, strict=True)
    )
    cancel_ms = [frame.cancel_ms for frame in run.frames if frame.cancel_ms is not None]
    slack_ms = [max(0.0, frame.fill_ms - FRAME_MS) for frame in run.frames]
    return AudioFacts(
        device=run.device,
        bare_lag_ms=bare_run.lag_ms,
        loop_lag_ms=run.lag_ms,
        bare_clicks=bare.facts(),
        agent_clicks=busy.facts(skip_frames=run.settling_frames),
        callbacks=callbacks,
        slack_min_ms=min(slack_ms, default=0.0),
        slack_p50_ms=summarise(slack_ms).p50_ms,
        backlog_ms=summarise([frame.backlog_ms for frame in run.frames]),
        queue=summarise([frame.queue_ms for frame in run.frames]),
        resample=summarise([frame.resample_ms for frame in run.frames]),
        aec=summarise(cancel_ms) if cancel_ms else None,
        moments=moments,
        calls=tuple(run.calls),
        lost_input_ms=1e3 * run.counters.lost_input_samples / run.device.input_hz,
        concealed_ms=1e3 * run.counters.concealed_output_samples / run.device.output_hz,
        concealed_events=run.counters.concealed_events,
        dropped_ms=run.dropped_samples / _SAMPLES_PER_MS,
        cut_ms=run.cut_samples / _SAMPLES_PER_MS,
        inserted_ms=run.inserted_samples / _SAMPLES_PER_MS,
        drift_ppm=run.drift_ppm,
    )
