"""The picture of what was mined: counts, and examples of each set as two lanes; one page that needs nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from html import escape

from duologue.metrics.page import html_page, html_section
from duologue.metrics.rows import clock
from duologue_align.corpus.conversation import SPLITS
from duologue_align.segments.lanes import render_segment
from duologue_align.segments.segment import AXES, Axis, Segment
from duologue_align.segments.summary import MiningSummary

EXAMPLES = 4
"""Segments drawn of each set."""
_HANDY_S = 45.0

_SAID: dict[Axis, str] = {
    "pause": "The user pauses inside its turn and the other side leaves it alone.",
    "turn": "The user's turn ends and the other side answers at once.",
    "backchannel": "The user holds the floor; the other side says short things only.",
    "interruption": "The user begins before the other side has finished; four turns.",
    "user_backchannel": "The other side holds the floor and the user says short things only. Should it go on? It did.",
    "hold": "The other side pauses inside its turn, the user waits, and it speaks on.",
}

_STYLE = """
.pause { fill: var(--band); }
.transfer { fill: var(--overlap); }
.sample { margin: 0 0 18px; break-inside: avoid; }
.sample .who { padding-top: 22px; line-height: 22px; }
.sample p { font-size: 13px; color: var(--quiet); overflow-wrap: anywhere; }
.sample q { color: var(--ink); }
.bar { display: inline-flex; width: 150px; height: 9px; background: var(--lane); border-radius: 2px; overflow: hidden; }
.bar i { display: block; height: 100%; }
.train { background: var(--user); } .dev { background: var(--agent); } .test { background: var(--median); }
.counts td:nth-child(4) { padding-left: 20px; }
"""


def render_page(summary: MiningSummary, segments: Sequence[Segment], *, seed: int = 0) -> str:
    """Draw the page.

    Args:
        summary: Counts, bad files and pace.
        segments: The segments that were kept.
        seed: Of the choice of examples.
    """
    title = "Mined segments"
    body = [_header(summary, title), html_section("counts", "What there is", _counts(summary) + _legend())]
    for axis in AXES:
        own = [segment for segment in segments if segment.axis == axis]
        body.append(html_section(axis, axis.replace("_", " "), f"<p>{_SAID[axis]}</p>{_examples(own, seed)}"))
    body.append(html_section("bad", "What could not be used", _bad(summary)))
    return html_page(title, "".join(body), style=_STYLE)


def _header(summary: MiningSummary, title: str) -> str:
    rate = summary.mining.hours_per_minute
    facts = [
        f"{summary.conversations} conversations, {summary.hours:.2f} h",
        f"{sum(count.kept for count in summary.axes.values())} segments",
        f"{len(summary.bad)} unusable",
        *([f"{rate:.2f} hours of audio a minute"] if rate else []),
        f"speech found by: {summary.rules['detector']}",
    ]
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return f'<header>\n<h1>{escape(title)}</h1>\n<ul class="facts">{items}</ul>\n</header>\n'


def _counts(summary: MiningSummary) -> str:
    most = max((count.kept for count in summary.axes.values()), default=0) or 1
    rows = []
    for axis, count in summary.axes.items():
        parts = "".join(
            f'<i class="{split}" style="width:{100 * count.splits[split] / most:.2f}%" '
            f'title="{split}: {count.splits[split]}"></i>'
            for split in SPLITS
        )
        splits = " / ".join(str(count.splits[split]) for split in SPLITS)
        middle = "-" if count.median_s is None else f"{count.median_s:.1f} s"
        rows.append(
            f'<tr><th scope="row"><a href="#{axis}">{axis.replace("_", " ")}</a></th>'
            f'<td class="num">{count.found}</td><td class="num">{count.kept}</td>'
            f'<td><span class="bar">{parts}</span></td><td class="num">{splits}</td>'
            f'<td class="num">{count.hours:.2f}</td><td class="num">{middle}</td></tr>'
        )
    head = (
        '<thead><tr><th scope="col">Set</th><th scope="col" class="num">Found</th><th scope="col" class="num">Kept</th>'
        '<th></th><th scope="col" class="num">train / dev / test</th><th scope="col" class="num">Hours</th>'
        '<th scope="col" class="num">Median</th></tr></thead>'
    )
    return f'<div class="scroll"><table class="counts">{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _legend() -> str:
    def key(shape: str, label: str) -> str:
        return f'<li><svg width="13" height="12" aria-hidden="true">{shape}</svg>{label}</li>'

    items = [
        key('<rect class="speech user" width="12" height="10" y="1" rx="2"/>', "user speaks"),
        key('<rect class="speech agent" width="12" height="10" y="1" rx="2"/>', "agent (recorded) speaks"),
        key('<rect class="pause" width="12" height="12"/>', "pause"),
        key('<rect class="transfer" width="12" height="12"/>', "the floor passes, with its offset"),
        key('<circle class="plain" cx="6" cy="6" r="4.5"/>', "backchannel"),
        key('<path class="plain" transform="translate(6 6)" d="M0-6L6 0L0 6L-6 0Z"/>', "interruption"),
        key('<rect class="good" width="9" height="9" x="2" y="2"/>', "yielded"),
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _examples(segments: Sequence[Segment], seed: int) -> str:
    if not segments:
        return '<p class="quiet">None was found.</p>'
    order = sorted(segments, key=lambda segment: hashlib.sha256(f"{seed}:page:{segment.id}".encode()).digest())
    handy = [segment for segment in order if segment.duration_s <= _HANDY_S] or order[:1]
    shown = handy[:EXAMPLES]
    width_s = 5.0 * math.ceil(max(segment.duration_s for segment in shown) / 5)
    return "".join(
        f'<div class="sample"><p>{_caption(segment)}</p>{render_segment(segment, width_s)}{_words(segment)}</div>'
        for segment in shown
    )


def _caption(segment: Segment) -> str:
    roles = ", roles swapped" if segment.is_swapped else ""
    return escape(
        f"{segment.conversation} at {clock(segment.start_s, 1)}, {segment.duration_s:.1f} s, {segment.split}{roles}"
    )


def _words(segment: Segment) -> str:
    sides = {"user": [], "agent": []}  # type: dict[str, list[str]]
    for line in segment.lines:
        sides[line.side].append(line.text)
    said = [f"{side}: <q>{escape(_cut(' '.join(texts)))}</q>" for side, texts in sides.items() if texts]
    return f"<p>{' '.join(said)}</p>" if said else ""


def _cut(text: str) -> str:
    return text if len(text) <= 240 else f"{text[:240].rsplit(' ', 1)[0]} ..."


def _bad(summary: MiningSummary) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(item.name)}</th><td class="quiet">{escape(item.reason)}</td></tr>'
        for item in summary.bad[:200]
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>' if rows else ""
