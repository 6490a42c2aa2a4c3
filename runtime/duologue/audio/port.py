"""The memory that a sound driver's process and the conversation share, and what is counted in it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue._native import AudioPort, audio_port_bytes
from duologue.metrics.latency import LatencySummary

CAPACITY_SAMPLES = 1 << 17
"""Room of each ring: 2.7 s at 48 kHz."""
XRUN_KINDS = ("input_underflow", "input_overflow", "output_underflow", "output_overflow")
"""Losses that a driver may report, in the order of PortAudio's flags."""
_BINS_PER_OCTAVE = 8


class _Memory(SharedMemory):
    """Memory that somebody may still look into when it goes; it is unmapped with the process then, without a word."""

    def __del__(self) -> None:
        with suppress(BufferError):
            super().__del__()


class SharedPort:
    """An `AudioPort` in shared memory, created by the conversation and attached by the driver's process.

    Attributes:
        port: The port itself.
        name: What the other process attaches by.
    """

    def __init__(self, name: str | None = None, *, capacity: int = CAPACITY_SAMPLES) -> None:
        """Create the memory, or attach to `name`.

        Raises:
            StreamError: If the memory of that name holds no port.
        """
        self._is_owner = name is None
        self._memory = _Memory(name=name, create=self._is_owner, size=audio_port_bytes(capacity))
        self.name = self._memory.name
        # Whole pages, so the port's alignment holds; the counters start at zero.
        self.port = AudioPort(self._memory.buf, capacity=capacity if self._is_owner else 0)

    def close(self) -> None:
        """Give the memory back; the port must not be used after."""
        if self._is_owner:
            self._memory.unlink()
        del self.port
        # Somebody who still holds the port keeps the memory mapped until the process ends.
        with suppress(BufferError):
            self._memory.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackCounters:
    """What one driver thread did.

    Attributes:
        calls: Callbacks.
        late: Callbacks more than two periods after the one before, and those that took longer than a period.
        flagged: Callbacks in which the driver itself reported a loss (drivers under-report).
        xruns: Callbacks by the loss reported: "input_underflow", "input_overflow", "output_underflow",
            "output_overflow". JACK reports input overflow and output underflow together.
        gap: Time between callbacks.
        body: Time inside the callback.
    """

    calls: int
    late: int
    flagged: int
    xruns: dict[str, int]
    gap: LatencySummary
    body: LatencySummary


@dataclass(frozen=True, slots=True, kw_only=True)
class PortCounters:
    """Everything lost or bent between the driver and the conversation, since the conversation began.

    Attributes:
        callbacks: One entry per driver thread: one for a duplex stream, two when the directions run apart.
        lost_input_samples: User's samples that found the ring full.
        concealed_output_samples: Samples the agent did not deliver in time, faded to silence.
        concealed_events: Callbacks in which that happened.
        silenced_samples: Agent's samples silenced by `interrupt`.
        input_latency_ms: The driver's own claim; a hint only, 0 when it claims nothing plausible.
        output_latency_ms: Likewise.
    """

    callbacks: tuple[CallbackCounters, ...]
    lost_input_samples: int
    concealed_output_samples: int
    concealed_events: int
    silenced_samples: int
    input_latency_ms: float
    output_latency_ms: float


def read_counters(port: AudioPort) -> PortCounters:
    """Take a copy of a port's counters; cheap enough for once a second."""
    raw = port.counters()
    return PortCounters(
        callbacks=tuple(_callback_counters(one) for one in raw["callbacks"] if one["calls"]),
        lost_input_samples=raw["lost_input"],
        concealed_output_samples=raw["concealed_output"],
        concealed_events=raw["concealed_output_events"],
        silenced_samples=raw["silenced_output"],
        input_latency_ms=_plausible_ms(raw["input_latency_s"]),
        output_latency_ms=_plausible_ms(raw["output_latency_s"]),
    )


def stream_delay_ms(port: AudioPort) -> float:
    """Return how long audio was under way in the device at the last callback, by the driver's stream times, both ways.

    A hint, and 0 where the driver says nothing plausible.
    """
    return sum(map(_plausible_ms, port.latencies_s))


def _callback_counters(raw: dict[str, Any]) -> CallbackCounters:
    return CallbackCounters(
        calls=raw["calls"],
        late=raw["late"],
        flagged=raw["flagged"],
        xruns={kind: raw[kind] for kind in XRUN_KINDS},
        gap=summarise(raw["gap"]["counts"], raw["gap"]["max_ns"]),
        body=summarise(raw["body"]["counts"], raw["body"]["max_ns"]),
    )


def summarise(counts: npt.NDArray[np.uint64], max_ns: int) -> LatencySummary:
    """Return the quantiles of a native histogram, exact to one bin (9 %).

    Args:
        counts: Bin counts, eight bins to an octave from 1 ns.
        max_ns: Largest duration.
    """
    total = int(counts.sum())
    octave, step = np.divmod(np.arange(len(counts)), _BINS_PER_OCTAVE)
    upper_ms = 1e-6 * 2.0**octave * (1 + (step + 1) / _BINS_PER_OCTAVE)
    shares = np.cumsum(counts) / max(total, 1)

    def quantile_ms(share: float) -> float:
        return float(min(upper_ms[int(np.searchsorted(shares, share))], max_ns / 1e6)) if total else 0.0

    return LatencySummary(
        count=total,
        mean_ms=float((counts * upper_ms).sum() / max(total, 1)),
        p50_ms=quantile_ms(0.50),
        p95_ms=quantile_ms(0.95),
        p99_ms=quantile_ms(0.99),
        max_ms=max_ns / 1e6,
        cdf=tuple((float(upper_ms[i]), float(shares[i])) for i in np.flatnonzero(counts)),
    )


def _plausible_ms(latency_s: float) -> float:
    return 1e3 * latency_s if 0 <= latency_s <= 1 else 0.0
