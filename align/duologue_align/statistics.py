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


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and what it was in each resample; from one `Resampling`, two of them may be subtracted: they are paired.

    Attributes:
        value: The figure, or None where there is nothing to compute it from.
        draws: Its values in the resamples, nan where undefined, shape [draws].
    """

    value: float | None
    draws: npt.NDArray[np.float64]

    @property
    def interval(self) -> Interval:
        """The figure with its 95 % percentile interval."""
        if self.value is None:
            return Interval(value=None, low=None, high=None)
        kept = self.draws[~np.isnan(self.draws)]
        # Rounding keeps an exact tie from looking significant by a rounding error.
        low, high = np.percentile(kept, [2.5, 97.5]).round(9) if len(kept) else (self.value, self.value)
        return Interval(value=self.value, low=float(low), high=float(high))

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference, paired by resample."""
        if self.value is None or other.value is None:
            return Estimate(None, self.draws)
        return Estimate(self.value - other.value, self.draws - other.draws)


class Resampling:
    """One set of resamples of the conversations for all figures, so that differences between agents are paired.

    Source: Efron 1979; cluster bootstrap, percentile method.
    """

    def __init__(self, clusters: int, *, voices: int = 0, draws: int = 2000, seed: int = 0) -> None:
        """Draw how often each conversation is in each resample.

        Args:
            clusters: Conversations.
            voices: Users that take turns in them, drawn with all their conversations; with 0 or 1, each conversation is
                drawn for itself.
            draws: Resamples.
            seed: Same seed, same intervals.
        """
        rng = np.random.default_rng(seed)
        drawn = min(voices, clusters) if voices > 1 else clusters
        shares = np.full(max(drawn, 1), 1 / max(drawn, 1))
        counts: npt.NDArray[np.float64] = rng.multinomial(drawn, shares, size=draws).astype(np.float64)
        self._counts = counts[:, np.arange(clusters) % max(drawn, 1)]

    @classmethod
    def crossed(cls, runs: int, clusters: Sequence[int], *, draws: int = 2000, seed: int = 0) -> Resampling:
        """Draw runs and users together, for conversations that every run had alike.

        Args:
            runs: Runs; the figures take their conversations one run after the other.
            clusters: Number of the user, or of whatever else is drawn as a whole, in each conversation of a run.
            draws: Resamples.
            seed: Same seed, same intervals.

        Source: Owen 2007, the pigeonhole bootstrap.
        """
        owners = np.asarray(clusters, dtype=np.int64)
        made = cls(int(owners.max(initial=-1)) + 1, draws=draws, seed=seed)
        # A run alone is drawn every time.
        times = cls(runs, draws=draws, seed=seed + 1)._counts
        made._counts = (times[:, :, None] * made._counts[:, None, owners]).reshape(draws, -1)
        return made

    def ratio(self, parts: Sequence[tuple[float, float]]) -> Estimate:
        """Estimate the sum of the first numbers over the sum of the second, one pair per conversation."""
        sums = self._counts @ np.asarray(parts, dtype=np.float64).reshape(-1, 2)
        draws = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] != 0)
        return Estimate(ratio(parts), draws)

    def median(self, parts: Sequence[Sequence[float]]) -> Estimate:
        """Estimate the median of all values, which come by conversation."""
        values = np.array([value for part in parts for value in part], dtype=np.float64)
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        order = np.argsort(values, kind="stable")
        reached = self._counts[:, owners[order]].cumsum(axis=1)
        draws = np.full(len(self._counts), np.nan)
        if len(values):
            total = reached[:, -1]
            some = total > 0
            places = [np.floor((total[some] - 1) / 2), np.floor(total[some] / 2)]
            middle = [values[order][(reached[some] > place[:, None]).argmax(axis=1)] for place in places]
            draws[some] = (middle[0] + middle[1]) / 2
        return Estimate(pooled_median(parts), draws)


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
