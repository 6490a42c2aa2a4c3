"""The frame loop between the rings and the conversation: re-block, resample, step, and keep the lag bounded.

Lag is all the audio under way: what waits in the microphone's ring, the frame being filled, what waits in the
loudspeaker's ring. It is set at the start (one frame plus `playout_ms`) and then held, or, on request, made to follow
how late the replies come, so that it is never longer than these ten seconds need:

* One clock: nothing ever changes it but a loss or a new need, so equal rates pass the audio bit for bit.
* Two clocks: the agent's resampler follows their drift.
* After a stall every waiting user frame up to `max_backlog_ms` is still heard, as fast as the engine can; older ones
  are dropped. The loudspeaker, which faded to silence meanwhile, is then late by the length of the stall; that excess
  is cut from the agent's quiet frames, and above `max_lag_ms` from any frame, with a cross-fade.

Every sample dropped, cut or inserted is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from duologue._native import AudioPort, VariableResampler, monotonic_ns
from duologue.audio.canceller import EchoCanceller
from duologue.audio.clock import LagController, RateMeter
from duologue.audio.playout import WINDOW_FRAMES, PlayoutMeter
from duologue.audio.port import stream_delay_ms
from duologue.errors import ConfigError
from duologue.types import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, FrameResult, Pcm

_QUIET_RMS = 10 ** (-50 / 20)
_CROSSFADE_SAMPLES = 240
# One period of the lowest voice: within it lies a place where the cut's two sides match.
_SEARCH_SAMPLES = 300
_TOLERANCE_S = 0.04
# Where the lag is known to the sample and is to be as small as can be.
_FINE_TOLERANCE_S = 0.004
_MAX_EXTRAPOLATION_S = 0.1
_HISTORY_SAMPLES = 2 * SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """How the loop trades delay for safety.

    Attributes:
        playout_ms: Time a frame may take from its last sample to its first reply sample at the loudspeaker's ring.
        adapts_playout: Whether that is only the beginning and follows how late the replies come.
        max_backlog_ms: User's audio that may wait before the oldest is dropped, and the most that playout adapts to.
        max_lag_ms: Excess over the normal lag above which loud frames are cut, too.
    """

    playout_ms: float = 40.0
    adapts_playout: bool = False
    max_backlog_ms: float = 480.0
    max_lag_ms: float = 240.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If a value is out of range.
        """
        if not 0 <= self.playout_ms <= 1000:
            raise ConfigError(f"playout_ms = {self.playout_ms} is out of range; use 0 to 1000")
        if not FRAME_MS <= self.max_backlog_ms <= 1200:
            raise ConfigError(f"max_backlog_ms = {self.max_backlog_ms} is out of range; use {FRAME_MS} to 1200")
        if not 40 <= self.max_lag_ms <= 1200:
            raise ConfigError(f"max_lag_ms = {self.max_lag_ms} is out of range; use 40 to 1200")


@dataclass(slots=True, kw_only=True)
class LoopCounters:
    """What the loop did to keep the lag, in 24 kHz samples but for `frames`."""

    frames: int = 0
    dropped_user: int = 0
    cut_agent: int = 0
    inserted: int = 0
    refused_output: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFrame:
    """A frame and the state of the loop when it was done.

    Attributes:
        user: The user's frame, shape [1920].
        result: What the conversation made of it.
        lag_ms: Audio under way, from microphone ring to loudspeaker ring.
        fill_ms: Agent's audio waiting for the loudspeaker.
        backlog_ms: User's audio still waiting.
        queue_ms: How long the frame waited, once complete, before its step began.
        resample_ms: Time spent converting rates for this frame, both ways.
        cancel_ms: Time spent cancelling echo; None without a canceller.
    """

    user: Pcm
    result: FrameResult
    lag_ms: float
    fill_ms: float
    backlog_ms: float
    queue_ms: float
    resample_ms: float
    cancel_ms: float | None


class DuplexLoop:
    """Moves audio between a configured port and a conversation; one thread calls `pump`, nothing in it waits."""

    def __init__(
        self,
        port: AudioPort,
        step: Callable[[Pcm], FrameResult],
        settings: LoopSettings,
        *,
        is_one_clock: bool,
        device_delay_ms: float = 0.0,
        canceller: EchoCanceller | None = None,
    ) -> None:
        """Prepare for a port whose rates are known and write the first silence.

        Args:
            port: A configured port; its stream starts after this.
            step: One frame of the conversation.
            settings: Delays.
            is_one_clock: Whether both directions run on one clock, so that the agent's speed never needs bending.
            device_delay_ms: As `attach` takes it.
            canceller: Takes the agent's echo out of the user's frames.
        """
        self.counters = LoopCounters()
        self._canceller = canceller
        self.step = step
        self._settings = settings
        self._playout_s = settings.playout_ms / 1e3
        # Older audio of the user is dropped, so no reply can be of use that comes later.
        max_s = settings.max_backlog_ms / 1e3
        self._playout = PlayoutMeter(self._playout_s, max_s=max_s) if settings.adapts_playout else None
        self._silenced: deque[tuple[int, int]] = deque()
        self.attach(port, is_one_clock=is_one_clock, device_delay_ms=device_delay_ms)

    def attach(self, port: AudioPort, *, is_one_clock: bool, device_delay_ms: float = 0.0) -> None:
        """Go on with a port configured anew (the device came back, or another one); counters go on.

        Args:
            port: The port.
            is_one_clock: Whether both directions run on one clock.
            device_delay_ms: The driver's input and output latency together, for when its stream times say nothing.
        """
        self._port = port
        self._device_delay_ms = device_delay_ms
        self._silenced.clear()
        if self._canceller is not None:
            self._canceller.reset()
        self._in_hz, self._out_hz = port.input_hz, port.output_hz
        has_fixed_out = is_one_clock and self._out_hz == SAMPLE_RATE_HZ
        self._to_model = None if self._in_hz == SAMPLE_RATE_HZ else VariableResampler(self._in_hz, SAMPLE_RATE_HZ)
        self._from_model = None if has_fixed_out else VariableResampler(SAMPLE_RATE_HZ, self._out_hz)
        self._controller = None if is_one_clock else LagController(self.target_lag_s)
        self.meters = RateMeter(self._in_hz), RateMeter(self._out_hz)
        self._pending: Pcm = np.empty(0, dtype=np.float32)
        self._last_update_s: float | None = None
        self._played: Pcm = np.zeros(_HISTORY_SAMPLES, dtype=np.float32)
        self._is_aligned = is_one_clock
        self._frames_since_jump = 0
        port.write_output(np.zeros(round(self.target_lag_s * self._out_hz), dtype=np.float32))

    @property
    def target_lag_s(self) -> float:
        """The lag that the loop holds."""
        return FRAME_MS / 1e3 + self._playout_s

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the loudspeaker's clock runs than the microphone's; None until 10 s have passed."""
        rates = [meter.ppm() for meter in self.meters]
        return None if rates[0] is None or rates[1] is None else rates[1] - rates[0]

    @property
    def samples_to_wait_for(self) -> int:
        """Device samples that complete the next frame."""
        missing = FRAME_SAMPLES - len(self._pending)
        return max(1, round(missing * self._in_hz / SAMPLE_RATE_HZ))

    @property
    def held_s(self) -> float:
        """Look-ahead of both resamplers."""
        held = self._to_model.lookahead / self._in_hz if self._to_model else 0.0
        return held + (self._from_model.lookahead / SAMPLE_RATE_HZ if self._from_model else 0.0)

    def lag_s(self, now_ns: int | None = None) -> float:
        """Return the audio under way, between callbacks carried on from the last stamps so that blocks do not show."""
        return sum(self._lag_parts_s(_at(now_ns)))

    def _lag_parts_s(self, now_ns: int) -> tuple[float, float]:
        """Return what waits on the user's side and on the agent's."""
        in_count, in_ns, out_count, out_ns = self._port.clocks()
        received = in_count / self._in_hz + _since(in_ns, now_ns)
        played = out_count / self._out_hz + _since(out_ns, now_ns)
        waiting = received - self._port.input_read / self._in_hz + len(self._pending) / SAMPLE_RATE_HZ
        # A resampler takes its look-ahead in before it gives anything out.
        return waiting + self.held_s, self._port.output_written / self._out_hz - played

    def silence_queued(self) -> float:
        """Silence what waits for the loudspeaker and return how long that is, in s; any thread may call it."""
        first, until = self._port.silence_queued()
        self._silenced.append((first, until))
        return (until - first) / self._out_hz

    def pump(self, now_ns: int | None = None, *, limit: int = 1) -> list[LoopFrame]:
        """Run at most `limit` frames of what waits and return them."""
        self._drop_backlog()
        frames: list[LoopFrame] = []
        while len(frames) < limit:
            begun_s = perf_counter()
            queue_s, _ = self._lag_parts_s(_at(now_ns))
            user = self._next_frame()
            if user is None:
                break
            resampled_s = perf_counter()
            cancel_ms = None
            if self._canceller is not None:
                delay_ms = stream_delay_ms(self._port) or self._device_delay_ms
                user = self._canceller.process(user, self._played_with(now_ns), device_delay_ms=delay_ms)
                cancel_ms = 1e3 * (perf_counter() - resampled_s)
            result = self.step(user)
            stepped_s = perf_counter()
            self._play(result.pcm, now_ns)
            self.counters.frames += 1
            frame = LoopFrame(
                user=user,
                result=result,
                lag_ms=1e3 * self.lag_s(now_ns),
                fill_ms=1e3 * self._port.output_fill / self._out_hz,
                backlog_ms=1e3 * self._port.input_fill / self._in_hz,
                queue_ms=max(0.0, 1e3 * queue_s - FRAME_MS),
                resample_ms=1e3 * (resampled_s - begun_s + perf_counter() - stepped_s),
                cancel_ms=cancel_ms,
            )
            frames.append(frame)
        return frames

    def _drop_backlog(self) -> None:
        keep = round(self._settings.max_backlog_ms / 1e3 * self._in_hz)
        if self._port.input_fill > keep:
            dropped = self._port.drop_input(keep)
            self.counters.dropped_user += round(dropped * SAMPLE_RATE_HZ / self._in_hz)

    def _next_frame(self) -> Pcm | None:
        if len(self._pending) < FRAME_SAMPLES:
            samples = self._port.read_input(self.samples_to_wait_for)
            if self._to_model is not None:
                samples = self._to_model.process(samples)
            self._pending = np.concatenate([self._pending, samples])
        if len(self._pending) < FRAME_SAMPLES:
            return None
        frame, self._pending = self._pending[:FRAME_SAMPLES], self._pending[FRAME_SAMPLES:]
        # A driver may give anything; the conversation takes numbers in [-1, 1] only.
        return np.clip(np.nan_to_num(frame), -1.0, 1.0)

    def _played_with(self, now_ns: int | None) -> Pcm:
        """Return what the loudspeaker played while the microphone heard the frame at hand."""
        self._forget_silenced()
        ahead = min(max(0, round(self.lag_s(now_ns) * SAMPLE_RATE_HZ)), _HISTORY_SAMPLES - FRAME_SAMPLES)
        end = _HISTORY_SAMPLES - ahead
        return self._played[end - FRAME_SAMPLES : end]

    def _forget_silenced(self) -> None:
        """Take out of the agent's past what `silence_queued` kept from the room."""
        per_sample = SAMPLE_RATE_HZ / self._out_hz
        held = self._from_model.lookahead if self._from_model is not None else 0
        while self._silenced:
            first, until = (self._port.output_written - at for at in self._silenced.popleft())
            places = [max(0, _HISTORY_SAMPLES - held - round(back * per_sample)) for back in (first, until)]
            self._played[places[0] : places[1]] = 0.0

    def _play(self, pcm: Pcm, now_ns: int | None) -> None:
        excess_s = self._follow_clocks(now_ns)
        self._frames_since_jump += 1
        cut = self._samples_to_cut(pcm, excess_s)
        if cut:
            before, pcm = len(pcm), _cut(pcm, cut)
            self.counters.cut_agent += before - len(pcm)
            self._jump()
        elif excess_s < self._least_excess_s(pcm):
            missing = round(-excess_s * SAMPLE_RATE_HZ)
            pcm = np.concatenate([np.zeros(missing, dtype=np.float32), pcm])
            self.counters.inserted += missing
            self._jump()
        self._is_aligned = True
        if self._canceller is not None:
            self._played = np.concatenate([self._played, pcm])[-_HISTORY_SAMPLES:]
        if self._from_model is not None:
            pcm = self._from_model.process(pcm)
        accepted = self._port.write_output(pcm)
        self.counters.refused_output += round((len(pcm) - accepted) * SAMPLE_RATE_HZ / self._out_hz)

    def _follow_clocks(self, now_ns: int | None) -> float:
        """Return the excess lag, and bend the agent's speed where there are two clocks."""
        now_ns = _at(now_ns)
        now_s = now_ns / 1e9
        in_count, in_ns, out_count, out_ns = self._port.clocks()
        # What the rings lost or lacked has passed the device all the same.
        self.meters[0].add(in_ns / 1e9, in_count + self._port.lost_input)
        self.meters[1].add(out_ns / 1e9, out_count + self._port.concealed_output)
        waiting_s, queued_s = self._lag_parts_s(now_ns)
        if self._playout is not None:
            self._playout_s = self._playout.add(waiting_s)
        # The frame at hand is in neither ring.
        lag_s = waiting_s + queued_s + FRAME_MS / 1e3
        elapsed_s = now_s - self._last_update_s if self._last_update_s is not None else 0.0
        self._last_update_s = now_s
        if self._controller is not None and self._from_model is not None and self._is_aligned:
            self._controller.target_s = self.target_lag_s
            self._from_model.set_speed(self._controller.update(lag_s, elapsed_s))
        return lag_s - self.target_lag_s

    def _samples_to_cut(self, pcm: Pcm, excess_s: float) -> int:
        # Where the lag is to be short, an agent that never pauses is cut, too, but seldom.
        is_due = self._is_fine and self._frames_since_jump > WINDOW_FRAMES
        if excess_s < (self._tolerance_s if is_due or _is_quiet(pcm) else self._settings.max_lag_ms / 1e3):
            return 0
        return min(round(excess_s * SAMPLE_RATE_HZ), len(pcm) - _CROSSFADE_SAMPLES)

    def _least_excess_s(self, pcm: Pcm) -> float:
        if not self._is_aligned:
            return 0.0
        return -(self._tolerance_s if _is_quiet(pcm) else _TOLERANCE_S)

    @property
    def _is_fine(self) -> bool:
        return self._playout is not None and self._controller is None

    @property
    def _tolerance_s(self) -> float:
        return _FINE_TOLERANCE_S if self._is_fine else _TOLERANCE_S

    def _jump(self) -> None:
        self._frames_since_jump = 0
        if self._controller is not None:
            self._controller.jump()


def _is_quiet(pcm: Pcm) -> bool:
    return float(np.sqrt(np.mean(pcm * pcm))) < _QUIET_RMS


def _at(now_ns: int | None) -> int:
    return monotonic_ns() if now_ns is None else now_ns


def _since(stamp_ns: int, now_ns: int) -> float:
    # Before the first callback there is nothing to carry on.
    return min(max(0, now_ns - stamp_ns) / 1e9, _MAX_EXTRAPOLATION_S) if stamp_ns else 0.0


def _cut(pcm: Pcm, count: int) -> Pcm:
    """Leave out about `count` samples, fading from what would have come into what comes instead where both match."""
    counts = np.arange(count, max(count // 2, count - _SEARCH_SAMPLES), -1)
    windows = np.lib.stride_tricks.sliding_window_view(pcm, _CROSSFADE_SAMPLES)[counts]
    likeness = windows @ pcm[:_CROSSFADE_SAMPLES] / (np.linalg.norm(windows, axis=1) + 1e-6)
    count = int(counts[np.argmax(likeness >= 0.98 * likeness.max())])
    weight = np.linspace(0, 1, _CROSSFADE_SAMPLES, dtype=np.float32)
    cut = pcm[count:].copy()
    cut[:_CROSSFADE_SAMPLES] = (1 - weight) * pcm[:_CROSSFADE_SAMPLES] + weight * cut[:_CROSSFADE_SAMPLES]
    return cut
