"""How four agents that understand nothing, and a real person, fare under the interactivity metrics.

    python benchmarks/degenerate_agents.py USER.wav [AGENT.wav] [--json PATH]

USER.wav is the user's channel of a two-channel conversation, AGENT.wav the other person's (one more row). A value
outside the middle 90 % of human conversations carries a star. Prints what was measured, the table, and one JSON line
last.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from machine import cpu_name, git_hash, versions

from duologue.audio.resample import resample
from duologue.metrics.degenerate import DEGENERATE_AGENTS
from duologue.metrics.meter import measure
from duologue.metrics.types import HumanBand, InteractivityReport
from duologue.types import SAMPLE_RATE_HZ, Pcm

Cell = tuple[float | None, HumanBand | None]


def table_row(report: InteractivityReport) -> dict[str, Cell]:
    """Return the columns of the table: value and human band, then two published rules that the agents fool."""
    axes = {
        "takeover": report.pause.takeover_rate,
        "answered": report.turn.answered_rate,
        "missed": report.turn.missed_rate,
        "talked over": report.turn.talked_over_rate,
        "bc/min": report.backchannel.per_user_speech_min,
        "yield": report.interruption.yield_rate,
        "selectivity": report.selectivity.selectivity,
        "overlap": report.floor.overlap_share,
    }
    row: dict[str, Cell] = {name: (measure.value, measure.band) for name, measure in axes.items()}
    row["FTO p50"] = (report.turn.fto_s.p50, report.turn.fto_s.band)
    published = {column.name: column.measure.value for column in report.compat}
    row |= {f"FDB {name}": (published[f"turn-taking {name}"], None) for name in ("TOR", "latency")}
    return row | {"tau R_Y": (published["R_Y"], None)}


def format_cell(cell: Cell) -> str:
    """Return a value, starred where it lies outside the human band, or a dash."""
    value, band = cell
    if value is None:
        return "-"
    return f"{value:.2f}{'*' if band and not band.low <= value <= band.high else ''}"


def read_channel(path: Path) -> Pcm:
    """Return one channel of a recording at 24 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(np.ascontiguousarray(samples[:, 0]), rate, SAMPLE_RATE_HZ)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("user", type=Path)
    parser.add_argument("agent", type=Path, nargs="?")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    args = parser.parse_args()

    user = read_channel(args.user)
    agents = {name: speak(user) for name, speak in DEGENERATE_AGENTS.items()}
    detectors = dict.fromkeys(agents, "level")
    if args.agent:
        agents["human"], detectors["human"] = read_channel(args.agent), "speech"
    rows = {
        name: table_row(measure(user, pcm, SAMPLE_RATE_HZ, agent_detector=detectors[name]))
        for name, pcm in agents.items()
    }
    print(f"machine    {cpu_name()}; git {git_hash()}")
    print(f"user       {args.user.name}, {len(user) / SAMPLE_RATE_HZ:.1f} s, heard by the speech detector\n")
    print_table(rows)
    report = summarise(rows)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def print_table(rows: dict[str, dict[str, Cell]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"{'agent':16s}" + "".join(f"{column:>13s}" for column in columns))
    for name, row in rows.items():
        print(f"{name:16s}" + "".join(f"{format_cell(cell):>13s}" for cell in row.values()))
    bands = [band for _, band in next(iter(rows.values())).values()]
    limits = [f"{band.low:.2f}..{band.high:.2f}" if band else "" for band in bands]
    print(f"{'human 5-95 %':16s}" + "".join(f"{limit:>13s}" for limit in limits))
    print()


def summarise(rows: dict[str, dict[str, Cell]]) -> dict[str, Any]:
    """Return the result with where it was measured: values by agent and column, None where there is none."""
    return {
        "benchmark": "degenerate_agents",
        "machine": cpu_name(),
        "versions": versions(),
        "git": git_hash(),
        "agents": {name: {column: cell[0] for column, cell in row.items()} for name, row in rows.items()},
    }


if __name__ == "__main__":
    main()
