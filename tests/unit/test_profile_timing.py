"""Summaries of durations against NumPy's quantiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.metrics.latency import LatencyHistogram
from duologue.profile.timing import BUCKETS_MS, from_histogram, summarise

SHARES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=300))
def test_quantiles_are_values_that_were_measured(durations: list[float]) -> None:
    timing = summarise(durations)
    for name, share in SHARES.items():
        assert getattr(timing, name) == np.quantile(durations, share, method="inverted_cdf")
    assert timing.max_ms == max(durations)
    assert timing.mean_ms == pytest.approx(np.mean(durations))
    assert timing.buckets == tuple(sum(value <= edge for value in durations) for edge in BUCKETS_MS)


def test_nothing_measured() -> None:
    timing = summarise([])
    assert (timing.count, timing.p999_ms, timing.max_ms, timing.mean_ms) == (0, 0.0, 0.0, 0.0)
    assert from_histogram(LatencyHistogram().summary()).count == 0


def test_a_histogram_says_the_same_to_one_bin() -> None:
    durations = np.random.default_rng(0).lognormal(2, 0.7, 5_000)
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(float(duration))
    exact, coarse = summarise(durations), from_histogram(histogram.summary())
    for name in SHARES:
        assert getattr(exact, name) <= getattr(coarse, name) <= getattr(exact, name) * 1.024
    assert (coarse.count, coarse.max_ms) == (exact.count, exact.max_ms)
    assert coarse.total_ms == pytest.approx(exact.total_ms)
    # A bin that straddles an edge counts above it, never below.
    for fine, rough in zip(exact.buckets, coarse.buckets, strict=True):
        assert 0 <= fine - rough <= 0.02 * exact.count
    assert coarse.buckets[-1] == exact.count
