"""Sample conversations of a validation: stereo WAVs and one page to look at and listen to."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from duologue.errors import AudioError
from duologue.metrics.page import html_page
from duologue.metrics.timeline import IPU_BRIDGE, TICK_S
from duologue.replacing import replace_file
from duologue.types import SAMPLE_RATE_HZ
from duologue_align.rewards.situation import bridged_spans
from duologue_align.rl.trial import Take
from duologue_align.segments.lanes import render_segment

_STYLE = "audio { width: 100%; } .sample { margin: 0 0 24px; } .sample p { font-size: 13px; }"


def write_samples(folder: Path, takes: Sequence[Take], summary: dict[str, Any], *, step: int, count: int) -> Path:
    """Write index.html with the figures and, for the first takes of each axis, NAME.wav (left user, right agent).

    Args:
        folder: Folder, created.
        takes: Of a trial.
        summary: Of the same trial, `duologue_align.rl.trial.summarise`.
        step: Steps done.
        count: Conversations to write, taken from the axes in turn.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = _in_turn(takes, count)
    shown = "".join(_sample(folder, number, take) for number, take in enumerate(chosen))
    title = f"After {step} steps"
    page = html_page(title, f"<header><h1>{title}</h1></header>\n{_table(summary)}{shown}", style=_STYLE)
    replace_file(folder / "index.html", page.encode())
    rows = [take.row() for take in takes]
    replace_file(folder / "takes.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    return folder / "index.html"


def _in_turn(takes: Sequence[Take], count: int) -> list[Take]:
    seen: dict[str, int] = {}
    ranks = []
    for index, take in enumerate(takes):
        seen[take.segment.axis] = seen.get(take.segment.axis, 0) + 1
        ranks.append((seen[take.segment.axis], index))
    return [takes[index] for _, index in sorted(ranks)[:count]]


def _sample(folder: Path, number: int, take: Take) -> str:
    segment, name = take.segment, f"{number:02d}-{take.segment.axis}.wav"
    agent = take.heard.pcm
    try:
        user = segment.pcm("user")
    except AudioError:
        # The recording may have stayed where it was mined; the agent can be heard all the same.
        user = np.zeros_like(agent)
    stereo = np.clip(np.stack([user[: len(agent)], agent], axis=1), -1, 1)
    soundfile.write(folder / name, stereo, SAMPLE_RATE_HZ, subtype="PCM_16")
    spans = [
        (segment.start_s + start * TICK_S, segment.start_s + end * TICK_S)
        for start, end in bridged_spans(take.heard.activity, IPU_BRIDGE)
    ]
    drawn = replace(segment, agent_spans=tuple(spans), events=())
    width_s = 5.0 * math.ceil(segment.duration_s / 5)
    earned = ", ".join(f"{name} {value:.2f}" for name, value in take.graded.components.items())
    caption = f"{segment.axis}: {take.graded.total:.2f} ({earned})"
    return (
        f'<div class="sample"><p>{escape(caption)}</p>{render_segment(drawn, width_s)}'
        f'<audio controls preload="none" src="{name}"></audio><p>agent: <q>{escape(take.heard.text)}</q></p></div>\n'
    )


def _table(summary: dict[str, Any]) -> str:
    rows = [(axis.replace("_", " "), found) for axis, found in summary["axes"].items()]
    rows += [(name.replace("_", " "), found) for name, found in summary["rates"].items()]
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="num">{_number(found["value"])}</td>'
        f'<td class="num">{_number(found["low"])} to {_number(found["high"])}</td></tr>'
        for name, found in rows
    )
    head = '<thead><tr><th scope="col">Figure</th><th scope="col">Mean</th><th scope="col">95 %</th></tr></thead>'
    return f'<div class="scroll"><table>{head}<tbody>{lines}</tbody></table></div>\n'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
