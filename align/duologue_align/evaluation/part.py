"""One half of a report: every contestant's figures on the same conversations, and how they differ from the agent's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from duologue_align.evaluation.measures import FIGURES, Key, Reading
from duologue_align.statistics import Estimate, Interval

MEAN = "mean"
"""Name of the mean over the axes, each counting alike."""
FEWEST = 5
"""With fewer conversations nothing is called significant."""
Verdict = Literal["better", "worse", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Figures of all contestants, the evaluated agent first.

    Attributes:
        kind: "static" or "dynamic".
        figures: By contestant, axis and figure.
        differences: Contestant minus the agent, paired by conversation.
        counts: Items of each axis; empty in the dynamic part.
        conversations: How many there were.
        pictures: Conversations to be shown on the page.
    """

    kind: Literal["static", "dynamic"]
    figures: Mapping[str, Mapping[Key, Reading]]
    differences: Mapping[str, Mapping[Key, Interval]]
    counts: Mapping[str, int]
    conversations: int
    pictures: tuple[Any, ...] = field(default=())

    @classmethod
    def compare(
        cls,
        kind: Literal["static", "dynamic"],
        figures: Mapping[str, Mapping[Key, Reading]],
        *,
        counts: Mapping[str, int] | None = None,
        conversations: int,
        pictures: Iterable[Any] = (),
    ) -> Part:
        """Add the mean reward and every difference from the first contestant."""
        whole = {name: _with_mean(own) for name, own in figures.items()}
        agent = next(iter(whole.values()))
        differences = {
            name: {
                key: reading.estimate.minus(agent[key].estimate).interval
                for key, reading in own.items()
                if key in agent
            }
            for name, own in list(whole.items())[1:]
        }
        return cls(
            kind=kind,
            figures=whole,
            differences=differences,
            counts=counts or {},
            conversations=conversations,
            pictures=tuple(pictures),
        )

    def verdict(self, name: str, key: Key) -> Verdict:
        """Tell whether a contestant is significantly better or worse than the agent; "" where neither or unknown."""
        figure, difference = FIGURES.get(key[1]), self.differences.get(name, {}).get(key)
        better = "higher" if key[1].startswith("reward.") else figure.better if figure else ""
        if (
            self.conversations < FEWEST
            or difference is None
            or difference.low is None
            or difference.high is None
            or not better
        ):
            return ""
        sign = (difference.low > 0) - (difference.high < 0)
        if not sign:
            return ""
        return "better" if (sign > 0) == (better == "higher") else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Return the part as plain values."""
        return {
            "conversations": self.conversations,
            "items": dict(self.counts),
            "figures": {name: _nested(own, _reading) for name, own in self.figures.items()},
            "minus_agent": {
                name: _nested(own, lambda found: [found.value, found.low, found.high])
                for name, own in self.differences.items()
            },
            "verdicts": {
                name: {
                    f"{axis}.{figure}": verdict
                    for axis, figure in own
                    if (verdict := self.verdict(name, (axis, figure)))
                }
                for name, own in self.differences.items()
            },
        }


def _with_mean(own: Mapping[Key, Reading]) -> dict[Key, Reading]:
    rewards = [reading for (_, name), reading in own.items() if name == "reward"]
    values = [reading.estimate.value for reading in rewards if reading.estimate.value is not None]
    if not values or len(values) != len(rewards):
        return dict(own)
    draws = np.mean([reading.estimate.draws for reading in rewards], axis=0)
    mean = Reading(Estimate(float(np.mean(values)), draws), sum(reading.count for reading in rewards))
    return {**own, (MEAN, "reward"): mean}


def _reading(reading: Reading) -> dict[str, Any]:
    found = reading.interval
    return {"value": found.value, "ci": [found.low, found.high], "n": reading.count}


def _nested(own: Mapping[Key, Any], plain: Any) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for (axis, name), value in own.items():
        table.setdefault(axis, {})[name] = plain(value)
    return table
