"""The report of an evaluation: what was evaluated, its parts, as JSON and as text."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duologue import __version__
from duologue.metrics.bands import BANDS
from duologue.metrics.rows import digits
from duologue.metrics.types import HumanBand
from duologue.replacing import replace_file
from duologue_align.evaluation.contestant import BASE
from duologue_align.evaluation.measures import FIGURES, Key, Reading
from duologue_align.evaluation.part import MEAN, Part
from duologue_align.segments.segment import AXES
from duologue_align.statistics import Interval

FORMAT = 1
REPORT, PAGE = "report.json", "report.html"
PEOPLE = "people, 5 to 95 %"
MARKS = {"better": " ^", "worse": " v", "": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an evaluation found.

    Attributes:
        agents: Where each agent is from, by contestant.
        note: What a reader should know about the agent's weights; "" if nothing.
        data: What it was evaluated on.
        static: With recorded users, or None.
        dynamic: With simulated users, or None.
        judge: Name of the judges' panel, or why nobody judged.
        options: Every option.
        rejected: Samples that could not be used, with the reason.
    """

    agents: Mapping[str, str]
    note: str
    data: str
    static: Part | None = None
    dynamic: Part | None = None
    judge: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    rejected: Sequence[tuple[str, str]] = ()

    @property
    def parts(self) -> list[Part]:
        """The parts that there are."""
        return [part for part in (self.static, self.dynamic) if part is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "format": FORMAT,
            "version": __version__,
            "date": time.strftime("%Y-%m-%d"),
            "agents": dict(self.agents),
            "note": self.note,
            "data": self.data,
            "judge": self.judge,
            "options": dict(self.options),
            "rejected": [{"name": name, "reason": reason} for name, reason in self.rejected],
            "static": self.static.to_dict() if self.static else None,
            "dynamic": self.dynamic.to_dict() if self.dynamic else None,
        }

    def write(self, folder: Path) -> None:
        """Write report.json and report.html."""
        from duologue_align.evaluation.page import render_page

        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / REPORT, (json.dumps(self.to_dict(), indent=1) + "\n").encode())
        replace_file(folder / PAGE, render_page(self).encode())

    def text(self) -> str:
        """Return the tables as text; "^" is significantly better than the agent, "v" significantly worse."""
        blocks = []
        for part in self.parts:
            blocks.append(f"{part.kind}: {describe(part)}")
            for axis, keys in columns(part).items():
                blocks.append(_table(part, axis, keys))
        if BASE in self.agents:
            blocks += [_comparison(part) for part in self.parts]
        return "\n\n".join(blocks)


def describe(part: Part) -> str:
    """Say what a part consists of."""
    if part.kind == "dynamic":
        return f"{part.conversations} conversations with simulated users"
    counts = ", ".join(f"{count} {axis}" for axis, count in part.counts.items())
    return f"{counts} from {part.conversations} conversations"


def columns(part: Part) -> dict[str, list[Key]]:
    """Return the figures of each axis, the mean first; components of rewards are left out."""
    found: dict[str, list[Key]] = {}
    for own in part.figures.values():
        for axis, name in own:
            if name in FIGURES and (axis, name) not in found.setdefault(axis, []):
                found[axis].append((axis, name))
    order = list(FIGURES)
    axes = [axis for axis in (MEAN, *AXES, "floor") if axis in found]
    return {axis: sorted(found[axis], key=lambda key: order.index(key[1])) for axis in axes}


def cell(reading: Reading | None, name: str) -> str:
    """Write a figure with its interval, or "-"."""
    return "-" if reading is None else interval_text(reading.interval, name)


def interval_text(interval: Interval, name: str, *, is_signed: bool = False) -> str:
    """Write an interval in the unit of a figure: "0.81 [0.75, 0.86]"."""
    if interval.value is None or interval.low is None or interval.high is None:
        return "-"
    unit = FIGURES[name].unit if name in FIGURES else "score"
    written = [
        digits(value, "s" if unit == "score" else unit, is_signed=is_signed)
        for value in (interval.value, interval.low, interval.high)
    ]
    percent = " %" if unit in ("rate", "share") else ""
    return f"{written[0]}{percent} [{written[1]}, {written[2]}]"


def people(part: Part, name: str) -> HumanBand | None:
    """Return what people do on the telephone, or None; recorded situations are chosen, so no band belongs to them."""
    known = {"backchannels_per_min": "backchannels_per_speech_min"}
    return BANDS.get(known.get(name, name)) if part.kind == "dynamic" else None


def people_text(part: Part, name: str) -> str:
    """Write what people do in the unit of a figure: median and middle 90 %."""
    band = people(part, name)
    if band is None:
        return "-"
    return interval_text(Interval(value=band.median, low=band.low, high=band.high), name)


def paired(part: Part) -> dict[Key, Interval]:
    """Return the agent minus the base for every figure that both have."""
    flipped = {}
    for key, found in part.differences.get(BASE, {}).items():
        if found.value is not None and found.low is not None and found.high is not None:
            flipped[key] = Interval(value=-found.value, low=-found.high, high=-found.low)
    return flipped


def _table(part: Part, axis: str, keys: Sequence[Key]) -> str:
    head = [axis if axis != MEAN else "mean of the axes", *(FIGURES[name].label for _, name in keys)]
    rows = [head]
    for name, own in part.figures.items():
        shown = [cell(own.get(key), key[1]) + MARKS[part.verdict(name, key)] for key in keys]
        rows.append([name, *shown])
    if part.kind == "dynamic":
        rows.append([PEOPLE, *(people_text(part, name) for _, name in keys)])
    return "\n".join(_aligned(rows))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _comparison(part: Part) -> str:
    verdicts = {"better": "worse than before", "worse": "better than before", "": ""}
    rows = [
        (
            f"  {key[0]}: {FIGURES[key[1]].label}",
            interval_text(interval, key[1], is_signed=True),
            verdicts[part.verdict(BASE, key)],
        )
        for key, interval in paired(part).items()
        if key[1] in FIGURES
    ]
    return "\n".join([f"{part.kind}: agent minus base, paired by conversation", *_aligned(rows)])
