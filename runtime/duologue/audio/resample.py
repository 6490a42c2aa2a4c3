"""Streaming sample-rate conversion whose state can be copied and whose output does not depend on the chunking."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from duologue.errors import ConfigError, StreamError
from duologue.types import Pcm

HALF_WIDTH = 16
"""Filter half width, in samples of the lower of the two rates: 2 ms at 8 kHz, 0.67 ms at 24 kHz."""
_KAISER_BETA = 8.0
_MIN_RATE_HZ, _MAX_RATE_HZ = 4_000, 384_000
_MAX_PHASES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class ResamplerState:
    """Everything a resampler remembers: its rates, the last input samples and the position of the next output."""

    rates_hz: tuple[int, int]
    history: Pcm
    next_position: int


def check_rate(sample_rate_hz: int) -> int:
    """Return the rate if it is one we convert.

    Raises:
        ConfigError: If the rate is not a whole number of hertz between 4 kHz and 384 kHz.
    """
    is_whole = isinstance(sample_rate_hz, int | np.integer) and not isinstance(sample_rate_hz, bool)
    if not is_whole or not _MIN_RATE_HZ <= sample_rate_hz <= _MAX_RATE_HZ:
        raise ConfigError(
            f"sample rate {sample_rate_hz!r} is out of range; use a whole number, {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz"
        )
    return int(sample_rate_hz)


def _design_phases(up: int, down: int) -> npt.NDArray[np.float32]:
    """Return the polyphase filter, shape [up, taps]: a Kaiser-windowed sinc cut at the lower Nyquist frequency.

    Source: Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.5 (Kaiser window) and 4.7 (polyphase).
    """
    stretch = max(1.0, down / up)
    half_taps = int(np.ceil(HALF_WIDTH * stretch))
    # Tap j of phase p weighs the input sample that lies `offset` input periods before the output instant.
    offset = half_taps - 1 - np.arange(2 * half_taps)[None, :] + np.arange(up)[:, None] / up
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (offset / half_taps) ** 2, 0, None))) / np.i0(_KAISER_BETA)
    taps = np.sinc(offset / stretch) * window
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), dtype=np.float32)


class Resampler:
    """Convert one channel from one rate to another, chunk by chunk.

    Output sample n is the input at time n / to_hz, so the two streams stay aligned; the newest `delay_ms` of input
    wait until the filter has seen enough. The concatenated output is bit for bit the same for every chunking.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        """Build the filter.

        Args:
            from_hz: Input rate.
            to_hz: Output rate.

        Raises:
            ConfigError: If a rate is out of range, or the two have so small a common divisor that the filter explodes.
        """
        self.from_hz, self.to_hz = check_rate(from_hz), check_rate(to_hz)
        divisor = gcd(self.from_hz, self.to_hz)
        self._up, self._down = self.to_hz // divisor, self.from_hz // divisor
        if self._up > _MAX_PHASES:
            raise ConfigError(f"{from_hz} Hz to {to_hz} Hz needs {self._up} filter phases; use a usual sample rate")
        self._phases = _design_phases(self._up, self._down)
        self._half_taps = self._phases.shape[1] // 2
        self.reset()

    @property
    def delay_ms(self) -> float:
        """Look-ahead of the filter, in ms; 0 when the rates are equal."""
        return 0.0 if self._up == self._down else 1000.0 * self._half_taps / self.from_hz

    def reset(self) -> None:
        """Start a new stream."""
        self._history = np.zeros(self._half_taps - 1, dtype=np.float32)
        self._next_position = 0

    def process(self, pcm: Pcm) -> Pcm:
        """Return the output samples that this input completes, shape [m]."""
        if self._up == self._down:
            return pcm
        buffer = np.concatenate([self._history, pcm])
        taps = 2 * self._half_taps
        # Positions count 1/up input samples; the window of position p starts at buffer index p // up.
        last_start = len(buffer) - taps
        count = max(0, (last_start * self._up + self._up - 1 - self._next_position) // self._down + 1)
        if last_start < 0:
            count = 0
        positions = self._next_position + self._down * np.arange(count)
        starts = positions // self._up
        output = np.empty(0, dtype=np.float32)
        if count:
            windows = np.lib.stride_tricks.sliding_window_view(buffer, taps)[starts]
            output = np.einsum("ij,ij->i", windows, self._phases[positions % self._up])
        next_position = self._next_position + self._down * count
        consumed = min(next_position // self._up, len(buffer))
        self._history = buffer[consumed:].copy()
        self._next_position = next_position - consumed * self._up
        return output

    def flush(self) -> Pcm:
        """Return the samples still inside the filter, as if silence followed."""
        silence = 0 if self._up == self._down else self._half_taps
        return self.process(np.zeros(silence, dtype=np.float32))

    def snapshot(self) -> ResamplerState:
        """Return a copy of the state."""
        return ResamplerState(
            rates_hz=(self.from_hz, self.to_hz), history=self._history.copy(), next_position=self._next_position
        )

    def restore(self, state: ResamplerState) -> None:
        """Go back to a snapshot.

        Raises:
            StreamError: If the snapshot is of a resampler for other rates.
        """
        if state.rates_hz != (self.from_hz, self.to_hz):
            raise StreamError(
                f"this snapshot converts {state.rates_hz[0]} Hz to {state.rates_hz[1]} Hz, not {self.from_hz} Hz to "
                f"{self.to_hz} Hz; open a session with the same rate"
            )
        self._history, self._next_position = state.history.copy(), state.next_position


def resample(pcm: Pcm, from_hz: int, to_hz: int) -> Pcm:
    """Convert a whole recording, shape [n] to [ceil(n * to_hz / from_hz)]."""
    resampler = Resampler(from_hz, to_hz)
    return np.concatenate([resampler.process(pcm), resampler.flush()])[: -(-len(pcm) * to_hz // from_hz)]
