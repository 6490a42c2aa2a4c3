"""What is measured: every figure with its meaning, and what one conversation adds to each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from duologue.metrics import compat_fdb as fdb
from duologue.metrics.summary import build_report
from duologue.metrics.types import InteractivityReport, Measure, Unit
from duologue_align.evaluation.items import Item
from duologue_align.evaluation.take import Take
from duologue_align.evaluation.truth import backchannel_truth
from duologue_align.rewards.exchange import find_events
from duologue_align.rewards.situation import Situation, spans_to_activity
from duologue_align.statistics import Estimate, Interval, Resampling

Better = Literal["higher", "lower", ""]
Key = tuple[str, str]
"""(axis, name of the figure)."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a number means.

    Attributes:
        label: What it is called in tables.
        unit: Its unit; "score" has its range in the label.
        better: Which direction is better, or "" where neither is.
        is_median: Whether it is the median of times rather than a ratio of sums.
    """

    label: str
    unit: Unit | Literal["score"]
    better: Better = ""
    is_median: bool = False


FIGURES: Mapping[str, Figure] = {
    "reward": Figure("reward (0 to 1)", "score", "higher"),
    "takeover_rate": Figure("pauses taken", "rate", "lower"),
    "answered_rate": Figure("answered within 2 s", "rate", "higher"),
    "missed_rate": Figure("turns missed", "rate", "lower"),
    "talked_over_rate": Figure("turns talked over", "rate", "lower"),
    "fto_s": Figure("offset, median", "s", is_median=True),
    "backchannels_per_min": Figure("backchannels a minute of the user's speech", "per_min"),
    "yield_rate": Figure("yielded within 2 s", "rate", "higher"),
    "stop_latency_s": Figure("stop latency, median", "s", "lower", is_median=True),
    "response_latency_s": Figure("response latency, median", "s", is_median=True),
    "selectivity": Figure("talks on through mm-hm", "rate", "higher"),
    "overlap_share": Figure("overlap", "share"),
    "silence_share": Figure("mutual silence", "share"),
    "speech_share": Figure("agent speaks", "share"),
    "late_share": Figure("frames late", "share", "lower"),
    "judge": Figure("judge (0 to 2)", "score", "higher"),
    "fdb_tor_low": Figure("FDB TOR", "rate", "lower"),
    "fdb_tor_high": Figure("FDB TOR", "rate", "higher"),
    "fdb_latency_s": Figure("FDB latency, mean", "s", "lower"),
    "fdb_frequency": Figure("FDB backchannels a minute", "per_min", "higher"),
    "fdb_jsd": Figure("FDB JSD (0 to 0.83, 1 without any)", "score", "lower"),
}
"""Every figure by name; those of Full-Duplex-Bench keep that benchmark's definitions, holes included."""

STATIC: Mapping[str, Sequence[str]] = {
    "pause": ("takeover_rate", "fdb_tor_low"),
    "turn": ("answered_rate", "missed_rate", "talked_over_rate", "fto_s", "fdb_tor_high", "fdb_latency_s"),
    "backchannel": ("backchannels_per_min", "fdb_tor_low", "fdb_frequency", "fdb_jsd"),
    "interruption": ("yield_rate", "stop_latency_s", "response_latency_s", "fdb_tor_high", "fdb_latency_s"),
    "user_backchannel": ("selectivity",),
    "hold": ("speech_share",),
}
"""Figures of each axis on recorded users, besides reward and judge."""

DYNAMIC: Mapping[str, Sequence[str]] = {
    "pause": ("takeover_rate",),
    "turn": ("answered_rate", "missed_rate", "talked_over_rate", "fto_s"),
    "backchannel": ("backchannels_per_min",),
    "interruption": ("yield_rate", "stop_latency_s", "response_latency_s"),
    "user_backchannel": ("selectivity",),
    "floor": ("overlap_share", "silence_share", "speech_share"),
}
"""Figures of each axis with a user who reacts."""


@dataclass(slots=True)
class Tally:
    """Sums over one conversation, by axis and figure.

    Attributes:
        sums: (amount, out of) of the ratios.
        values: Times of the medians.
    """

    sums: dict[Key, tuple[float, float]] = field(default_factory=dict)
    values: dict[Key, list[float]] = field(default_factory=dict)

    def add(self, axis: str, name: str, amount: float, out_of: float = 1.0) -> None:
        """Add to a ratio; nan adds nothing."""
        if not math.isnan(amount):
            before = self.sums.get((axis, name), (0.0, 0.0))
            self.sums[axis, name] = (before[0] + amount, before[1] + out_of)

    def add_report(self, axes: Mapping[str, Sequence[str]], report: InteractivityReport) -> None:
        """Add the figures of some axes that a report holds."""
        for axis, names in axes.items():
            for name in names:
                self._add_figure(axis, name, report)

    def _add_figure(self, axis: str, name: str, report: InteractivityReport) -> None:
        if name in _TIMES:
            self.values.setdefault((axis, name), []).extend(_TIMES[name](report))
        elif name in _RATES:
            measure = _RATES[name](report)
            self.add(axis, name, round((measure.value or 0.0) * measure.count), measure.count)
        elif name in _SHARES:
            self.add(axis, name, (_SHARES[name](report).value or 0.0) * report.duration_s, report.duration_s)
        elif name == "backchannels_per_min":
            minutes = (report.user.speech_share.value or 0.0) * report.duration_s / 60
            self.add(axis, name, (report.backchannel.per_user_speech_min.value or 0.0) * minutes, minutes)

    def add_take(self, item: Item, take: Take) -> None:
        """Add what our event rules and those of Full-Duplex-Bench say about a take."""
        axis, names = item.axis, STATIC[item.axis]
        self.add_report({axis: names}, measure_activity(item.situation, take))
        chunks = take.spans_s if take.words is None else [(word.start_s, word.end_s) for word in take.words]
        after = [chunk for chunk in chunks if axis != "interruption" or chunk[0] >= item.focus_s[1]]
        if axis == "backchannel":
            words = None if take.words is None else chunks
            sample = fdb.backchannel_sample(take.spans_s, item.situation.duration_s, words)
            self.add(axis, "fdb_tor_low", sample.takes_turn)
            self.add(axis, "fdb_frequency", len(sample.kept), item.situation.duration_s / 60)
            truth = backchannel_truth(item)
            if truth is not None:
                distance = fdb.jensen_shannon_distance(sample.kept, item.situation.duration_s, truth)
                self.add(axis, "fdb_jsd", distance)
            return
        is_taken = fdb.takes_turn(after, has_words=take.words is not None)
        for name in ("fdb_tor_low", "fdb_tor_high"):
            if name in names:
                self.add(axis, name, is_taken)
        if "fdb_latency_s" in names and is_taken:
            self.add(axis, "fdb_latency_s", fdb.latency_s(after, item.focus_s[1]))


_TIMES: Mapping[str, Callable[[InteractivityReport], Sequence[float]]] = {
    "fto_s": lambda report: report.turn.fto_s.values,
    "stop_latency_s": lambda report: report.interruption.stop_latency_s.values,
    "response_latency_s": lambda report: report.interruption.response_latency_s.values,
}
_RATES: Mapping[str, Callable[[InteractivityReport], Measure]] = {
    "takeover_rate": lambda report: report.pause.takeover_rate,
    "answered_rate": lambda report: report.turn.answered_rate,
    "missed_rate": lambda report: report.turn.missed_rate,
    "talked_over_rate": lambda report: report.turn.talked_over_rate,
    "yield_rate": lambda report: report.interruption.yield_rate,
    "selectivity": lambda report: report.selectivity.selectivity,
}
_SHARES: Mapping[str, Callable[[InteractivityReport], Measure]] = {
    "overlap_share": lambda report: report.floor.overlap_share,
    "silence_share": lambda report: report.floor.silence_share,
    "speech_share": lambda report: report.agent.speech_share,
}


def measure_activity(situation: Situation, take: Take) -> InteractivityReport:
    """Return the report of a take beside the recorded user, by the event rules of `duologue.metrics`."""
    log = find_events(situation.user, spans_to_activity(take.spans_s, situation.ticks))
    return build_report(log, situation.duration_s)


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure as found.

    Attributes:
        estimate: Its value and resamples.
        count: Events behind it.
    """

    estimate: Estimate
    count: int

    @property
    def interval(self) -> Interval:
        """Value and 95 % interval."""
        return self.estimate.interval


def read_figures(tallies: Sequence[Tally], resampling: Resampling) -> dict[Key, Reading]:
    """Return every figure that some tallies, one per conversation, have anything on."""
    found: dict[Key, Reading] = {}
    for key in dict.fromkeys(key for tally in tallies for key in tally.sums):
        parts = [tally.sums.get(key, (0.0, 0.0)) for tally in tallies]
        found[key] = Reading(resampling.ratio(parts), _count(key[1], parts))
    for key in dict.fromkeys(key for tally in tallies for key in tally.values):
        times = [tally.values.get(key, []) for tally in tallies]
        found[key] = Reading(resampling.median(times), sum(len(part) for part in times))
    return found


def _count(name: str, parts: Sequence[tuple[float, float]]) -> int:
    unit = FIGURES[name].unit if name in FIGURES else "score"
    if unit == "per_min":
        return round(sum(amount for amount, _ in parts))
    if unit == "share":
        return sum(out_of > 0 for _, out_of in parts)
    return round(sum(out_of for _, out_of in parts))
