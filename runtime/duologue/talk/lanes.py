"""Two scrolling lanes of speech as terminal text: how loud each side is, and where the meter found it speaking."""

from __future__ import annotations

import math

from rich.text import Text

from duologue.metrics.marks import marked
from duologue.metrics.rows import clock
from duologue.metrics.types import Side
from duologue.talk.state import View, speech_spans
from duologue.types import FRAME_RATE_HZ

STYLES = {
    "user": "#79b8ff",
    "agent": "#f0a6ff",
    "dim": "#7d8590",
    "good": "#56d364",
    "warn": "#e3b341",
    "bad": "#ff7b72",
}
"""Colours of the card; none says anything that the text does not."""

_SPAN_S = 20.0
_FLOOR_DBFS, _CEILING_DBFS = -60.0, -6.0
_LEVELS = "▁▂▃▄▅▆▇█"
_TONES = {"good": STYLES["good"], "bad": STYLES["bad"], "plain": STYLES["warn"]}
_LABEL = 6


def lane_lines(view: View, width: int, height: int) -> list[Text]:
    """Draw the newest seconds of both lanes, and below them the event marks and the time.

    Args:
        view: The conversation.
        width: Columns.
        height: Rows: 3 for lanes of one row and marks that stand before the time, 4 for marks of their own row, 6 for
            lanes of two rows each.
    """
    rows = 2 if height >= 6 else 1
    columns = max(8, width - _LABEL)
    frames_per_column = max(1, round(_SPAN_S * FRAME_RATE_HZ / columns))
    last_column = view.frames[-1].index // frames_per_column if view.frames else 0
    first_column = last_column - columns + 1
    scale = _Scale(first_column, columns, frames_per_column)
    lines = [*_lane(view, "user", scale, rows), *_lane(view, "agent", scale, rows)]
    marks = _marks(view, scale)
    if height >= 4:
        return [*lines, _join(marks), _time(scale, [])]
    return [*lines, _time(scale, marks)]


class _Scale:
    """Which frames a column shows; columns stand on absolute time, so that the picture scrolls and does not flicker."""

    def __init__(self, first: int, count: int, frames_per_column: int) -> None:
        self.first, self.count, self.frames = first, count, frames_per_column

    def column(self, time_s: float) -> int:
        return math.floor(time_s * FRAME_RATE_HZ / self.frames) - self.first

    def time_s(self, column: int) -> float:
        return (self.first + column) * self.frames / FRAME_RATE_HZ


def _lane(view: View, side: Side, scale: _Scale, rows: int) -> list[Text]:
    loudness = _loudness(view, side, scale)
    speaks = [False] * scale.count
    for start_s, end_s in speech_spans(view, side):
        for column in range(max(0, scale.column(start_s)), min(scale.count, scale.column(end_s) + 1)):
            speaks[column] = True
    lines = []
    for row in range(rows):
        line = Text((side if row == rows - 1 else "").ljust(_LABEL), style=STYLES[side])
        for level, is_speech in zip(loudness, speaks, strict=True):
            line.append(_cell(level, rows, rows - 1 - row), style=STYLES[side if is_speech else "dim"])
        lines.append(line)
    return lines


def _loudness(view: View, side: Side, scale: _Scale) -> list[float | None]:
    """Return the loudest frame of each column in [0, 1], None where there is none."""
    found: list[float | None] = [None] * scale.count
    for frame in view.frames:
        column = frame.index // scale.frames - scale.first
        if 0 <= column < scale.count:
            level_dbfs = frame.user_dbfs if side == "user" else frame.agent_dbfs
            share = (level_dbfs - _FLOOR_DBFS) / (_CEILING_DBFS - _FLOOR_DBFS)
            found[column] = max(found[column] or 0.0, min(max(share, 0.0), 1.0))
    return found


def _cell(level: float | None, rows: int, row_from_below: int) -> str:
    if level is None:
        return " "
    eighths = round(level * 8 * rows) - 8 * row_from_below
    # The lowest row always shows, so that silence looks like a line and not like nothing.
    return _LEVELS[min(max(eighths, 1), 8) - 1] if eighths > 0 or row_from_below == 0 else " "


def _marks(view: View, scale: _Scale) -> list[tuple[str, str]]:
    """Return (sign, style) of each column; a sign of one space where nothing happened."""
    cells = [(" ", "")] * scale.count
    for mark, event in marked(view.events):
        column = scale.column(mark.time_s(event))
        if 0 <= column < scale.count:
            cells[column] = (mark.sign, _TONES[mark.tone])
    return cells


def _join(cells: list[tuple[str, str]]) -> Text:
    return Text.assemble(" " * _LABEL, *cells)


def _time(scale: _Scale, marks: list[tuple[str, str]]) -> Text:
    """Write the time under the lanes, where no mark stands in the way."""
    cells = list(marks) or [(" ", "")] * scale.count
    step = max(1, math.ceil(12 * scale.frames / FRAME_RATE_HZ / 5)) * 5
    begin = math.ceil(max(0.0, scale.time_s(0)) / step) * step
    for time_s in range(begin, math.ceil(scale.time_s(scale.count)), step):
        column, label = scale.column(time_s), "╵" + clock(time_s)
        is_free = all(sign == " " for sign, _ in cells[column : column + len(label)])
        if is_free and 0 <= column <= scale.count - len(label):
            cells[column : column + len(label)] = [(letter, STYLES["dim"]) for letter in label]
    return _join(cells)
