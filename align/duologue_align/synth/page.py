"""One HTML page to listen to the first dialogues of a data set and to look at who speaks when."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from duologue_align.synth.dataset import paths_of, read_facts

PIXELS_PER_S = 14
_LANES = {"agent": 34, "user": 74}
_LABELS = {
    "backchannel": "bc",
    "interruption": "interruption",
    "agent_yielded": "yielded",
    "agent_held": "held",
    "takeover": "takeover",
    "turn_missed": "no answer",
}
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}
section{border-top:1px solid #ddd;padding:1rem 0} .lanes{overflow-x:auto} audio{width:100%} small{color:#666}
td{padding:0 .6rem 0 0;vertical-align:top} td:first-child{font-variant-numeric:tabular-nums;color:#666}
.agent{fill:#2a6fb0} .user{fill:#c2662d} text{font:10px system-ui;fill:#444} line{stroke:#ccc} .now{stroke:#111}
tr.agent td{color:#1f5488} tr.user td{color:#8e4a1f}
"""
_SCRIPT = """
for (const section of document.querySelectorAll("section")) {
  const [audio, lanes, now] = ["audio", "svg", ".now"].map(part => section.querySelector(part));
  const show = () => {
    for (const end of ["x1", "x2"]) now.setAttribute(end, audio.currentTime * PX);
    if (!audio.paused) requestAnimationFrame(show);
  };
  audio.addEventListener("play", show);
  audio.addEventListener("seeked", show);
  lanes.addEventListener("click", event => {
    audio.currentTime = (event.clientX - lanes.getBoundingClientRect().left) / PX;
    audio.play();
  });
}
"""


def write_page(out: Path, *, first: int, audio: str) -> Path:
    """Write OUT/index.html and return its path; the page plays the recordings beside it.

    Args:
        out: Folder of the data set.
        first: Number of dialogues to show.
        audio: "wav" or "flac".

    Raises:
        ConfigError: The folder holds no dialogues.
    """
    shown = read_facts(out, first)
    sections = "".join(_section(facts, paths_of(Path(), facts["number"], audio)[0].as_posix()) for facts in shown)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Synthetic dialogues</title>'
        f"<style>{_STYLE}</style><h1>Synthetic dialogues</h1>"
        "<p>Left channel and upper lane: the agent. Right channel and lower lane: the user. Click a lane to listen "
        f"from there. bc: backchannel.</p>{sections}"
        f"<script>{_SCRIPT.replace('PX', str(PIXELS_PER_S))}</script></html>\n"
    )
    path = out / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _section(facts: dict[str, Any], audio: str) -> str:
    faults = [name.replace("_", " ") for name, is_on in facts["behaviour"].items() if is_on]
    manners = "The agent is well behaved" if not faults else "The agent at times " + ", ".join(faults)
    line = facts["augmentation"]
    user = f"user {facts['voices']['user']}, {line['channel']} channel, noise: {line['noise'] or 'none'}"
    rows = "".join(
        f'<tr class="{turn["side"]}"><td>{turn["start_s"]:.1f}</td><td>{turn["side"]}</td>'
        f"<td>{html.escape(turn['text'])} <small>{html.escape(turn['reason'])}</small></td></tr>"
        for turn in facts["turns"]
    )
    return (
        f"<section><h2>Dialogue {facts['number']}</h2><p>{manners}; {user}.</p>"
        f'<audio controls preload="none" src="{html.escape(audio)}"></audio><div class="lanes">{_lanes(facts)}</div>'
        f"<details><summary>What was said</summary><table>{rows}</table></details></section>"
    )


def _lanes(facts: dict[str, Any]) -> str:
    width = facts["duration_s"] * PIXELS_PER_S
    parts = [f'<svg width="{width:.0f}" height="112" role="img" aria-label="who speaks when">']
    for second in range(0, int(facts["duration_s"]) + 1, 10):
        x = second * PIXELS_PER_S
        parts.append(f'<line x1="{x}" y1="26" x2="{x}" y2="98"/><text x="{x + 2}" y="110">{second} s</text>')
    for side, y in _LANES.items():
        for start_s, end_s in facts["spans"][side]:
            x, length = start_s * PIXELS_PER_S, max(1.0, (end_s - start_s) * PIXELS_PER_S)
            parts.append(f'<rect class="{side}" x="{x:.1f}" y="{y}" width="{length:.1f}" height="18"/>')
    for event in facts["events"]:
        label = _LABELS.get(event["kind"])
        if label is not None:
            y = 22 if event["side"] == "agent" else 70
            parts.append(f'<text x="{event["start_s"] * PIXELS_PER_S:.1f}" y="{y}">{label}</text>')
    parts.append('<line class="now" x1="0" y1="26" x2="0" y2="98"/></svg>')
    return "".join(parts)
