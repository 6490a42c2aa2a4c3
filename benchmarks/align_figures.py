"""What kept alignment runs show together: figures before and after, with intervals over runs and users; verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.metrics.bands import BANDS
from duologue_align.evaluation.measures import FIGURES
from duologue_align.rl.grading import JUDGED
from duologue_align.rl.trial import FIGURES as RATES
from duologue_align.statistics import Estimate, Resampling

AXES = ("pause", "turn", "backchannel", "interruption")
STAGES = ("before", "after")
LEADING = {
    "pause": "takeover_rate",
    "turn": "answered_rate",
    "backchannel": "backchannels_per_min",
    "interruption": "yield_rate",
}
"""The figure by which an axis is judged with simulated users."""
HUMAN_RATE = BANDS["backchannels_per_speech_min"].median
"""Backchannels a minute of the user's speech; nearer to it is better: were more better, mere "mm-hm" would win."""
LEAST_RATE = 0.1
"""A rate below it counts as this one, so that its ratio to people's stays finite."""
OWN_AXIS = {"yield_rate_2s": "interruption", "selectivity": "user_backchannel", "pause_takeover_rate": "pause"}
"""Rates counted on the segments that are about them alone."""
Run = Mapping[str, Any]


def summarise_variant(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the runs of one variant show together."""
    static, dynamic = _Static(runs), _dynamic(runs)
    axes = {axis: static.axis(axis) for axis in static.axes}
    judge = static.figure(lambda take: _number(take["components"].get(JUDGED)))
    rates = {name: static.rate(name, OWN_AXIS.get(name)) for name in RATES}
    rates["fto_median_s"] = static.times(lambda take: take["fto_s"])
    rates["speech_share"] = static.figure(lambda take: (take["speech_share"], 1.0))
    improved = sum(axes[axis]["is_improved"] for axis in AXES if axis in axes)
    change = judge["delta"]
    is_worse = change["high"] is not None and change["high"] < 0
    live = None if dynamic is None else dynamic["axes_improved"]
    return {
        "axes_improved": improved,
        "axes": axes,
        "judge_delta": change["value"],
        "judge_delta_ci": [change["low"], change["high"]],
        "judge": judge,
        "is_judge_worse": is_worse,
        "yield_rate": rates["yield_rate_2s"]["after"]["value"],
        "backchannel_selectivity": rates["selectivity"]["after"]["value"],
        "rates": rates,
        "dynamic": dynamic,
        "is_reached": improved == len(AXES) and not is_worse and live == len(AXES),
        "seeds": len(runs),
        "hours": sum(run["seconds"] for run in runs) / 3600,
        "commits": sorted({run["identity"]["git"] for run in runs}),
    }


class _Static:
    """Conversations with recorded users, drawn with all their segments, in all runs alike."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        takes = [take for run in runs for stage in STAGES for take in run[stage]]
        self.axes = list(dict.fromkeys(take["axis"] for take in takes))
        self._names = sorted({take["conversation"] for take in takes})
        self._resampling = Resampling.crossed(len(runs), range(len(self._names)))

    def axis(self, axis: str) -> dict[str, Any]:
        """Return an axis' reward by rules."""
        found = self.figure(lambda take: _number(take["rules"]) if take["axis"] == axis else (0.0, 0.0))
        return found | {"is_improved": _is_apart(found, 1)}

    def figure(self, part: Any) -> dict[str, Any]:
        """Return a ratio of sums; `part` gives a take's two."""
        return _pair(*(self._resampling.ratio(self._sums(stage, part)) for stage in STAGES))

    def rate(self, name: str, axis: str | None) -> dict[str, Any]:
        """Return a rate, counted on one axis' segments or on all."""
        return self.figure(lambda take: take["rates"][name] if axis in (None, take["axis"]) else (0.0, 0.0))

    def times(self, part: Any) -> dict[str, Any]:
        """Return a median; `part` gives a take's values."""
        return _pair(*(self._resampling.median(self._values(stage, part)) for stage in STAGES))

    def _sums(self, stage: str, part: Any) -> list[tuple[float, float]]:
        cells = {(run, name): [0.0, 0.0] for run in range(len(self._runs)) for name in self._names}
        for number, run in enumerate(self._runs):
            for take in run[stage]:
                amount, out_of = part(take)
                cell = cells[number, take["conversation"]]
                cell[0], cell[1] = cell[0] + amount, cell[1] + out_of
        return [(cell[0], cell[1]) for cell in cells.values()]

    def _values(self, stage: str, part: Any) -> list[list[float]]:
        cells: dict[Any, list[float]] = {(run, name): [] for run in range(len(self._runs)) for name in self._names}
        for number, run in enumerate(self._runs):
            for take in run[stage]:
                cells[number, take["conversation"]] += part(take)
        return list(cells.values())


def _dynamic(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Return every figure with simulated users, drawn by voice, in all runs alike; None unless all runs have them."""
    if not all(run.get("dynamic") for run in runs):
        return None
    voices = runs[0]["dynamic"]["voices"]
    order = {name: number for number, name in enumerate(dict.fromkeys(voices))}
    resampling = Resampling.crossed(len(runs), [order[name] for name in voices])
    estimates: dict[tuple[str, str], list[Estimate]] = {}
    for kind in ("sums", "values"):
        tallies = {stage: [tally[kind] for run in runs for tally in run["dynamic"][stage]] for stage in STAGES}
        for key in dict.fromkeys(key for own in tallies.values() for tally in own for key in tally):
            axis, _, name = key.partition(".")
            estimates[axis, name] = [
                resampling.ratio([tally.get(key, (0.0, 0.0)) for tally in tallies[stage]])
                if kind == "sums"
                else resampling.median([tally.get(key, []) for tally in tallies[stage]])
                for stage in STAGES
            ]
    table: dict[str, dict[str, Any]] = {}
    for (axis, name), found in estimates.items():
        table.setdefault(axis, {})[name] = _pair(*found)
    axes = {
        axis: {"figure": name, **table[axis][name], "is_improved": _is_better(name, *estimates[axis, name])}
        for axis, name in LEADING.items()
        if (axis, name) in estimates
    }
    improved = sum(found["is_improved"] for found in axes.values())
    return {"axes_improved": improved, "axes": axes, "figures": table, "conversations": len(voices)}


def _pair(before: Estimate, after: Estimate) -> dict[str, Any]:
    estimates = {"before": before, "after": after, "delta": after.minus(before)}
    return {name: asdict(estimate.interval) for name, estimate in estimates.items()}


def _is_apart(found: Mapping[str, Any], sign: int) -> bool:
    before, after = found["before"], found["after"]
    if before["value"] is None or after["value"] is None:
        return False
    return bool(after["low"] > before["high"]) if sign > 0 else bool(after["high"] < before["low"])


def _is_better(name: str, before: Estimate, after: Estimate) -> bool:
    if name == "backchannels_per_min":
        return _is_apart(_pair(_from_people(before), _from_people(after)), -1)
    return _is_apart(_pair(before, after), -1 if FIGURES[name].better == "lower" else 1)


def _from_people(rate: Estimate) -> Estimate:
    """Return how many times more or less often than people, as a logarithm."""

    def distance(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.abs(np.log(np.maximum(value, LEAST_RATE) / HUMAN_RATE))

    return Estimate(None if rate.value is None else float(distance(rate.value)), distance(rate.draws))


def _number(value: float | None) -> tuple[float, float]:
    return (0.0, 0.0) if value is None else (value, 1.0)


def print_table(summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Print every variant: rewards by axis, then the rates, then what simulated users met, then what did not move."""
    axes = list(dict.fromkeys(axis for summary in summaries.values() for axis in summary["axes"]))
    print(f"{'variant':24s}{'seeds':>6s}{'hours':>7s}" + "".join(f"{axis:>28s}" for axis in axes) + f"{'judge':>24s}")
    for name, summary in summaries.items():
        cells = "".join(f"{_cell(summary['axes'].get(axis)):>28s}" for axis in axes)
        print(f"{name:24s}{summary['seeds']:6d}{summary['hours']:7.2f}{cells}{_signed(summary['judge']):>24s}")
    print("\nrules' reward before > after [95 %], 0 to 1; * where the intervals before and after do not overlap")
    for name, summary in summaries.items():
        print(f"{name}: " + ", ".join(f"{key} {_short(found)}" for key, found in summary["rates"].items()))
    print("\nwith simulated users, by the leading figure of each axis")
    for name, summary in summaries.items():
        live = summary["dynamic"]
        shown = (
            "no conversations"
            if live is None
            else ", ".join(f"{axis} {found['figure']} {_cell(found)}" for axis, found in live["axes"].items())
        )
        print(f"{name}: {shown}")
    print()
    for name, summary in summaries.items():
        print(f"{name}: {_verdict(summary)}")


def _verdict(summary: Mapping[str, Any]) -> str:
    def still(part: Mapping[str, Any]) -> str:
        found = [axis for axis in AXES if axis not in part["axes"] or not part["axes"][axis]["is_improved"]]
        return f"{part['axes_improved']} of {len(AXES)} axes better" + (f" (not {', '.join(found)})" if found else "")

    live = summary["dynamic"]
    parts = [f"recorded users: {still(summary)}"]
    parts.append("simulated users: none" if live is None else f"simulated users: {still(live)}")
    parts.append("judge worse" if summary["is_judge_worse"] else "judge not worse")
    return ("reached; " if summary["is_reached"] else "not reached; ") + "; ".join(parts)


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None or found["before"]["value"] is None or found["after"]["value"] is None:
        return "-"
    before, after = found["before"], found["after"]
    mark = "*" if found["is_improved"] else " "
    return f"{before['value']:.2f} > {after['value']:.2f} [{after['low']:.2f}, {after['high']:.2f}]{mark}"


def _signed(found: Mapping[str, Any]) -> str:
    change = found["delta"]
    return "-" if change["value"] is None else f"{change['value']:+.3f} [{change['low']:+.2f}, {change['high']:+.2f}]"


def _short(found: Mapping[str, Any]) -> str:
    values = [found[stage]["value"] for stage in STAGES]
    return " > ".join("-" if value is None else f"{value:.2f}" for value in values)
