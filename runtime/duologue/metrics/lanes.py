"""The picture of a conversation: two lanes of speech over time, in rows, with the events marked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from duologue.metrics import svg
from duologue.metrics.marks import MARKS, Mark, marked
from duologue.metrics.rows import clock, number
from duologue.metrics.types import Event, InteractivityReport, Side

ROW_S = 60.0
"""Seconds in one row of the picture."""

_LANE_HEIGHT = 20
_LANE_TOPS: dict[Side, int] = {"user": 29, "agent": 53}
_MARK_LEVELS: dict[Side, tuple[int, int]] = {"user": (20, 8), "agent": (82, 94)}
_MARK_WIDTH = 1.3
_SHADE_TOP, _SHADE_BOTTOM = 25, 77
_AXIS_BOTTOM = 100
_ROW_HEIGHT = 116


def render_lanes(report: InteractivityReport) -> str:
    """Draw who spoke when as one SVG per minute inside a scrolling box, the user's lane above the agent's."""
    row_s = ROW_S if report.duration_s > ROW_S else max(5.0, math.ceil(report.duration_s / 5) * 5.0)
    count = max(1, math.ceil(report.duration_s / row_s - 1e-9))
    rows = "".join(_render_row(report, index * row_s, row_s) for index in range(count))
    name = 'tabindex="0" role="group" aria-label="Lanes of speech, one row a minute"'
    box = f'<div class="lanes" data-row-s="{row_s:g}" {name}>'
    return f'{box}<div class="lanes-inner">{rows}</div></div>{_legend(report)}'


def _render_row(report: InteractivityReport, begin_s: float, row_s: float) -> str:
    end_s = min(begin_s + row_s, report.duration_s)
    shapes = [
        *_axis(begin_s, end_s, row_s),
        *_overlaps(report, begin_s, end_s, row_s),
        *_speech(report, begin_s, end_s, row_s),
        *_marks(report, begin_s, end_s, row_s),
        f'<line class="playhead" x1="0" x2="0" y1="2" y2="{_AXIS_BOTTOM}" visibility="hidden"/>',
    ]
    label = f"Speech of user and agent from {clock(begin_s)} to {clock(end_s)}"
    picture = svg.svg(shapes, height=_ROW_HEIGHT, label=label, css="row")
    return f'<div class="lane-row"><span class="who" aria-hidden="true"><b>user</b><i>agent</i></span>{picture}</div>'


def _axis(begin_s: float, end_s: float, row_s: float) -> Iterator[str]:
    width = 100 * (end_s - begin_s) / row_s
    for top in _LANE_TOPS.values():
        yield svg.rect(0, width, top, _LANE_HEIGHT, "lane", radius=2)
    step_s = 10 if row_s > 20 else 5 if row_s > 10 else 1
    for tick in range(0, int(row_s) + 1, step_s):
        if begin_s + tick <= end_s + 1e-9:
            x = 100 * tick / row_s
            anchor = "start" if tick == 0 else "end" if tick == row_s else "middle"
            yield svg.line(x, x, _SHADE_TOP, _AXIS_BOTTOM, "grid")
            yield svg.text(x, _ROW_HEIGHT - 3, clock(begin_s + tick), "tick", anchor=anchor)


def _overlaps(report: InteractivityReport, begin_s: float, end_s: float, row_s: float) -> Iterator[str]:
    for event in report.events:
        if event.kind == "overlap" and event.start_s < end_s and event.end_s > begin_s:
            x, width = _place(event.start_s, event.end_s, begin_s, end_s, row_s)
            title = f"overlap, {number(event.end_s - event.start_s, 's')} at {clock(event.start_s, 1)}"
            yield svg.rect(x, width, _SHADE_TOP, _SHADE_BOTTOM - _SHADE_TOP, "overlap", title=title)


def _speech(report: InteractivityReport, begin_s: float, end_s: float, row_s: float) -> Iterator[str]:
    sides: tuple[tuple[Side, tuple[tuple[float, float], ...]], ...] = (
        ("user", report.user.spans),
        ("agent", report.agent.spans),
    )
    for side, spans in sides:
        for start_s, stop_s in spans:
            if start_s < end_s and stop_s > begin_s:
                x, width = _place(start_s, stop_s, begin_s, end_s, row_s)
                title = f"{side} speaks, {clock(start_s, 1)} to {clock(stop_s, 1)}"
                yield svg.rect(x, width, _LANE_TOPS[side], _LANE_HEIGHT, f"speech {side}", title=title, radius=2)


def _marks(report: InteractivityReport, begin_s: float, end_s: float, row_s: float) -> Iterator[str]:
    is_last = end_s >= report.duration_s
    free_from: dict[tuple[Side, int], float] = {}
    for mark, event in marked(report.events):
        time_s, side = mark.time_s(event), event.side or "agent"
        # An event at the very end of the audio belongs to the last row, not to one after it.
        if begin_s <= time_s < end_s or (is_last and time_s >= end_s):
            x = 100 * min(time_s - begin_s, row_s) / row_s
            # A mark that would hide its neighbour moves to the outer level.
            level = 0 if free_from.get((side, 0), 0.0) <= x else 1
            free_from[side, level] = x + _MARK_WIDTH
            css = f"mark {mark.tone} {mark.kind}"
            yield svg.sign(x, _MARK_LEVELS[side][level], mark.path, css, title=_mark_title(mark, side, event))


def _place(start_s: float, stop_s: float, begin_s: float, end_s: float, row_s: float) -> tuple[float, float]:
    first, last = max(start_s, begin_s), min(stop_s, end_s)
    return 100 * (first - begin_s) / row_s, 100 * (last - first) / row_s


def _mark_title(mark: Mark, side: Side, event: Event) -> str:
    value = "" if event.value_s is None else f", {number(event.value_s, 's', is_signed=event.value_s < 0)}"
    return f"{mark.label} ({side}) at {clock(mark.time_s(event), 1)}{value}"


def _legend(report: InteractivityReport) -> str:
    counts = {mark.kind: 0 for mark in MARKS}
    for mark, _ in marked(report.events):
        counts[mark.kind] += 1
    overlaps = sum(event.kind == "overlap" for event in report.events)
    items = [
        _legend_item('<rect class="speech user" width="12" height="10" y="1" rx="2"/>', "user speaks", ""),
        _legend_item('<rect class="speech agent" width="12" height="10" y="1" rx="2"/>', "agent speaks", ""),
        _legend_item('<rect class="overlap" width="12" height="12"/>', "overlap", str(overlaps)),
        *(_legend_item(_key(mark), mark.label, str(counts[mark.kind])) for mark in MARKS),
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _key(mark: Mark) -> str:
    return f'<path class="key {mark.tone}" transform="translate(6 6)" d="{mark.path}"/>'


def _legend_item(shape: str, label: str, count: str) -> str:
    key = f'<svg xmlns="http://www.w3.org/2000/svg" width="13" height="12" aria-hidden="true">{shape}</svg>'
    number_text = f" <b>{count}</b>" if count else ""
    return f"<li>{key}{escape(label)}{number_text}</li>"
