"""The report as a compact card for the terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from duologue.errors import ConfigError
from duologue.metrics.marks import MARKS, marked
from duologue.metrics.rows import FEW_EVENTS, Row, axis_rows, clock, floor_rows, frame_count, measure_row, side_rows
from duologue.metrics.types import HumanBand, InteractivityReport
from duologue.types import FRAME_MS

MIN_WIDTH = 48
"""Narrowest card, in columns."""

Line = list[tuple[str, str]]
"""Pieces of a line as (text, style); a style is a key of `_STYLES` or ""."""

_STYLES = {"title": "1", "dim": "2", "good": "32", "bad": "31", "warn": "33", "user": "34", "agent": "35"}
_VERDICT_STYLES = {"inside": "good", "below": "warn", "above": "warn", "": ""}
_LABEL, _VALUE, _COUNT, _GAUGE, _BAND, _VERDICT = 27, 10, 7, 16, 25, 6
_GAUGE_FROM_WIDTH = 2 + _LABEL + _VALUE + _COUNT + 2 + _GAUGE + 2 + _BAND + 1 + _VERDICT
_BAND_FROM_WIDTH = _GAUGE_FROM_WIDTH - _GAUGE - 2
_LEVELS = " ▁▂▃▄▅▆▇█"


def render_card(report: InteractivityReport, *, width: int = 100, color: bool = False) -> str:
    """Draw the report as text.

    Args:
        report: What to draw.
        width: Columns that no line exceeds, at least `MIN_WIDTH`; a narrow card leaves out the gauges, then the bands.
        color: Whether to add ANSI colours; they never carry anything that the text does not say.

    Returns:
        Lines joined by newlines, without a last one.

    Raises:
        ConfigError: If the width is below `MIN_WIDTH`.
    """
    if width < MIN_WIDTH:
        raise ConfigError(f"a card of {width} columns cannot be read; give it at least {MIN_WIDTH}")
    lines = [
        *_header(report, width),
        *_strip(report, width),
        *_axes(report, width),
        *_floor(report, width),
        *_latency(report),
        *_compat(report, width),
        *_footnotes(report, width),
    ]
    return "\n".join(_paint(_fit(line, width), color) for line in lines)


def _header(report: InteractivityReport, width: int) -> list[Line]:
    facts = clock(report.duration_s, 1)
    if frames := frame_count(report):
        facts += f" · {frames} frames · {report.late_frames} late"
    title = "Interactivity"
    detectors = f"speech found by: user {report.user_detector}, agent {report.agent_detector}"
    return [
        [(title, "title"), (facts.rjust(width - len(title)), "bad" if report.late_frames else "")],
        [(detectors, "dim")],
        [("─" * width, "dim")],
    ]


# Who spoke when


def _strip(report: InteractivityReport, width: int) -> list[Line]:
    if not report.duration_s:
        return [[("no audio", "dim")], []]
    columns = width - 6
    column_s = report.duration_s / columns
    above, below = (_signs(report, side, columns, column_s) for side in ("user", "agent"))
    counts = Counter(mark.kind for mark, _ in marked(report.events))
    entries = (f"{mark.sign} {counts[mark.kind]} {mark.label}" for mark in MARKS if counts[mark.kind])
    # A hard space keeps an entry on one line.
    legend = "  ".join(entry.replace(" ", "\xa0") for entry in entries)
    end = clock(report.duration_s)
    return [
        *([[("      ", ""), (above, "")]] if above.strip() else []),
        [("user  ", "user"), (_lane(report.user.spans, columns, column_s), "user")],
        [("agent ", "agent"), (_lane(report.agent.spans, columns, column_s), "agent")],
        *([[("      ", ""), (below, "")]] if below.strip() else []),
        [(f"      0:00{f'{column_s:.2g} s a column'.center(columns - 8)}{end.rjust(4)}", "dim")],
        *([("      " + part.replace("\xa0", " "), "dim")] for part in textwrap.wrap(legend, columns)),
        [],
    ]


def _signs(report: InteractivityReport, side: str, columns: int, column_s: float) -> str:
    signs = [" "] * columns
    for mark, event in marked(report.events):
        if (event.side or "agent") == side:
            signs[min(int(mark.time_s(event) / column_s), columns - 1)] = mark.sign
    return "".join(signs)


def _lane(spans: Iterable[tuple[float, float]], columns: int, column_s: float) -> str:
    filled = [0.0] * columns
    for start_s, end_s in spans:
        first, last = start_s / column_s, min(end_s / column_s, columns)
        for column in range(int(first), min(int(last) + 1, columns)):
            filled[column] += max(min(last, column + 1) - max(first, column), 0.0)
    return "".join(_level(share) for share in filled)


def _level(share: float) -> str:
    # Any speech at all shows, however short.
    return _LEVELS[0] if share <= 0 else _LEVELS[max(1, min(round(share * 8), 8))]


# Rows of numbers


def _axes(report: InteractivityReport, width: int) -> list[Line]:
    lines = [_columns(width)]
    for axis, rows in axis_rows(report).items():
        lines.append([(axis, "title")])
        lines.extend(_rows(rows, width))
    return [*lines, []]


def _floor(report: InteractivityReport, width: int) -> list[Line]:
    lines: list[Line] = [[("Floor", "title")], *_rows(floor_rows(report), width)]
    for name, side in (("User", report.user), ("Agent", report.agent)):
        lines += [[(name, "title")], *_rows(side_rows(side)[:2], width)]
    return [*lines, []]


def _columns(width: int) -> Line:
    head = " " * (2 + _LABEL) + "value".rjust(_VALUE) + "n".rjust(_COUNT - 1) + " "
    if width >= _GAUGE_FROM_WIDTH:
        head += " " * (_GAUGE + 2)
    if width >= _BAND_FROM_WIDTH:
        head += "  " + "people: median (5 to 95 %)"
    return [(head, "dim")]


def _rows(rows: Iterable[Row], width: int) -> Iterator[Line]:
    for row in rows:
        line: Line = [(f"  {row.label:<{_LABEL}}", ""), (row.value_text.rjust(_VALUE), "title"), (_count(row), "")]
        if row.value is not None:
            yield [*line, *_beside_people(row, row.value, width)]
        elif sum(len(text) for text, _ in line) + 2 + len(row.absent) <= width:
            yield [*line, (f"  {row.absent}", "dim")]
        else:
            yield from (line, [(f"    {row.absent}", "dim")])


def _beside_people(row: Row, value: float, width: int) -> Line:
    line: Line = []
    if width >= _GAUGE_FROM_WIDTH:
        line.append((f"  {_gauge(value, row.band)}", ""))
    if width >= _BAND_FROM_WIDTH:
        line.append((f"  {row.band_text:<{_BAND}}", "dim"))
    return [*line, (f" {row.verdict:>{_VERDICT}}", _VERDICT_STYLES[row.verdict])]


def _count(row: Row) -> str:
    return f"{row.count}{'*' if row.is_few else ' '}".rjust(_COUNT)


def _gauge(value: float, band: HumanBand | None) -> str:
    if band is None:
        return " " * _GAUGE
    span = max(band.high - band.low, 1e-9)
    low, high = min(band.low - span / 2, value), max(band.high + span / 2, value)
    cells = ["·"] * _GAUGE

    def cell(x: float) -> int:
        return round((x - low) / (high - low) * (_GAUGE - 1))

    cells[cell(band.low) : cell(band.high) + 1] = "━" * (cell(band.high) - cell(band.low) + 1)
    cells[cell(band.median)] = "┿"
    cells[cell(value)] = "●"
    return "".join(cells)


# Time and comparisons


def _latency(report: InteractivityReport) -> list[Line]:
    if not report.latency:
        return []
    head = f"  {'stage':<{_LABEL - 12}}" + "".join(quantile.rjust(11) for quantile in ("p50", "p95", "p99", "max"))
    lines: list[Line] = [[(f"Wall time of a frame, budget {FRAME_MS} ms", "title")], [(head, "dim")]]
    for name, stage in report.latency.items():
        times = (stage.p50_ms, stage.p95_ms, stage.p99_ms, stage.max_ms)
        line: Line = [(f"  {name:<{_LABEL - 12}}", "")]
        line += [(f"{time_ms:.2f} ms".rjust(11), "bad" if time_ms > FRAME_MS else "") for time_ms in times]
        is_within = stage.p95_ms <= FRAME_MS
        line.append(("  within" if is_within else "  p95 over budget", "good" if is_within else "bad"))
        lines.append(line)
    return [*lines, []]


def _compat(report: InteractivityReport, width: int) -> list[Line]:
    if not report.compat:
        return []
    lines: list[Line] = [[("Under other definitions", "title")]]
    notes = _numbered(column.caveat for column in report.compat)
    for suite, columns in groupby(report.compat, key=lambda column: column.suite):
        lines.append([(f"  {suite}", "dim")])
        for column in columns:
            row = measure_row(column.name, column.measure)
            note = f" [{notes[column.caveat]}]" if column.caveat else ""
            label = f"  {row.label[:_LABEL]:<{_LABEL}}"
            lines.append([(label, ""), (row.value_text.rjust(_VALUE), "title"), (_count(row), ""), (note, "dim")])
    for caveat, index in notes.items():
        lines += _wrapped(f"[{index}] ", caveat, width)
    return [*lines, []]


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    return {text: index for index, text in enumerate(dict.fromkeys(text for text in texts if text), start=1)}


def _footnotes(report: InteractivityReport, width: int) -> list[Line]:
    rows = [row for group in axis_rows(report).values() for row in group]
    lines = _wrapped(
        "",
        "n: events behind the value. Lengths, offsets and latencies: the median, beside single events of people.",
        width,
    )
    if any(row.is_few for row in rows):
        lines += _wrapped("* ", f"fewer than {FEW_EVENTS} events: read it as an anecdote, not a rate.", width)
    people = "people: the middle 90 % of human telephone conversations; inside, below, above say where the value lies."
    return lines + _wrapped("", people, width)


def _wrapped(prefix: str, text: str, width: int) -> list[Line]:
    parts = textwrap.wrap(text, width - 2 - len(prefix))
    return [[(f"  {prefix if i == 0 else ' ' * len(prefix)}{part}", "dim")] for i, part in enumerate(parts)]


# Width and colour


def _fit(line: Line, width: int) -> Line:
    fitted: Line = []
    for text, style in line:
        fitted.append((text[:width], style))
        width -= len(fitted[-1][0])
    return fitted


def _paint(line: Sequence[tuple[str, str]], color: bool) -> str:
    if not color:
        return "".join(text for text, _ in line).rstrip()
    return "".join(f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text else text for text, style in line)
