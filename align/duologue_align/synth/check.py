"""Measure the timing of a data set with duologue's own event machine and hold it against humans.

The machine sees the ground-truth activity, so no detector's error enters. Only the well-behaved dialogues are held
against the human figures; the agent's faults in the others are meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.metrics.events import EventMachine

TICK_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Where a figure of the data set may lie.

    Attributes:
        name: Of the figure.
        human: The human figure.
        low: Least value accepted.
        high: Greatest value accepted.
        why: Why the band lies beside the human figure, or "".
    """

    name: str
    human: float
    low: float
    high: float
    why: str = ""


BANDS = (
    Band(name="fto_p10_s", human=-0.36, low=-0.60, high=-0.15),
    Band(name="fto_p25_s", human=-0.10, low=-0.25, high=0.05),
    Band(name="fto_p50_s", human=0.14, low=0.02, high=0.26),
    Band(name="fto_p75_s", human=0.35, low=0.20, high=0.60),
    Band(name="fto_p90_s", human=0.65, low=0.45, high=1.30),
    Band(name="fto_overlapped_share", human=0.339, low=0.24, high=0.46),
    Band(name="pause_p50_s", human=0.48, low=0.38, high=0.58),
    Band(name="pause_p90_s", human=1.02, low=0.80, high=1.30),
    Band(name="gap_p50_s", human=0.27, low=0.20, high=0.42),
    Band(name="overlap_share", human=0.038, low=0.022, high=0.058),
    Band(name="silence_share", human=0.185, low=0.14, high=0.34, why="a short dialogue ends in silence"),
    Band(name="agent_backchannels_per_user_min", human=3.95, low=2.6, high=5.5),
    Band(name="user_backchannels_per_agent_min", human=3.95, low=2.2, high=5.5),
    Band(name="selectivity", human=0.956, low=0.75, high=1.0, why="short overlaps at its end count as stops"),
    Band(name="backchannel_offset_p50_s", human=0.09, low=-0.12, high=0.2),
    Band(name="yield_rate", human=0.833, low=0.8, high=1.0),
    Band(name="answered_rate", human=0.714, low=0.75, high=1.0, why="an agent answers more than a person"),
    Band(name="takeover_rate", human=0.115, low=0.0, high=0.15),
    Band(name="yield_p50_s", human=0.43, low=0.20, high=0.60),
)
"""The figures that a data set is held against. Source: swb figures of 2,437 conversations, see `timing.json`."""


@dataclass(slots=True)
class Figures:
    """What was counted over some dialogues.

    Attributes:
        hours: Dialogue measured.
        values: Event values in seconds by event kind (and side, for pauses).
        counts: Events by kind.
        speech_s: Speech per side.
        overlap_s: Time with both speaking.
        silence_s: Time with neither speaking.
    """

    hours: float = 0.0
    values: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    speech_s: dict[str, float] = field(default_factory=lambda: {"user": 0.0, "agent": 0.0})
    overlap_s: float = 0.0
    silence_s: float = 0.0

    def add(self, facts: dict[str, Any]) -> None:
        """Measure one dialogue."""
        ticks = round(facts["duration_s"] / TICK_S)
        active = {side: activity(facts["spans"][side], ticks) for side in ("user", "agent")}
        machine = EventMachine()
        machine.advance(active["user"], active["agent"])
        machine.finish()
        for event in machine.log:
            for name in (event.kind, f"{event.side}_{event.kind}"):
                self.counts[name] = self.counts.get(name, 0) + 1
                value_s = event.end_s - event.start_s if event.value_s is None else event.value_s
                self.values.setdefault(name, []).append(value_s)
        self.hours += facts["duration_s"] / 3600
        bridged = {side: activity(_bridged(facts["spans"][side]), ticks) for side in ("user", "agent")}
        for side in ("user", "agent"):
            self.speech_s[side] += float(bridged[side].sum()) * TICK_S
        self.overlap_s += float((bridged["user"] & bridged["agent"]).sum()) * TICK_S
        self.silence_s += float((~bridged["user"] & ~bridged["agent"]).sum()) * TICK_S

    def summary(self) -> dict[str, float]:
        """Return the figures by name; those without any event are left out."""
        found: dict[str, float] = {}
        for kind, name, shares in (
            ("floor_transfer", "fto", (5, 10, 25, 50, 75, 90, 95)),
            ("pause", "pause", (10, 50, 90)),
            ("gap", "gap", (50, 90)),
            ("overlap", "overlap", (50, 95)),
            ("agent_floor_transfer", "agent_fto", (10, 50, 90)),
            ("agent_yielded", "yield", (50, 90)),
            ("agent_backchannel", "backchannel_offset", (5, 25, 50, 75, 95)),
        ):
            values = self.values.get(kind, [])
            found |= {f"{name}_p{share}_s": float(np.percentile(values, share)) for share in shares if values}
        offsets = self.values.get("floor_transfer", [])
        if offsets:
            found["fto_overlapped_share"] = float(np.mean(np.array(offsets) < 0))
        total_s = self.hours * 3600
        found |= {"overlap_share": self.overlap_s / total_s, "silence_share": self.silence_s / total_s}
        for side in ("user", "agent"):
            other = "agent" if side == "user" else "user"
            found[f"{side}_speech_share"] = self.speech_s[side] / total_s
            if self.speech_s[other] > 0:
                per_min = self.counts.get(f"{side}_backchannel", 0) / (self.speech_s[other] / 60)
                found[f"{side}_backchannels_per_{other}_min"] = per_min
        for kind in ("pause", "gap", "overlap", "floor_transfer", "interruption"):
            found[f"{kind}s_per_min"] = self.counts.get(kind, 0) / (total_s / 60)
        for rate, good, bad in (
            ("takeover_rate", ("takeover",), ("pause_kept",)),
            ("answered_rate", ("turn_answered",), ("turn_missed", "turn_talked_over")),
            ("yield_rate", ("agent_yielded",), ("agent_held",)),
            ("selectivity", ("agent_ignored_backchannel",), ("agent_stopped_for_backchannel",)),
        ):
            hits, misses = (sum(self.counts.get(kind, 0) for kind in kinds) for kinds in (good, bad))
            if hits + misses:
                found[rate] = hits / (hits + misses)
        return found


def measure_facts(dialogues: Iterable[dict[str, Any]]) -> Figures:
    """Measure dialogues, given as their facts."""
    figures = Figures()
    for facts in dialogues:
        figures.add(facts)
    return figures


def failures(summary: dict[str, float], bands: Sequence[Band] = BANDS) -> list[str]:
    """Return one line per figure that is missing or outside its band."""
    lines = []
    for band in bands:
        value = summary.get(band.name)
        if value is None:
            lines.append(f"{band.name}: nothing to measure; write more dialogues")
        elif not band.low <= value <= band.high:
            lines.append(f"{band.name} is {value:.3f}, outside {band.low:g} to {band.high:g} (humans {band.human:g})")
    return lines


def activity(spans: Iterable[Sequence[float]], ticks: int) -> npt.NDArray[np.bool_]:
    """Return which ticks of 10 ms lie in a span, shape [ticks]."""
    active = np.zeros(ticks, dtype=np.bool_)
    for start_s, end_s in spans:
        active[round(start_s / TICK_S) : round(end_s / TICK_S)] = True
    return active


def table(summary: dict[str, float]) -> str:
    """Return the figures as text, those with a band first."""
    lines = [f"{'figure':34}{'here':>9}{'human':>9}   accepted"]
    banded = {band.name for band in BANDS}
    for band in BANDS:
        value = summary.get(band.name)
        shown = "-" if value is None else f"{value:.3f}"
        note = f"  ({band.why})" if band.why else ""
        lines.append(f"{band.name:34}{shown:>9}{band.human:>9.3f}   {band.low:g} to {band.high:g}{note}")
    lines += [f"{name:34}{value:>9.3f}" for name, value in summary.items() if name not in banded]
    return "\n".join(lines)


def _bridged(spans: Sequence[Sequence[float]]) -> list[list[float]]:
    merged: list[list[float]] = []
    for start_s, end_s in spans:
        if merged and start_s - merged[-1][1] <= 0.2:
            merged[-1][1] = max(merged[-1][1], end_s)
        else:
            merged.append([start_s, end_s])
    return merged
