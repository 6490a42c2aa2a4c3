"""From what rollouts did to rewards and advantages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from duologue.errors import ConfigError
from duologue.metrics.timeline import TICK_S
from duologue_align.evaluation.ears import Ears
from duologue_align.judge.judge import Answer
from duologue_align.judge.panel import JudgePanel
from duologue_align.rewards import Reply, RewardPreset, Situation
from duologue_align.rl.listener import Heard, said
from duologue_align.rl.objective import decoupled_advantages, standardise
from duologue_align.rl.settings import RewardSettings
from duologue_align.segments.segment import Axis, Segment

JUDGED = "response_quality"
"""The component that a judge gives."""
_ANSWER_LEAD_S = 1.0
"""An answer may begin this long before the end of what it answers, as the event rules say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A rollout's rewards.

    Attributes:
        axis: Of its segment.
        components: By name; nan where one says nothing.
        total: The preset's weighted mean.
        rules: The same without the judge.
    """

    axis: Axis
    components: dict[str, float]
    total: float
    rules: float


class Grader:
    """Scores groups of rollouts."""

    def __init__(
        self,
        preset: RewardPreset,
        settings: RewardSettings,
        judge: JudgePanel | None = None,
        ears: Ears | None = None,
    ) -> None:
        self._preset, self._settings, self._judge, self._ears = preset, settings, judge, ears
        self._users: dict[str, str] = {}
        if settings.judge and judge is None:
            raise ConfigError("reward.judge names a judge but none was loaded")

    @property
    def axes(self) -> dict[Axis, float]:
        """How often each axis is wanted; those that the preset does not reward or that have no share are missing.

        Raises:
            ConfigError: None is left.
        """
        shares = {axis: float(self._settings.axis_shares.get(axis, 1.0)) for axis in self._preset.axes}
        kept = {axis: share for axis, share in shares.items() if share > 0}
        if not kept:
            raise ConfigError("reward.axis_shares leaves no axis that the preset rewards")
        return kept

    def grade(self, segment: Segment, heard: Sequence[Heard]) -> list[Graded]:
        """Return the rewards of the rollouts of one segment."""
        situation = Situation.from_segment(segment)
        marks = self._marks(segment, situation, heard)
        replies = [
            Reply(activity=item.activity, text=item.text, judge_score=mark)
            for item, mark in zip(heard, marks, strict=True)
        ]
        weights = self._preset.axes[segment.axis].weights
        return [
            Graded(
                axis=segment.axis,
                components=(named := dict(zip(weights, components, strict=True))),
                total=self._preset.total(situation, components),
                rules=_without_judge(named, weights),
            )
            for components in self._preset.score_group(situation, replies)
        ]

    def advantages(self, group: Sequence[Graded]) -> npt.NDArray[np.float64]:
        """Return the advantages of a group, shape [G], the axis' weight included."""
        settings, axis = self._settings, group[0].axis
        weights = self._preset.axes[axis].weights
        floor, factor = settings.std_floor, float(settings.axis_weights.get(axis, 1.0))
        if settings.normalise == "total":
            found = standardise(_column([item.total for item in group]), std_floor=floor)
        elif settings.normalise == "components":
            scores = torch.stack([_column([item.components[name] for item in group]) for name in weights])
            found = decoupled_advantages(scores, _column(list(weights.values())), std_floor=floor)
        else:
            rules = _column([item.rules for item in group])
            judged = _column([item.components.get(JUDGED, math.nan) for item in group])
            scores, both = torch.stack([rules, judged]), _column([1.0, settings.judge_weight])
            found = decoupled_advantages(scores, both, std_floor=floor)
        return (factor * found).numpy()

    def _marks(self, segment: Segment, situation: Situation, heard: Sequence[Heard]) -> list[float | None]:
        if self._judge is None or JUDGED not in self._preset.axes[segment.axis].weights:
            return [None] * len(heard)
        user = user_words(segment, situation) or self._hear_user(segment, situation)
        if not user:
            return [None] * len(heard)
        since_s = situation.focus[1] * TICK_S - _ANSWER_LEAD_S
        return list(self._judge.score([Answer(user, said(item.words, since_s)) for item in heard]))

    def _hear_user(self, segment: Segment, situation: Situation) -> str:
        if self._ears is not None and segment.id not in self._users:
            start_s, end_s = (tick * TICK_S for tick in situation.focus)
            self._users[segment.id] = self._ears.words(segment.pcm("user"), start_s, end_s)
        return self._users.get(segment.id, "")


def user_words(segment: Segment, situation: Situation) -> str:
    """Return what the user says in the utterance that the segment is about; "" where nobody wrote it down."""
    start_s, end_s = (segment.start_s + tick * TICK_S for tick in situation.focus)
    lines = [line for line in segment.lines if line.side == "user"]
    inside = [line.text for line in lines if line.start_s < end_s and line.end_s > start_s]
    return " ".join(" ".join(inside).split())


def _without_judge(components: dict[str, float], weights: dict[str, float]) -> float:
    known = [
        (weight, components[name])
        for name, weight in weights.items()
        if name != JUDGED and not math.isnan(components[name])
    ]
    whole = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / whole if whole else math.nan


def _column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.float64)
