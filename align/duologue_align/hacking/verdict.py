"""What the suite found: who beats the human where, and who stays below him."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from duologue_align.hacking.comparison import MEAN, Interval, Scores, compare

HUMAN = "human-like"
SECOND_HUMAN = "human-timed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Differences from the human by policy and axis; the human ones are not among the policies.

    Attributes:
        differences: Policy minus human-like, by policy and axis, the mean over the axes under "mean".
        from_second: Policy minus human-timed on the mean, by policy.
    """

    differences: dict[str, dict[str, Interval]]
    from_second: dict[str, Interval]

    @property
    def wins(self) -> list[str]:
        """The pairs "policy: axis" significantly above the human."""
        return [
            f"{policy}: {axis}"
            for policy, by_axis in self.differences.items()
            for axis, interval in by_axis.items()
            if axis != MEAN and interval.verdict == "above"
        ]

    @property
    def axes_below(self) -> dict[str, int]:
        """On how many axes each policy is significantly below the human."""
        return {
            policy: sum(interval.verdict == "below" for axis, interval in by_axis.items() if axis != MEAN)
            for policy, by_axis in self.differences.items()
        }

    @property
    def not_below_on_mean(self) -> list[str]:
        """The policies that are not significantly below the human on the mean."""
        return [policy for policy, by_axis in self.differences.items() if by_axis[MEAN].verdict != "below"]

    @property
    def not_below_second_human(self) -> list[str]:
        """The policies that are not significantly below another human (drawn, not replayed) on the mean."""
        return [policy for policy, interval in self.from_second.items() if interval.verdict != "below"]

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain values."""
        return {
            "wins": self.wins,
            "axes_below": self.axes_below,
            "not_below_on_mean": self.not_below_on_mean,
            "not_below_second_human": self.not_below_second_human,
        }


def judge_policies(scores: Scores) -> Verdict:
    """Compare every policy with the humans; both humans must be among the policies scored."""
    names = [name for name in next(iter(scores.totals.values())) if name not in (HUMAN, SECOND_HUMAN)]
    return Verdict(
        differences={name: compare(scores, HUMAN, name) for name in names},
        from_second={name: compare(scores, SECOND_HUMAN, name)[MEAN] for name in names},
    )
