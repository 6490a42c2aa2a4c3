"""Score policies on cases and compare each with the human one: paired differences, bootstrapped over conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from duologue_align.hacking.cases import Case
from duologue_align.hacking.words import Script
from duologue_align.policies import Policy
from duologue_align.rewards.preset import RewardPreset
from duologue_align.segments.segment import AXES

Floats = npt.NDArray[np.float64]

DRAWS = 2000
"""Bootstrap draws behind an interval."""
MEAN = "mean"
"""Name of the mean over the axes, each axis counting alike."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether a difference is significantly "above" or "below" 0, or neither: "level"."""
        return "above" if self.low > 0 else "below" if self.high < 0 else "level"


@dataclass(slots=True)
class Scores:
    """What the policies earned under one preset.

    Attributes:
        preset: The preset.
        conversations: Conversation of each case, by axis, shape [cases].
        totals: Total by axis and policy, shape [cases].
        components: Components by axis and policy, shape [cases, components].
    """

    preset: RewardPreset
    conversations: dict[str, list[int]] = field(default_factory=dict)
    totals: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    components: dict[str, dict[str, list[tuple[float, ...]]]] = field(default_factory=dict)


def score_policies(
    preset: RewardPreset, cases: Sequence[Case], policies: Mapping[str, Policy], script: Script | None = None
) -> Scores:
    """Let every policy reply to every case of the preset's axes; the same cases give the same scores.

    Args:
        preset: What is paid.
        cases: The situations.
        policies: Who replies, by name.
        script: What they say; None leaves them without words, so that only timing is judged.
    """
    scores = Scores(preset)
    for index, case in sorted(enumerate(cases), key=lambda item: AXES.index(item[1].situation.axis)):
        axis = case.situation.axis
        if axis not in preset.axes:
            continue
        replies = [policy(case.situation, np.random.default_rng((7, index))) for policy in policies.values()]
        if script is not None:
            replies = [script.speak(name, case.situation, r, index) for name, r in zip(policies, replies, strict=True)]
        scores.conversations.setdefault(axis, []).append(case.conversation)
        for name, earned in zip(policies, preset.score_group(case.situation, replies), strict=True):
            total = preset.total(case.situation, earned)
            scores.totals.setdefault(axis, {}).setdefault(name, []).append(total)
            scores.components.setdefault(axis, {}).setdefault(name, []).append(earned)
    return scores


def compare(scores: Scores, rival: str, policy: str, *, seed: int = 0) -> dict[str, Interval]:
    """Return the policy's total minus the rival's by axis, and under `MEAN` the mean over the axes.

    Conversations are drawn with replacement, so that cases of one conversation go together.

    Args:
        scores: What both earned.
        rival: Whom to compare with.
        policy: Who is compared.
        seed: Of the bootstrap.
    """
    numbers = sorted({number for axis in scores.conversations.values() for number in axis})
    drawn = np.random.default_rng(seed).multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=DRAWS)
    places = {number: place for place, number in enumerate(numbers)}
    means: dict[str, float] = {}
    draws: dict[str, Floats] = {}
    for axis, earned in scores.totals.items():
        difference = np.array(earned[policy]) - np.array(earned[rival])
        weights = drawn[:, [places[number] for number in scores.conversations[axis]]].astype(np.float64)
        means[axis] = float(difference.mean())
        counts = weights.sum(axis=1)
        # A draw that misses the axis altogether, as happens with a handful of cases, says nothing.
        draws[axis] = np.where(counts > 0, weights @ difference / np.maximum(counts, 1), means[axis])
    means[MEAN] = float(np.mean(list(means.values())))
    draws[MEAN] = np.mean(list(draws.values()), axis=0)
    return {axis: _interval(means[axis], draws[axis]) for axis in means}


def describe(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the mean of independent values and its interval, nan left out; nan if there are none."""
    kept = np.array([value for value in values if not np.isnan(value)])
    if not len(kept):
        return Interval(np.nan, np.nan, np.nan)
    drawn = np.random.default_rng(seed).multinomial(len(kept), np.full(len(kept), 1 / len(kept)), size=DRAWS)
    return _interval(float(kept.mean()), drawn @ kept / len(kept))


def _interval(mean: float, draws: Floats) -> Interval:
    # Rounding keeps an exact tie from looking significant by a rounding error.
    low, high = (round(float(edge), 9) for edge in np.quantile(draws, (0.025, 0.975)))
    return Interval(mean, low, high)
