"""Wall time of each stage of a frame, kept as a histogram so that memory does not grow with the conversation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from duologue.metrics.types import StageLatency

_BINS_PER_DECADE = 100
_MIN_MS, _DECADES = 1e-3, 8
_BINS = _BINS_PER_DECADE * _DECADES


@dataclass(slots=True)
class LatencyHistogram:
    """Counts of durations in logarithmic bins from 1 us to 100 s."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, dtype=np.int64))
    max_ms: float = 0.0

    def add(self, duration_ms: float) -> None:
        """Count one duration."""
        position = int(_BINS_PER_DECADE * np.log10(max(duration_ms, _MIN_MS) / _MIN_MS))
        self.counts[min(position, _BINS - 1)] += 1
        self.max_ms = max(self.max_ms, duration_ms)

    def quantile_ms(self, share: float) -> float:
        """Return the upper edge of the bin that holds the quantile, never above the largest value seen."""
        cumulative = np.cumsum(self.counts)
        if not cumulative[-1]:
            return 0.0
        position = int(np.searchsorted(cumulative, max(share * cumulative[-1], 1)))
        return float(min(_MIN_MS * 10 ** ((position + 1) / _BINS_PER_DECADE), self.max_ms))

    def summary(self, stage: str) -> StageLatency:
        """Return the quantiles under the name of the stage, each exact to one bin (2.3 %), the largest exact."""
        grid = tuple(self.quantile_ms(share) for share in np.linspace(0, 1, 101))
        return StageLatency(
            stage=stage,
            count=int(self.counts.sum()),
            p50_ms=grid[50],
            p95_ms=grid[95],
            p99_ms=grid[99],
            max_ms=self.max_ms,
            grid_ms=grid,
        )
