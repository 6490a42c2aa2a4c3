"""The latency histogram against exact quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from duologue.metrics.latency import LatencyHistogram


def test_quantiles_are_exact_to_one_bin() -> None:
    durations = np.random.default_rng(0).lognormal(2, 0.7, 5_000)
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(float(duration))
    summary = histogram.summary()
    for share, value in ((0.5, summary.p50_ms), (0.95, summary.p95_ms), (0.99, summary.p99_ms)):
        exact = np.quantile(durations, share, method="inverted_cdf")
        assert exact <= value <= exact * 1.024
    assert summary.max_ms == durations.max()
    assert summary.count == 5_000
    assert summary.mean_ms == pytest.approx(durations.mean())
    assert list(summary.cdf) == sorted(summary.cdf)
    assert summary.cdf[-1][1] == 1


@pytest.mark.parametrize("duration_ms", [0.0, 1e-9, 1e9])
def test_extremes_stay_inside(duration_ms: float) -> None:
    histogram = LatencyHistogram()
    histogram.add(duration_ms)
    summary = histogram.summary()
    assert 0 <= summary.p50_ms <= summary.max_ms == duration_ms


def test_empty_histogram() -> None:
    assert LatencyHistogram().summary().p99_ms == 0
