"""Derive the human reference bands of `duologue.metrics.bands` from who-speaks-when timelines of human phone calls.

    python benchmarks/human_bands.py human_turn_timing.npz [--every 1] [--json PATH]

The timing file has one row per IPU: conversation, channel (0 or 1), start_s, end_s, is_backchannel (1, 0, or -1 where
nobody annotated). Each conversation is measured twice, with either person in the agent's place, by the rules that
measure an agent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duologue.metrics.events import EventMachine
from duologue.metrics.summary import build_report
from duologue.metrics.types import InteractivityReport, Measure

MIN_EVENTS = 5
"""A conversation counts for a rate only with this many opportunities."""
QUANTILES = (0.05, 0.5, 0.95)

Ticks = npt.NDArray[np.bool_]


def load_activity(path: Path, every: int = 1) -> Iterator[tuple[int, Ticks]]:
    """Yield (conversation, activity [2, ticks]) for every n-th conversation of a timing file."""
    with np.load(path) as data:
        conversation, channel = data["conversation"], data["channel"]
        starts, ends = (np.rint(data[name] * 100).astype(int) for name in ("start_s", "end_s"))
    borders = np.searchsorted(conversation, np.arange(conversation[-1] + 2))
    for number in range(0, len(borders) - 1, every):
        rows = slice(borders[number], borders[number + 1])
        if rows.start == rows.stop:
            continue
        activity = np.zeros((2, ends[rows].max() + 200), dtype=np.bool_)
        for side, start, end in zip(channel[rows], starts[rows], ends[rows], strict=True):
            activity[side, start:end] = True
        yield number, activity


def measure_activity(user: Ticks, agent: Ticks) -> InteractivityReport:
    """Return the report of a conversation given as activity."""
    machine = EventMachine()
    machine.advance(user, agent)
    machine.finish()
    return build_report(machine.log, machine.now_s)


def per_conversation(report: InteractivityReport) -> dict[str, float]:
    """Return the measures of which a band is taken over conversations."""
    rates: dict[str, Measure] = {
        "takeover_rate": report.pause.takeover_rate,
        "answered_rate": report.turn.answered_rate,
        "missed_rate": report.turn.missed_rate,
        "talked_over_rate": report.turn.talked_over_rate,
        "brief_answer_rate": report.turn.brief_answer_rate,
        "unplaced_rate": report.backchannel.unplaced_rate,
        "yield_rate": report.interruption.yield_rate,
        "selectivity": report.selectivity.selectivity,
    }
    always = {
        "speech_share": report.agent.speech_share,
        "ipus_per_min": report.agent.ipus_per_min,
        "utterances_per_min": report.agent.utterances_per_min,
        "pauses_per_min": report.agent.pauses_per_min,
        "overlap_share": report.floor.overlap_share,
        "silence_share": report.floor.silence_share,
        "gaps_per_min": report.floor.gaps_per_min,
        "overlaps_per_min": report.floor.overlaps_per_min,
        "backchannels_per_speech_min": report.backchannel.per_user_speech_min,
    }
    counted = always | {name: measure for name, measure in rates.items() if measure.count >= MIN_EVENTS}
    return {name: measure.value for name, measure in counted.items() if measure.value is not None}


def pooled(report: InteractivityReport) -> dict[str, tuple[float, ...]]:
    """Return the times of which a band is taken over all events."""
    return {
        "fto_s": report.floor.fto_s.values,
        "gap_s": report.floor.gap_s.values,
        "overlap_s": report.floor.overlap_s.values,
        "ipu_s": report.agent.ipu_s.values,
        "pause_s": report.agent.pause_s.values,
        "placement_s": report.backchannel.placement_s.values,
        "stop_latency_s": report.interruption.stop_latency_s.values,
        "response_latency_s": report.interruption.response_latency_s.values,
    }


def derive_bands(path: Path, every: int = 1) -> dict[str, tuple[float, float, float]]:
    """Return (5 %, 50 %, 95 %) by name of measure."""
    values: dict[str, list[float]] = {}
    for _, activity in load_activity(path, every):
        for user, agent in ((0, 1), (1, 0)):
            report = measure_activity(activity[user], activity[agent])
            for name, value in per_conversation(report).items():
                values.setdefault(name, []).append(value)
            for name, times in pooled(report).items():
                values.setdefault(name, []).extend(times)
    return {name: tuple(np.quantile(found, QUANTILES).round(3).tolist()) for name, found in sorted(values.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("timing", type=Path)
    parser.add_argument("--every", type=int, default=1, help="measure every n-th conversation")
    parser.add_argument("--json", type=Path, help="write the bands here as well")
    args = parser.parse_args()
    bands = derive_bands(args.timing, args.every)
    for name, (low, median, high) in bands.items():
        print(f"{name:28s} {low:8.3f} {median:8.3f} {high:8.3f}")
    if args.json:
        args.json.write_text(json.dumps(bands), encoding="utf-8")
    print(json.dumps(bands))


if __name__ == "__main__":
    main()
