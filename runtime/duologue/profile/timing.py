"""Durations in one summary: exact quantiles, and counts in fixed buckets for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from duologue.metrics.latency import LatencySummary

BUCKETS_MS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 120.0, 160.0, 320.0, 1000.0)
"""Upper edges of the exported buckets; the budget is one of them."""
_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Distribution of a duration, in ms.

    Attributes:
        count: Durations measured.
        total_ms: Their sum.
        p50_ms: Median: the smallest duration that at least half of them do not exceed.
        p95_ms: 95 % quantile, likewise.
        p99_ms: 99 % quantile; with fewer than 100 durations, the largest.
        p999_ms: 99.9 % quantile; with fewer than 1000 durations, the largest.
        max_ms: Largest.
        buckets: Durations at or below each edge of `BUCKETS_MS`.
    """

    count: int
    total_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    buckets: tuple[int, ...]

    @property
    def mean_ms(self) -> float:
        """Mean; 0 when nothing was measured."""
        return self.total_ms / max(self.count, 1)


def summarise(durations_ms: Sequence[float] | npt.NDArray[np.float64]) -> Timing:
    """Return the summary of durations.

    Args:
        durations_ms: Any number of durations in ms, zero included.
    """
    values = np.sort(np.asarray(durations_ms, dtype=np.float64))
    counts = np.searchsorted(values, BUCKETS_MS, side="right")
    return Timing(
        count=len(values),
        total_ms=float(values.sum()),
        max_ms=float(values[-1]) if len(values) else 0.0,
        buckets=tuple(int(count) for count in counts),
        **{name: _quantile(values, share) for name, share in _QUANTILES.items()},
    )


def from_histogram(summary: LatencySummary) -> Timing:
    """Return the summary of a histogram: exact to one of its bins, which count at their upper edges.

    Args:
        summary: As the audio port's counters give it.
    """
    edges = np.array([edge for edge, _ in summary.cdf])
    shares = np.array([share for _, share in summary.cdf])
    # Bins carry cumulative shares; a tolerance keeps a share like 0.95 from falling into the next bin.
    below = [shares[edges <= edge].max(initial=0.0) if edge < summary.max_ms else 1.0 for edge in BUCKETS_MS]
    quantiles = {
        name: float(min(edges[np.searchsorted(shares, share - 1e-12)], summary.max_ms)) if len(edges) else 0.0
        for name, share in _QUANTILES.items()
    }
    return Timing(
        count=summary.count,
        total_ms=summary.mean_ms * summary.count,
        max_ms=summary.max_ms,
        buckets=tuple(round(share * summary.count) for share in below),
        **quantiles,
    )


def _quantile(values: npt.NDArray[np.float64], share: float) -> float:
    return float(values[max(int(np.ceil(share * len(values) - 1e-9)) - 1, 0)]) if len(values) else 0.0
