"""Intervals and tests for figures over conversations, resampled by conversation: events inside one are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with its 95 % interval; all None where there is nothing to compute it from."""

    value: float | None
    low: float | None
    high: float | None


def ratio(parts: Sequence[tuple[float, float]]) -> float | None:
    """Return the sum of the first numbers over the sum of the second, or None if that is 0."""
    below = sum(part[1] for part in parts)
    return sum(part[0] for part in parts) / below if below else None


def pooled_median(parts: Sequence[Sequence[float]]) -> float | None:
    """Return the median of all values, or None without any."""
    values = [value for part in parts for value in part]
    return float(np.median(values)) if values else None


def bootstrap(
    parts: Sequence[_T], figure: Callable[[Sequence[_T]], float | None], *, draws: int = 2000, seed: int = 0
) -> Interval:
    """Return a figure with its 95 % percentile interval over resampled conversations.

    Args:
        parts: One item per conversation.
        figure: Computes the figure; None where it is undefined (such resamples are left out).
        draws: Resamples.
        seed: Same seed, same interval.

    Source: Efron 1979; cluster bootstrap, percentile method.
    """
    value = figure(parts) if parts else None
    if value is None:
        return Interval(value=None, low=None, high=None)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(parts), size=(draws, len(parts)))
    found = [figure([parts[index] for index in row]) for row in picks]
    kept = [item for item in found if item is not None]
    low, high = np.percentile(kept, [2.5, 97.5]) if kept else (value, value)
    return Interval(value=value, low=float(low), high=float(high))


def matching_test(scores: npt.ArrayLike, *, draws: int = 20_000, seed: int = 0) -> float | None:
    """Return the one-sided p value that partners score as high as they do together by chance.

    Args:
        scores: How well each of n things goes with the partner of each other one, shape [n, n], own partners on the
            diagonal.
        draws: Random rearrangements of the partners; with the true one counted, p is never 0.
        seed: Same seed, same p.

    Returns:
        The p value, or None for fewer than two things.

    Source: Pitman 1937, permutation test of a pairing, by Monte Carlo.
    """
    values = np.asarray(scores, dtype=np.float64)
    count = len(values)
    if count < 2:
        return None
    rng, rows = np.random.default_rng(seed), np.arange(count)
    # The tolerance lets the true pairing, drawn again, count as reached.
    reached = np.trace(values) - 1e-9
    hits = sum(int(values[rows, rng.permutation(count)].sum() >= reached) for _ in range(draws))
    return (1 + hits) / (1 + draws)
