"""Wall time of each stage of a frame, kept as a histogram so that memory does not grow with the conversation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_BINS_PER_DECADE = 100
_MIN_MS, _DECADES = 1e-3, 8
_BINS = _BINS_PER_DECADE * _DECADES


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Quantiles of one stage, in ms, exact to one histogram bin (2.3 %), and the curve behind them.

    Attributes:
        count: Frames measured.
        mean_ms: Mean.
        p50_ms: Median.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        max_ms: Largest, exact.
        cdf: Points (ms, share of frames at or below it), for a picture.
    """

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cdf: tuple[tuple[float, float], ...] = ()


@dataclass(slots=True)
class LatencyHistogram:
    """Counts of durations in logarithmic bins from 1 us to 100 s."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, dtype=np.int64))
    total_ms: float = 0.0
    max_ms: float = 0.0

    def add(self, duration_ms: float) -> None:
        """Count one duration."""
        position = int(_BINS_PER_DECADE * np.log10(max(duration_ms, _MIN_MS) / _MIN_MS))
        self.counts[min(position, _BINS - 1)] += 1
        self.total_ms += duration_ms
        self.max_ms = max(self.max_ms, duration_ms)

    def quantile_ms(self, share: float) -> float:
        """Return the upper edge of the bin that holds the quantile, never above the largest value seen."""
        cumulative = np.cumsum(self.counts)
        if not cumulative[-1]:
            return 0.0
        position = int(np.searchsorted(cumulative, max(share * cumulative[-1], 1)))
        return float(min(_MIN_MS * 10 ** ((position + 1) / _BINS_PER_DECADE), self.max_ms))

    def summary(self) -> LatencySummary:
        """Return the quantiles."""
        count = int(self.counts.sum())
        shares = np.cumsum(self.counts) / max(count, 1)
        edges_ms = _MIN_MS * 10 ** ((np.arange(_BINS) + 1) / _BINS_PER_DECADE)
        return LatencySummary(
            count=count,
            mean_ms=self.total_ms / max(count, 1),
            p50_ms=self.quantile_ms(0.50),
            p95_ms=self.quantile_ms(0.95),
            p99_ms=self.quantile_ms(0.99),
            max_ms=self.max_ms,
            cdf=tuple((float(edges_ms[i]), float(shares[i])) for i in np.flatnonzero(self.counts)),
        )
