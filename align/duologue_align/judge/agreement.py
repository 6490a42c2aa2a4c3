"""How well a panel's scores agree with labels: the area under the ROC curve of good replies against each other kind."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.errors import ConfigError
from duologue_align.judge.judge import Traits
from duologue_align.judge.labelled import LABELS, LabelledAnswer
from duologue_align.judge.panel import JudgePanel
from duologue_align.statistics import Interval, bootstrap

CONTRASTS = (*LABELS[1:], "any")
"""What good replies are told from; `any` is all of these, each kind counted alike."""

_Group = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well one panel agrees with labels.

    Attributes:
        name: Of the panel.
        judges: What its judges can do.
        by_contrast: Area under the curve, in [0, 1], 0.5 is chance, with a 95 % interval.
        by_contrast_unguarded: The same without guards.
        paired: Share of user utterances whose good reply scores above the bad one, ties counted half.
        guarded_good: Share of good replies that a guard finds: its mistakes.
        cpu_s: CPU seconds of this process per score, guards not counted.
        wall_s: Wall seconds per score.
        answers: Number of answers.
    """

    name: str
    judges: tuple[Traits, ...]
    by_contrast: Mapping[str, Interval]
    by_contrast_unguarded: Mapping[str, Interval]
    paired: Mapping[str, float | None]
    guarded_good: float
    cpu_s: float
    wall_s: float
    answers: int

    @property
    def figure(self) -> float:
        """The area against all kinds, 0 if there is none."""
        return self.by_contrast["any"].value or 0.0

    @property
    def is_licensed(self) -> bool:
        """Whether the licence of every model is known."""
        return all(traits.licence for traits in self.judges)

    @property
    def is_local(self) -> bool:
        """Whether no server is asked."""
        return all(traits.cost == "compute" for traits in self.judges)

    def describe(self) -> list[str]:
        """Return a phrase on each judge: what it gives, by which model, and what else it can give."""
        return [
            f"{traits.gives} by {traits.name} ({traits.licence or 'licence unknown'}; "
            f"gives {' or '.join(sorted(traits.can))}; {traits.batch} at a time)"
            for traits in self.judges
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        for judge in values["judges"]:
            judge["can"] = sorted(judge["can"])
        return values


def area_under_curve(good: npt.ArrayLike, bad: npt.ArrayLike) -> float | None:
    """Return the probability that a good score is above a bad one, ties counted half; None if either has none.

    Source: Mann and Whitney 1947; Hanley and McNeil 1982.
    """
    above, below = np.asarray(good, dtype=np.float64)[:, None], np.asarray(bad, dtype=np.float64)[None, :]
    return float((above > below).mean() + 0.5 * (above == below).mean()) if above.size and below.size else None


def measure(name: str, panel: JudgePanel, items: Sequence[LabelledAnswer], *, draws: int = 1000) -> Agreement:
    """Let a panel score labelled answers and compare.

    Args:
        name: What to call the panel.
        panel: The panel.
        items: Labelled answers; what an answer gets no score for counts as the worst.
        draws: Resamples of the intervals, by user utterance.

    Raises:
        ConfigError: There is no good answer or no other one.
    """
    if len({item.label == "good" for item in items}) != 2:
        raise ConfigError("agreement needs labelled answers of both kinds, good and others")
    answers = [item.answer for item in items]
    started = time.process_time(), time.perf_counter()
    open_scores = [panel.combine(numbers) for numbers in panel.numbers(answers)]
    spent = time.process_time() - started[0], time.perf_counter() - started[1]
    found = [panel.guards.find(answer) is not None for answer in answers]
    scores = [0.0 if is_found else score for score, is_found in zip(open_scores, found, strict=True)]
    good = [is_found for item, is_found in zip(items, found, strict=True) if item.label == "good"]
    guarded, unguarded = _groups(items, scores), _groups(items, open_scores)
    return Agreement(
        name=name,
        judges=tuple(panel.traits),
        by_contrast={contrast: _interval(guarded, contrast, draws) for contrast in CONTRASTS},
        by_contrast_unguarded={contrast: _interval(unguarded, contrast, draws) for contrast in CONTRASTS},
        paired={contrast: _paired(guarded, contrast) for contrast in LABELS[1:]},
        guarded_good=sum(good) / len(good),
        cpu_s=spent[0] / len(answers),
        wall_s=spent[1] / len(answers),
        answers=len(answers),
    )


def _groups(items: Sequence[LabelledAnswer], scores: Sequence[float]) -> list[_Group]:
    groups: dict[str, dict[str, list[float]]] = {}
    for item, score in zip(items, scores, strict=True):
        labels = groups.setdefault(item.answer.user, {label: [] for label in LABELS})
        labels[item.label].append(-math.inf if math.isnan(score) else score)
    return [{label: np.array(values) for label, values in labels.items()} for labels in groups.values()]


def _interval(groups: Sequence[_Group], contrast: str, draws: int) -> Interval:
    return bootstrap(groups, lambda chosen: _area(chosen, contrast), draws=draws)


def _area(groups: Sequence[_Group], contrast: str) -> float | None:
    if contrast == "any":
        areas = [area for label in LABELS[1:] if (area := _area(groups, label)) is not None]
        return sum(areas) / len(areas) if areas else None
    good, bad = (np.concatenate([group[label] for group in groups]) for label in ("good", contrast))
    return area_under_curve(good, bad)


def _paired(groups: Sequence[_Group], contrast: str) -> float | None:
    areas = [area_under_curve(group["good"], group[contrast]) for group in groups]
    known = [area for area in areas if area is not None]
    return sum(known) / len(known) if known else None
