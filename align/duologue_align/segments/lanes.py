"""A mined segment as a picture: both sides' speech in two lanes, with what makes it a segment of its set marked."""

from __future__ import annotations

from collections.abc import Iterator

from duologue.metrics import svg
from duologue.metrics.marks import MARKS
from duologue.metrics.rows import clock, number
from duologue.metrics.types import Event, Side
from duologue_align.segments.segment import Segment

_LANE_HEIGHT, _HEIGHT = 18, 96
_LANE_TOPS: dict[Side, int] = {"user": 25, "agent": 47}
_MARK_LEVELS: dict[Side, int] = {"user": 15, "agent": 75}
_SHADE_TOP, _SHADE_BOTTOM = 21, 69
_SIGNS = {mark.kind: mark for mark in MARKS}
_MARKED = ("backchannel", "interruption", "agent_yielded", "agent_held")


def render_segment(segment: Segment, width_s: float) -> str:
    """Draw a segment.

    Args:
        segment: What to draw.
        width_s: Seconds that the whole width stands for, at least the segment's length.
    """
    shapes = [
        *_axis(segment, width_s),
        *(shape for event in segment.events for shape in _shades(event, segment, width_s)),
        *_speech(segment, width_s),
        *(shape for event in segment.events for shape in _marks(event, segment, width_s)),
    ]
    label = f"{segment.axis} in {segment.conversation} at {clock(segment.start_s, 1)}"
    picture = svg.svg(shapes, height=_HEIGHT, label=label, css="row")
    return f'<div class="lane-row"><span class="who" aria-hidden="true"><b>user</b><i>agent</i></span>{picture}</div>'


def _axis(segment: Segment, width_s: float) -> Iterator[str]:
    width = 100 * segment.duration_s / width_s
    for top in _LANE_TOPS.values():
        yield svg.rect(0, width, top, _LANE_HEIGHT, "lane", radius=2)
    step_s = 1 if width_s <= 15 else 5 if width_s <= 60 else 10 if width_s <= 150 else 60
    for tick in range(0, int(segment.duration_s) + 1, step_s):
        x = 100 * tick / width_s
        anchor = "start" if tick == 0 else "middle"
        yield svg.line(x, x, _SHADE_TOP, _SHADE_BOTTOM, "grid")
        if step_s > 1 or tick % 2 == 0:
            yield svg.text(x, _HEIGHT - 3, f"{tick} s", "tick", anchor=anchor)


def _speech(segment: Segment, width_s: float) -> Iterator[str]:
    sides: tuple[tuple[Side, tuple[tuple[float, float], ...]], ...] = (
        ("user", segment.user_spans),
        ("agent", segment.agent_spans),
    )
    for side, spans in sides:
        for start_s, end_s in spans:
            x, width = _place(start_s, end_s, segment, width_s)
            title = f"{side} speaks, {clock(start_s, 1)} to {clock(end_s, 1)}"
            yield svg.rect(x, width, _LANE_TOPS[side], _LANE_HEIGHT, f"speech {side}", title=title, radius=2)


def _shades(event: Event, segment: Segment, width_s: float) -> Iterator[str]:
    """Shade what has a length: the pauses in their lane, the floor transfer and the user's talking over in both."""
    x, width = _place(event.start_s, event.end_s, segment, width_s)
    length = number(event.end_s - event.start_s, "s")
    if event.kind == "pause" and event.side is not None:
        title = f"pause of the {event.side}, {length}"
        yield svg.rect(x, width, _LANE_TOPS[event.side] - 2, _LANE_HEIGHT + 4, "pause", title=title)
    elif event.kind == "floor_transfer" and event.value_s is not None:
        title = f"the floor passes, offset {number(event.value_s, 's', is_signed=True)}"
        height = _SHADE_BOTTOM - _SHADE_TOP
        yield svg.rect(x, max(width, 0.15), _SHADE_TOP, height, "transfer", title=title)
        yield svg.text(x + width / 2, _MARK_LEVELS["user"], _signed(event.value_s), "tick", anchor="middle")


def _marks(event: Event, segment: Segment, width_s: float) -> Iterator[str]:
    if event.kind not in _MARKED or event.side is None:
        return
    mark = _SIGNS[event.kind]
    time_s = min(max(mark.time_s(event), segment.start_s), segment.end_s)
    x = 100 * (time_s - segment.start_s) / width_s
    value = "" if event.value_s is None else f", {number(event.value_s, 's')}"
    title = f"{mark.label} ({event.side}) at {clock(time_s, 1)}{value}"
    yield svg.sign(x, _MARK_LEVELS[event.side], mark.path, f"mark {mark.tone}", title=title)


def _place(start_s: float, end_s: float, segment: Segment, width_s: float) -> tuple[float, float]:
    first, last = max(start_s, segment.start_s), min(end_s, segment.end_s)
    return 100 * (first - segment.start_s) / width_s, 100 * max(last - first, 0) / width_s


def _signed(value_s: float) -> str:
    return f"{value_s:+.2f} s".replace("-", "−")
