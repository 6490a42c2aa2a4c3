"""The report as one HTML page that needs nothing else but the recordings beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from duologue.metrics import svg
from duologue.metrics.lanes import render_lanes
from duologue.metrics.page import html_page, html_section
from duologue.metrics.rows import clock
from duologue_align.evaluation.contestant import AGENT, BASE
from duologue_align.evaluation.dynamic import Picture
from duologue_align.evaluation.measures import FIGURES, Key
from duologue_align.evaluation.part import MEAN, Part
from duologue_align.evaluation.report import (
    PEOPLE,
    Report,
    cell,
    columns,
    describe,
    interval_text,
    paired,
    people,
    people_text,
)

_ROW = 20
_MARKS = {"better": "▴", "worse": "▾", "": ""}
_SAID = {
    "pause": "The user pauses inside a turn: the agent should leave the pause alone.",
    "turn": "The user's turn ends: the agent should answer, soon but not early.",
    "backchannel": "The user holds the floor: short signs of listening are welcome, a turn is not.",
    "interruption": "The user breaks in: the agent should stop and then answer.",
    "user_backchannel": "The user says mm-hm while the agent speaks: it should go on.",
    "hold": "The agent has the floor and pauses: it should go on.",
    "floor": "How the two shared the time.",
    MEAN: "Mean of the axes, each counting alike.",
}
_STYLE = """
.plot { display: grid; grid-template-columns: 140px 1fr; font-size: 13px; line-height: 20px; margin: 10px 0 18px; }
.plot ul { color: var(--quiet); white-space: nowrap; }
.plot li:first-child { color: var(--ink); font-weight: 600; }
.whisker { stroke: var(--median); stroke-width: 2; } .whisker.own { stroke: var(--agent); }
.point { fill: var(--median); } .point.own { fill: var(--agent); }
.figures td, .figures th { font-size: 13px; white-space: nowrap; }
.figures tr.own th, .figures tr.own td { font-weight: 600; }
.better { color: var(--good); } .worse { color: var(--bad); }
h3 { font-size: 15px; margin: 26px 0 4px; }
.talk { margin: 0 0 26px; } .talk audio { width: 100%; margin: 6px 0; }
"""


def render_page(report: Report) -> str:
    """Draw the page."""
    title = f"Evaluation of {report.agents[AGENT]}"
    body = [_header(report, title)]
    if BASE in report.agents:
        body.append(html_section("paired", "Against what it was aligned from", _paired(report)))
    for part in report.parts:
        heading = "With recorded users" if part.kind == "static" else "With users who react"
        body.append(html_section(part.kind, heading, _part(part)))
    if report.dynamic is not None:
        body.append(html_section("conversations", "Conversations", "".join(map(_talk, report.dynamic.pictures))))
    body.append(html_section("rejected", "What could not be used", _rejected(report)))
    return html_page(title, "".join(body), style=_STYLE)


def _header(report: Report, title: str) -> str:
    facts = [
        *(f"{name}: {source}" for name, source in report.agents.items()),
        report.data,
        *(f"{part.kind}: {describe(part)}" for part in report.parts),
        f"judge: {report.judge}",
        f"the agent's words: {report.options.get('transcriber', 'as given')}",
    ]
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    note = f'<p class="note" role="note">{escape(report.note)}</p>' if report.note else ""
    explained = (
        '<p class="small">Values with 95 % intervals, bootstrapped over conversations. '
        f"{_mark('better')} significantly better than the agent, {_mark('worse')} significantly worse, paired on the "
        "same conversations. Scripted agents understand nothing: a figure that one of them wins says little alone. "
        "Shaded: the middle 90 % of people on the telephone.</p>"
    )
    return f'<header>\n<h1>{escape(title)}</h1>\n<ul class="facts">{items}</ul>\n{note}{explained}</header>\n'


def _part(part: Part) -> str:
    found = columns(part)
    return "".join(_axis(part, axis, keys) for axis, keys in found.items())


def _axis(part: Part, axis: str, keys: Sequence[Key]) -> str:
    name = escape(axis.replace("_", " "))
    said = f'<p class="quiet">{escape(_SAID.get(axis, ""))}</p>'
    return f"<h3>{name}</h3>{said}{_plot(part, keys[0])}{_table(part, keys) if axis != MEAN else ''}"


def _plot(part: Part, key: Key) -> str:
    """Draw one figure of all contestants, a row each, on a common scale."""
    rows = [(name, own[key].interval) for name, own in part.figures.items() if key in own]
    edges = [edge for _, found in rows for edge in (found.low, found.high) if edge is not None]
    if not edges:
        return ""
    band = people(part, key[1])
    edges += [band.low, band.high] if band else []
    low, high = min(0.0, *edges), max(1.0 if FIGURES[key[1]].unit in ("rate", "score", "share") else 0.0, *edges)
    scale = 96 / (high - low) if high > low else 0.0
    shapes: list[str] = []
    if band:
        left, right = (2 + scale * (value - low) for value in (band.low, band.high))
        title = f"people: {people_text(part, key[1])}"
        shapes.append(svg.rect(left, right - left, 0, _ROW * len(rows), "band", title=title))
    shapes += [svg.line(2 + x, 2 + x, 0, _ROW * len(rows), "grid") for x in (0, 48, 96)]
    for index, (name, found) in enumerate(rows):
        if found.value is None or found.low is None or found.high is None:
            continue
        css, middle = " own" if name == AGENT else "", _ROW * (index + 0.5)
        at = [2 + scale * (value - low) for value in (found.low, found.value, found.high)]
        title = f"{name}: {interval_text(found, key[1])}"
        shapes.append(svg.line(at[0], at[2], middle, middle, f"whisker{css}"))
        shapes.append(svg.sign(at[1], middle, "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z", f"point{css}", title=title))
    anchors = enumerate(("start", "middle", "end"))
    ends = [
        svg.text(2 + 48 * i, _ROW * len(rows) + 13, f"{low + (high - low) * i / 2:.2f}", "tick", anchor=anchor)
        for i, anchor in anchors
    ]
    label = f"{FIGURES[key[1]].label} of every contestant"
    picture = svg.svg([*shapes, *ends], height=_ROW * len(rows) + 18, label=label, css="chart")
    names = "".join(f"<li>{escape(name)}</li>" for name, _ in rows)
    return f'<p class="small">{escape(FIGURES[key[1]].label)}</p><div class="plot"><ul>{names}</ul>{picture}</div>'


def _table(part: Part, keys: Sequence[Key]) -> str:
    head = "".join(f'<th scope="col" class="num">{escape(FIGURES[name].label)}</th>' for _, name in keys)
    rows = []
    for name, own in part.figures.items():
        cells = "".join(
            f'<td class="num"{_count(own[key].count) if key in own else ""}>{escape(cell(own.get(key), key[1]))} '
            f"{_mark(part.verdict(name, key))}</td>"
            for key in keys
        )
        css = ' class="own"' if name == AGENT else ""
        rows.append(f'<tr{css}><th scope="row">{escape(name)}</th>{cells}</tr>')
    if part.kind == "dynamic":
        cells = "".join(f'<td class="num quiet">{escape(people_text(part, name))}</td>' for _, name in keys)
        rows.append(f'<tr><th scope="row" class="quiet">{PEOPLE}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="figures"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _count(count: int) -> str:
    return f' title="n = {count}"'


def _mark(verdict: str) -> str:
    return f'<span class="{verdict}" title="{verdict}">{_MARKS[verdict]}</span>' if verdict else ""


def _paired(report: Report) -> str:
    rows = [row for part in report.parts for row in _paired_rows(part)]
    head = '<tr><th></th><th class="num">base</th><th class="num">agent</th><th class="num">agent minus base</th></tr>'
    return (
        f'<div class="scroll"><table class="figures"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _paired_rows(part: Part) -> Iterator[str]:
    flipped = {"better": "worse", "worse": "better", "": ""}
    for key, interval in paired(part).items():
        if key[1] in FIGURES:
            label = f"{part.kind}, {key[0].replace('_', ' ')}: {FIGURES[key[1]].label}"
            verdict = _mark(flipped[part.verdict(BASE, key)])
            values = "".join(
                f'<td class="num">{escape(cell(part.figures[name].get(key), key[1]))}</td>' for name in (BASE, AGENT)
            )
            difference = escape(interval_text(interval, key[1], is_signed=True))
            yield f'<tr><th scope="row">{escape(label)}</th>{values}<td class="num">{difference} {verdict}</td></tr>'


def _talk(picture: Picture) -> str:
    conversation = picture.conversation
    player = f'<audio controls preload="none" src="{escape(conversation.audio)}"></audio>' if conversation.audio else ""
    return (
        f'<div class="talk"><h3>{escape(picture.contestant)}, conversation {picture.number}</h3>{player}'
        f"{render_lanes(conversation.report())}<details><summary>What was said</summary>"
        f'<ol class="transcript">{"".join(_said(picture))}</ol></details></div>'
    )


def _said(picture: Picture) -> Iterator[str]:
    conversation = picture.conversation
    lines = [(turn.start_s, "user", turn.text or "(not known)") for turn in conversation.turns]
    last_s = 0.0
    for at_s, piece in conversation.transcript:
        if lines and lines[-1][1] == "agent" and at_s - last_s < 1.0:
            lines[-1] = (lines[-1][0], "agent", lines[-1][2] + piece)
        else:
            lines.append((at_s, "agent", piece))
        last_s = at_s
    for at_s, side, text in sorted(lines, key=lambda line: line[0]):
        yield f"<li><time>{clock(at_s, 1)}</time><p>{side}: {escape(text.strip())}</p></li>"


def _rejected(report: Report) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(why)}</td></tr>" for name, why in report.rejected[:200])
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>' if rows else ""
