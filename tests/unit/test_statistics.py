"""Intervals and the matching test, against what they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from duologue_align.statistics import bootstrap, matching_test, pooled_median, ratio


def test_a_bootstrap_interval_covers_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        parts = [(float(rng.binomial(10, 0.3)), 10.0) for _ in range(40)]
        interval = bootstrap(parts, ratio, draws=300, seed=trial)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 0.3 <= interval.high
    assert 180 <= covered <= 200


def test_conversations_are_resampled_whole() -> None:
    """Ten equal answers of one conversation are one observation: the interval spans both conversations."""
    interval = bootstrap([[0.0] * 10, [1.0] * 10], pooled_median)
    assert (interval.low, interval.high) == (0.0, 1.0)
    assert bootstrap([(3.0, 4.0)], ratio) == bootstrap([(3.0, 4.0)], ratio, seed=5)


def test_nothing_gives_nothing() -> None:
    assert bootstrap([], ratio).value is None
    assert bootstrap([(0.0, 0.0)], ratio).low is None
    assert ratio([(0.0, 0.0), (1.0, 2.0)]) == 0.5
    assert pooled_median([[], [3.0, 1.0]]) == 2.0
    assert matching_test(np.zeros((1, 1))) is None
    assert matching_test(np.zeros((0, 0))) is None


def test_the_matching_test_counts_rearrangements() -> None:
    scores = np.random.default_rng(3).standard_normal((5, 5))
    sums = [sum(scores[i, p[i]] for i in range(5)) for p in itertools.permutations(range(5))]
    exact = np.mean([value >= np.trace(scores) - 1e-9 for value in sums])
    assert matching_test(scores) == pytest.approx(exact, abs=0.01)
    assert matching_test(np.eye(8)) < 0.001
    assert matching_test(np.ones((4, 4))) == 1.0
    assert matching_test(1 - np.eye(6)) == 1.0


def test_the_matching_test_is_fair_to_loud_partners() -> None:
    """A reply that is close to everything, or a turn to which everything is close, proves nothing."""
    rng = np.random.default_rng(1)
    p_values = []
    for trial in range(60):
        scores = rng.standard_normal((7, 7)) * 0.1 + 3 * rng.standard_normal(7) + 3 * rng.standard_normal((7, 1))
        p_values.append(matching_test(scores, draws=400, seed=trial))
    assert 0.35 < np.mean(p_values) < 0.65
