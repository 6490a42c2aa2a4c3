"""What a run of mining found: counts per set and split, bad files, throughput; as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from duologue.replacing import replace_file
from duologue_align.corpus.conversation import SPLITS, Rejected
from duologue_align.segments.mining import Outcome
from duologue_align.segments.segment import AXES, Axis, Segment

SUMMARY = "summary.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a stage went, counting only what this run did itself.

    Attributes:
        conversations: Conversations done in this run, be it that only the rules were new.
        reused: Conversations that an earlier run had done.
        hours: Hours of audio this run listened to, or encoded; two channels count once.
        minutes: Wall time.
    """

    conversations: int
    reused: int
    hours: float
    minutes: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], took_s: float) -> Pace:
        """Sum outcomes up."""
        fresh = [outcome for outcome in outcomes if not outcome.was_done and not outcome.error]
        return cls(
            conversations=len(fresh),
            reused=sum(outcome.was_done for outcome in outcomes),
            hours=sum(outcome.processed_s for outcome in fresh) / 3600,
            minutes=took_s / 60,
        )

    @property
    def hours_per_minute(self) -> float | None:
        """Hours of audio per minute, or None if there were none."""
        return self.hours / self.minutes if self.hours > 0 and self.minutes > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the pace as plain values."""
        rate = self.hours_per_minute
        return {
            "conversations": self.conversations,
            "reused": self.reused,
            "hours": round(self.hours, 4),
            "minutes": round(self.minutes, 4),
            "hours_per_minute": None if rate is None else round(rate, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisCount:
    """What there is of one set.

    Attributes:
        found: Segments found.
        kept: Segments drawn.
        splits: How many of those each split has.
        hours: Length of those drawn.
        median_s: Their median length, or None.
    """

    found: int
    kept: int
    splits: dict[str, int]
    hours: float
    median_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningSummary:
    """What a run found.

    Attributes:
        conversations: Usable conversations.
        hours: Their length.
        axes: Counts per set.
        bad: What could not be used, and why.
        mining: Pace of listening and finding.
        encoding: Pace of encoding; hours are those of the codes.
        codec: Weights file of the codec, or None if no codes were made.
        rules: The rules.
        seed: Of the draw.
        per_axis: Most segments of each set.
        has_parquet: Whether the manifest was written as Parquet too.
    """

    conversations: int
    hours: float
    axes: dict[Axis, AxisCount]
    bad: tuple[Rejected, ...]
    mining: Pace
    encoding: Pace
    codec: str | None
    rules: dict[str, Any]
    seed: int
    per_axis: int
    has_parquet: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return {
            "format": FORMAT,
            "conversations": self.conversations,
            "hours": round(self.hours, 4),
            "axes": {axis: asdict(count) for axis, count in self.axes.items()},
            "bad": [{"name": item.name, "reason": item.reason} for item in self.bad],
            "mining": self.mining.to_dict(),
            "encoding": self.encoding.to_dict(),
            "codec": self.codec,
            "rules": self.rules,
            "seed": self.seed,
            "per_axis": self.per_axis,
            "has_parquet": self.has_parquet,
        }

    def write(self, folder: Path) -> None:
        """Write summary.json."""
        replace_file(folder / SUMMARY, (json.dumps(self.to_dict(), indent=2) + "\n").encode())


def count_axes(found: dict[Axis, int], kept: Sequence[Segment]) -> dict[Axis, AxisCount]:
    """Count segments per set and split."""
    counts: dict[Axis, AxisCount] = {}
    for axis in AXES:
        own = [segment for segment in kept if segment.axis == axis]
        lengths = [segment.duration_s for segment in own]
        counts[axis] = AxisCount(
            found=found[axis],
            kept=len(own),
            splits={split: sum(segment.split == split for segment in own) for split in SPLITS},
            hours=round(sum(lengths) / 3600, 4),
            median_s=round(median(lengths), 2) if lengths else None,
        )
    return counts


def summary_table(summary: MiningSummary) -> str:
    """Return the summary as text."""
    names = ("set", "found", "kept", *SPLITS, "hours", "median")
    lines = [f"{names[0]:18}" + "".join(f"{name:>8}" for name in names[1:])]
    for axis, count in summary.axes.items():
        splits = "".join(f"{count.splits[split]:>8}" for split in SPLITS)
        middle = "-" if count.median_s is None else f"{count.median_s:.1f} s"
        lines.append(f"{axis:18}{count.found:>8}{count.kept:>8}{splits}{count.hours:>8.2f}{middle:>8}")
    lines.append(f"{summary.conversations} conversations, {summary.hours:.2f} h; {len(summary.bad)} unusable")
    lines += [f"  {item.name}: {item.reason}" for item in summary.bad[:10]]
    if len(summary.bad) > 10:
        lines.append(f"  ... and {len(summary.bad) - 10} more, see {SUMMARY}")
    lines.append(_pace("listened", summary.mining))
    lines.append(_pace("encoded", summary.encoding) if summary.codec else "no codes were made")
    return "\n".join(lines)


def _pace(verb: str, pace: Pace) -> str:
    rate = pace.hours_per_minute
    speed = "" if rate is None else f", {rate:.2f} hours of audio a minute"
    reused = f"; {pace.reused} from earlier runs" if pace.reused else ""
    return f"{verb} {pace.hours:.2f} h in {pace.minutes:.2f} min{speed}{reused}"
