"""The report as one self-contained HTML page: numbers beside people, the conversation's picture and its transcript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from duologue.metrics.charts import render_fto, render_latency, stage_class
from duologue.metrics.lanes import render_lanes
from duologue.metrics.page import html_page, html_section, read_asset
from duologue.metrics.rows import FEW_EVENTS, Row, axis_rows, clock, floor_rows, frame_count, measure_row, side_rows
from duologue.metrics.svg import range_bar
from duologue.metrics.types import CompatColumn, InteractivityReport, Side
from duologue.types import FRAME_MS

_TILES = (
    ("Pauses", "takeover rate"),
    ("Turn-taking", "offset to the agent"),
    ("Turn-taking", "missed turns"),
    ("Backchannels", "per min of user speech"),
    ("Interruptions", "yield rate"),
    ("Interruptions", "stop latency"),
    ("Interruptions", "response latency"),
    ("Selectivity", "talks through backchannels"),
)
_LINE_GAP_S, _LINE_LENGTH_S = 1.0, 12.0


def render_html(
    report: InteractivityReport,
    *,
    title: str,
    audio: str | None = None,
    transcript: Sequence[tuple[float, str]] = (),
    note: str = "",
) -> str:
    """Draw the report as a page that needs nothing from outside but, if named, the conversation's audio.

    Args:
        report: What to draw.
        title: Heading of the page.
        audio: Address of the conversation's recording relative to the page, or None.
        transcript: The agent's text as (time in seconds, piece), pieces with their own spaces.
        note: A plain sentence to be read before the numbers, for instance that the model is untrained.
    """
    sections = [
        _header(report, title, note),
        html_section("axes", "The four axes, beside people", _tiles(report)),
        html_section("picture", "Who spoke when", _picture(report, audio)),
        html_section("timing", "Timing", _charts(report)),
        html_section("measures", "All measures", _measures(report)),
        html_section("compat", "Under other definitions", _compat(report)),
        html_section("transcript", "What the agent said", _transcript(transcript, audio)),
    ]
    scripts = (
        f'<script type="application/json" id="report">{_inert(report.to_json(indent=None))}</script>\n'
        f"<script>\n{read_asset('page.js')}</script>\n"
    )
    return html_page(title, "".join(sections), scripts=scripts)


def _inert(json_text: str) -> str:
    # Inside a script element only "<" can end the element or open a comment.
    return json_text.replace("<", "\\u003c")


def _header(report: InteractivityReport, title: str, note: str) -> str:
    frames = frame_count(report)
    facts = [
        clock(report.duration_s, 1),
        *([f"{frames} frames of {FRAME_MS} ms, {report.late_frames or 'none'} late"] if frames else []),
        f"speech found by: user {report.user_detector}, agent {report.agent_detector}",
    ]
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    callout = f'<p class="note" role="note">{escape(note)}</p>' if note else ""
    return f'<header>\n<h1>{escape(title)}</h1>\n<ul class="facts">{items}</ul>\n{callout}</header>\n'


# Numbers beside people


def _tiles(report: InteractivityReport) -> str:
    axes = axis_rows(report)
    tiles = "".join(_tile(axis, row) for axis, label in _TILES for row in axes[axis] if row.label == label)
    return (
        f'<div class="tiles">{tiles}</div>\n<p class="small">The bar is the middle 90 % of human telephone '
        "conversations, the tick its median, the dot this one. Offsets and latencies show their median here, beside "
        "single events between people. A hollow dot "
        f"stands on fewer than {FEW_EVENTS} events: read it as an anecdote, not a rate.</p>"
    )


def _tile(axis: str, row: Row) -> str:
    if row.value is None:
        value = f'<p class="value absent">{escape(row.absent)}</p>'
    else:
        few = f' <em title="fewer than {FEW_EVENTS} events">few</em>' if row.is_few else ""
        value = f'<p class="value">{escape(row.value_text)}<span class="n">n = {row.count}{few}</span></p>'
    people = f"people {row.band_text}" if row.band else "no human reference"
    return (
        f'<article class="tile"><h3><span>{escape(axis)}{_verdict(row)}</span> {escape(row.label)}</h3>{value}'
        f'{range_bar(row)}<p class="people">{escape(people)}</p></article>'
    )


def _verdict(row: Row) -> str:
    signs = {"inside": "●", "below": "◂", "above": "▸"}
    if not row.verdict:
        return ""
    sign = f'<span aria-hidden="true">{signs[row.verdict]}</span>'
    return f' <span class="verdict {row.verdict}">{sign} {row.verdict}</span>'


def _measures(report: InteractivityReport) -> str:
    groups = {
        **axis_rows(report),
        "Floor": floor_rows(report),
        "User": side_rows(report.user),
        "Agent": side_rows(report.agent),
    }
    body = "".join(
        f'<tbody><tr class="group"><th colspan="5" scope="rowgroup">{escape(name)}</th></tr>'
        f"{''.join(_measure(row) for row in rows)}</tbody>"
        for name, rows in groups.items()
    )
    head = _head("Measure", ">Value", ">n", "Beside people", "People: median (5 to 95 %)")
    return f'<div class="scroll"><table class="numbers">{head}{body}</table></div>'


def _measure(row: Row) -> str:
    if row.value is None:
        value = f'<td class="num" title="{escape(row.absent)}">-</td>'
        beside = f'<td class="quiet">{escape(row.absent)}</td>'
    else:
        value = f'<td class="num">{escape(row.value_text)}</td>'
        beside = f"<td>{range_bar(row)}{_verdict(row)}</td>"
    few = " few" if row.is_few else ""
    return (
        f'<tr><th scope="row">{escape(row.label)}</th>{value}<td class="num{few}">{row.count}</td>{beside}'
        f'<td class="quiet">{escape(row.band_text)}</td></tr>'
    )


def _compat(report: InteractivityReport) -> str:
    body = ""
    for suite, columns in groupby(report.compat, key=lambda column: column.suite):
        explained: dict[str, str] = {}
        rows = "".join(_compat_row(column, explained) for column in columns)
        group = f'<tr class="group"><th colspan="4" scope="rowgroup">{escape(suite)}</th></tr>'
        body += f"<tbody>{group}{rows}</tbody>"
    head = _head("Name there", ">Value", ">n", "What to know before comparing")
    return f'<div class="scroll"><table class="compat">{head}{body}</table></div>' if body else ""


def _compat_row(column: CompatColumn, explained: dict[str, str]) -> str:
    row = measure_row(column.name, column.measure)
    caveat = f"as for {explained[column.caveat]}" if column.caveat in explained else column.caveat
    if column.caveat:
        explained.setdefault(column.caveat, column.name)
    few = " few" if row.is_few else ""
    return (
        f'<tr><th scope="row">{escape(column.name)}</th><td class="num">{escape(row.value_text)}</td>'
        f'<td class="num{few}">{row.count}</td><td class="caveat">{escape(caveat)}</td></tr>'
    )


def _head(*names: str) -> str:
    cells = (
        f'<th scope="col" class="num">{escape(name[1:])}</th>'
        if name[0] == ">"
        else f'<th scope="col">{escape(name)}</th>'
        for name in names
    )
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


# Pictures


def _picture(report: InteractivityReport, audio: str | None) -> str:
    player = (
        f'<audio controls preload="metadata" src="{escape(audio)}">The conversation: '
        f'<a href="{escape(audio)}">{escape(audio)}</a></audio>'
        if audio
        else ""
    )
    hint = '<span class="small">Click in the lanes to play from there.</span>' if audio else ""
    zoom = (
        '<span class="zoom" hidden><button type="button" data-zoom="0.5" aria-label="zoom out">−</button>'
        '<button type="button" data-zoom="2" aria-label="zoom in">+</button></span>'
    )
    return f'<div class="controls">{player}{hint}{zoom}</div>\n{render_lanes(report)}'


def _charts(report: InteractivityReport) -> str:
    turn = report.turn
    figures = [
        _fto_figure("The agent takes the floor from the user", turn.fto_s.values, "agent"),
        _fto_figure("The user takes the floor from the agent", turn.fto_to_user_s.values, "user"),
    ]
    return f'<div class="charts"><div>{"".join(figures)}</div><div>{_latency_figure(report)}</div></div>'


def _fto_figure(heading: str, values_s: Sequence[float], side: Side) -> str:
    count = f"n = {len(values_s)}" if values_s else "it never happened"
    here = f'<span class="swatch bar {side}"></span>here'
    people = '<span class="swatch human"></span>between people (Switchboard)'
    return (
        f"<figure><figcaption><b>{escape(heading)}</b> <span>{count}</span><small>{here} {people}</small></figcaption>"
        f"{render_fto(values_s, side)}</figure>"
    )


def _latency_figure(report: InteractivityReport) -> str:
    heading = "<b>Wall time of a frame, by stage</b>"
    if not report.latency:
        return (
            f'<figure><figcaption>{heading}</figcaption><p class="quiet">Not measured: no agent ran here.</p></figure>'
        )
    chart = render_latency(report.latency)
    body = "".join(
        f'<tr><th scope="row"><span class="swatch {stage_class(name, index)}"></span>{escape(name)}</th>'
        + "".join(
            f'<td class="num{" over" if time_ms > FRAME_MS else ""}">{time_ms:.2f}</td>'
            for time_ms in (stage.p50_ms, stage.p95_ms, stage.p99_ms, stage.max_ms)
        )
        + "</tr>"
        for index, (name, stage) in enumerate(report.latency.items())
    )
    head = _head("Stage", ">p50 ms", ">p95", ">p99", ">max")
    table = f'<table class="stages">{head}<tbody>{body}</tbody></table>'
    return f"<figure><figcaption>{heading} <span>n = {frame_count(report)}</span></figcaption>{chart}{table}</figure>"


# Transcript


def _transcript(transcript: Sequence[tuple[float, str]], audio: str | None) -> str:
    items = "".join(f"<li>{_stamp(time_s, audio)}<p>{escape(text)}</p></li>" for time_s, text in _lines(transcript))
    return f'<ol class="transcript">{items}</ol>' if items else ""


def _stamp(time_s: float, audio: str | None) -> str:
    if audio is None:
        return f"<time>{clock(time_s, 1)}</time>"
    return f'<button type="button" data-t="{time_s:g}"><time>{clock(time_s, 1)}</time></button>'


def _lines(pieces: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """Join pieces to lines; a new one begins after a second without text or when the old one has grown long."""
    lines: list[tuple[float, str]] = []
    last_s = 0.0
    for time_s, piece in pieces:
        is_long = bool(lines) and time_s - lines[-1][0] > _LINE_LENGTH_S and piece.startswith(" ")
        if not lines or time_s - last_s > _LINE_GAP_S or is_long:
            lines.append((time_s, piece))
        else:
            lines[-1] = (lines[-1][0], lines[-1][1] + piece)
        last_s = time_s
    return [(time_s, text.strip()) for time_s, text in lines if text.strip()]
