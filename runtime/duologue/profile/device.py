"""Measure a sound device: one click loop with nothing to compute, one with the agent's work in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from duologue._native import AudioPort
from duologue.audio.device import DeviceSpec, OpenDevice, StreamInfo
from duologue.audio.loop import DuplexLoop, LoopFrame, LoopSettings
from duologue.audio.port import PortCounters, SharedPort, read_counters
from duologue.errors import DeviceError
from duologue.profile.audio_facts import AudioFacts, AudioMoment, CallbackFacts, Step
from duologue.profile.clicks import ClickLoop
from duologue.profile.clock import Clock, MonotonicClock
from duologue.profile.timing import from_histogram, summarise
from duologue.types import FRAME_MS, SAMPLE_RATE_HZ

_SILENT_S = 2.0
_WAIT_S = 0.25
_SAMPLES_PER_MS = SAMPLE_RATE_HZ / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRun:
    """What one run through a device left behind.

    Attributes:
        device: What it agreed to.
        counters: Of the port.
        frames: Every frame.
        times_s: When each was done.
        dropped_samples: User's samples skipped to keep the lag bounded.
        cut_samples: Agent's samples cut likewise.
        inserted_samples: Silence inserted.
        lag_ms: Lag that the loop holds.
        drift_ppm: Between the two directions, or None before 10 s.
    """

    device: StreamInfo
    counters: PortCounters
    frames: Sequence[LoopFrame]
    times_s: Sequence[float]
    dropped_samples: int
    cut_samples: int
    inserted_samples: int
    lag_ms: float
    drift_ppm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProbe:
    """An `AudioProbe` for any device that can be opened.

    Attributes:
        spec: The device.
        settings: Delays of the audio loop.
        clock: Time.
    """

    spec: DeviceSpec
    settings: LoopSettings = field(default_factory=LoopSettings)
    clock: Clock = field(default_factory=MonotonicClock)

    def measure(self, step: Step, seconds: float) -> AudioFacts:
        """Run the device bare and then with a conversation; see `AudioProbe.measure`.

        Raises:
            DeviceError: There is no device, or it fails or falls silent.
            MissingExtraError: The sound package is not installed.
        """
        bare, busy = ClickLoop(), ClickLoop(step)
        self._run(bare, seconds)
        run = self._run(busy, seconds)
        return facts_of(run, bare, busy)

    def _run(self, step: ClickLoop, seconds: float) -> LoopRun:
        shared = SharedPort()
        try:
            return self._open_and_drive(shared, step, seconds)
        finally:
            # Whatever held the port went with the call above: the memory can be given back only then.
            shared.close()

    def _open_and_drive(self, shared: SharedPort, step: ClickLoop, seconds: float) -> LoopRun:
        device = self.spec.open(shared)
        try:
            return self._drive(shared.port, device, step, seconds)
        finally:
            device.close()

    def _drive(self, port: AudioPort, device: OpenDevice, step: ClickLoop, seconds: float) -> LoopRun:
        loop = DuplexLoop(port, step, self.settings, is_one_clock=device.info.is_one_clock)
        frames: list[LoopFrame] = []
        times_s: list[float] = []
        device.start()
        begun_s = alive_s = self.clock.now_s()
        while self.clock.now_s() < begun_s + seconds:
            calls = port.calls
            port.wait_input(loop.samples_to_wait_for, _WAIT_S)
            for frame in loop.pump():
                frames.append(frame)
                times_s.append(self.clock.now_s())
            if port.calls > calls:
                alive_s = self.clock.now_s()
            if self.clock.now_s() - alive_s > _SILENT_S or not device.is_alive():
                raise DeviceError(f"{device.info.input_name!r} fell silent; is the sound server alive?")
        return LoopRun(
            device=device.info,
            counters=read_counters(port),
            frames=frames,
            times_s=times_s,
            dropped_samples=loop.counters.dropped_user,
            cut_samples=loop.counters.cut_agent,
            inserted_samples=loop.counters.inserted,
            lag_ms=1e3 * loop.target_lag_s,
            drift_ppm=loop.drift_ppm,
        )


def facts_of(run: LoopRun, bare: ClickLoop, busy: ClickLoop) -> AudioFacts:
    """Return what two runs say about the device.

    Args:
        run: The one with the agent's work.
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
    slack_ms = [max(0.0, frame.fill_ms - FRAME_MS) for frame in run.frames]
    return AudioFacts(
        device=run.device,
        loop_lag_ms=run.lag_ms,
        bare_clicks=bare.facts(),
        agent_clicks=busy.facts(),
        callbacks=callbacks,
        slack_min_ms=min(slack_ms, default=0.0),
        slack_p50_ms=summarise(slack_ms).p50_ms,
        backlog_ms=summarise([frame.backlog_ms for frame in run.frames]),
        resample=summarise([frame.resample_ms for frame in run.frames]),
        moments=moments,
        lost_input_ms=1e3 * run.counters.lost_input_samples / run.device.input_hz,
        concealed_ms=1e3 * run.counters.concealed_output_samples / run.device.output_hz,
        concealed_events=run.counters.concealed_events,
        dropped_ms=run.dropped_samples / _SAMPLES_PER_MS,
        cut_ms=run.cut_samples / _SAMPLES_PER_MS,
        inserted_ms=run.inserted_samples / _SAMPLES_PER_MS,
        drift_ppm=run.drift_ppm,
    )
