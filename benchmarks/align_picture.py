"""A picture of what alignment does: rewards by axis before and after, with intervals, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VARIANTS = {"paper": ("after the paper's rewards", "#c2703a"), "duologue": ("after our rewards", "#2f6db3")}
BEFORE = ("before", "#8b949e")
_LEFT, _WIDTH, _ROW, _TOP = 150, 620, 66, 52
_STYLE = "font-family:system-ui,sans-serif;font-size:14px;fill:#24292f"


def draw(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the picture of the variants in `VARIANTS`, a row for each axis, of recorded users.

    Args:
        summaries: Of `align_figures.summarise_variant`, by variant.
    """
    shown = {name: summaries[name] for name in VARIANTS if name in summaries}
    axes = list(dict.fromkeys(axis for summary in shown.values() for axis in summary["axes"]))
    height = _TOP + _ROW * len(axes) + 40
    body = "".join([*_legend(shown), *_scale(len(axes)), *_rows(shown, axes)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 40}" height="{height}" style="{_STYLE}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{body}</svg>\n'
    )


def _legend(shown: Mapping[str, Any]) -> Iterator[str]:
    at = _LEFT
    for label, colour in [BEFORE, *(VARIANTS[name] for name in shown)]:
        yield f'<circle cx="{at + 6}" cy="22" r="6" fill="{colour}"/><text x="{at + 18}" y="27">{label}</text>'
        at += 40 + 8 * len(label)


def _scale(rows: int) -> Iterator[str]:
    bottom = _TOP + _ROW * rows
    for tenth in range(0, 11, 2):
        x = _x(tenth / 10)
        yield f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}" stroke="#e1e4e8"/>'
        yield f'<text x="{x}" y="{bottom + 24}" text-anchor="middle">{tenth / 10:.1f}</text>'


def _rows(shown: Mapping[str, Mapping[str, Any]], axes: list[str]) -> Iterator[str]:
    for number, axis in enumerate(axes):
        top = _TOP + _ROW * number
        yield f'<text x="{_LEFT - 16}" y="{top + _ROW / 2 + 5}" text-anchor="end">{axis.replace("_", " ")}</text>'
        found = {name: summary["axes"][axis] for name, summary in shown.items() if axis in summary["axes"]}
        values = [(BEFORE[1], next(iter(found.values()))["before"])]
        values += [(VARIANTS[name][1], own["after"]) for name, own in found.items()]
        for place, (colour, value) in enumerate(values, start=1):
            y = top + _ROW * place / (len(values) + 1)
            ends = f'x1="{_x(value["low"])}" y1="{y}" x2="{_x(value["high"])}" y2="{y}"'
            yield f'<line {ends} stroke="{colour}" stroke-width="3"/>'
            yield f'<circle cx="{_x(value["value"])}" cy="{y}" r="6" fill="{colour}"/>'


def _x(value: float) -> float:
    return round(_LEFT + _WIDTH * min(1.0, max(0.0, value)), 1)
