"""What one conversation says about an agent, in numbers that add up over conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.metrics.types import InteractivityReport, Measure
from duologue_align.statistics import Interval, bootstrap, pooled_median, ratio

RATES = ("answered_within_2s", "pause_takeover_rate", "backchannels_per_min", "yield_rate_2s", "selectivity")
"""Rates of `Outcome.parts`, in the order of the tables."""
WANTED: dict[str, tuple[float, float]] = {
    "answered_within_2s": (0.85, 1.0),
    "fto_median_s": (0.0, 0.8),
    "pause_takeover_rate": (0.0, 0.40),
    "backchannels_per_min": (0.5, 6.0),
    "yield_rate_2s": (0.60, 1.0),
    "speech_wer_vs_monologue": (0.0, 0.20),
}
"""Where the figures of a good agent lie."""


@dataclass(slots=True)
class Outcome:
    """Sums over the conversations with one recorded user.

    Attributes:
        parts: (sum, out of) per rate; "speech_wer_vs_monologue" holds (word errors, words).
        fto_s: Offsets of the agent's answers.
    """

    parts: dict[str, tuple[float, float]] = field(default_factory=dict)
    fto_s: list[float] = field(default_factory=list)

    def add(self, name: str, amount: float, out_of: float) -> None:
        """Add to a rate."""
        before = self.parts.get(name, (0.0, 0.0))
        self.parts[name] = (before[0] + amount, before[1] + out_of)

    def add_report(self, report: InteractivityReport) -> None:
        """Add a conversation's report."""
        self._add_measure("answered_within_2s", report.turn.answered_rate)
        self._add_measure("pause_takeover_rate", report.pause.takeover_rate)
        self._add_measure("yield_rate_2s", report.interruption.yield_rate)
        self._add_measure("selectivity", report.selectivity.selectivity)
        minutes = report.duration_s * (report.user.speech_share.value or 0.0) / 60
        rate = report.backchannel.per_user_speech_min.value or 0.0
        self.add("backchannels_per_min", rate * minutes, minutes)
        self.fto_s += report.turn.fto_s.values

    def _add_measure(self, name: str, measure: Measure) -> None:
        self.add(name, round((measure.value or 0.0) * measure.count), measure.count)


def figures(outcomes: Sequence[Outcome], *, seed: int = 0) -> dict[str, Interval]:
    """Return every figure with its interval over recorded users."""
    found = {}
    for name in (*RATES, "speech_wer_vs_monologue"):
        parts = [outcome.parts.get(name, (0.0, 0.0)) for outcome in outcomes]
        found[name] = bootstrap(parts, ratio, seed=seed)
    found["fto_median_s"] = bootstrap([outcome.fto_s for outcome in outcomes], pooled_median, seed=seed)
    return found


def meets(name: str, interval: Interval) -> bool | None:
    """Tell whether a figure lies where a good agent's does; None where it is unknown or nothing is wanted of it."""
    if name not in WANTED or interval.value is None:
        return None
    low, high = WANTED[name]
    return low <= interval.value <= high


@dataclass(frozen=True, slots=True)
class Exchange:
    """A turn of the user and what the agent said to it."""

    turn: str
    user: str
    reply: str


def exchanges(
    turns: Sequence[Mapping[str, Any]],
    transcript: Sequence[tuple[float, str]],
    *,
    dialogue: str,
    with_unanswered: bool = False,
) -> list[Exchange]:
    """Pair the user's turns with what the agent says from 1 s before their end until the user's next turn ends.

    Args:
        turns: "side", "start_s", "end_s" and "text" of both sides' turns.
        transcript: The agent's text, (time, piece).
        dialogue: Name of the dialogue, so that a turn has the same name whatever the seed.
        with_unanswered: Whether to keep turns to which nothing was said, with an empty reply.
    """
    users = sorted((turn for turn in turns if turn["side"] == "user"), key=lambda turn: float(turn["end_s"]))
    found = []
    for index, turn in enumerate(users):
        begin = turn["end_s"] - 1.0
        end = users[index + 1]["end_s"] - 1.0 if index + 1 < len(users) else float("inf")
        reply = "".join(piece for at_s, piece in transcript if begin <= at_s < end).strip()
        if reply or with_unanswered:
            found.append(Exchange(f"{dialogue}/{index}", str(turn["text"]), reply))
    return found


def relevance(found: Sequence[Exchange], encode: Callable[[list[str]], Any]) -> npt.NDArray[np.float64]:
    """Return how close each turn of the user is to the replies to each turn.

    Args:
        found: Exchanges of all conversations and seeds.
        encode: Unit vectors [N, d] of texts, for example `SentenceVectors.encode`.

    Returns:
        Mean cosine of turn i with the replies to turn j over the seeds, shape [turns, turns].
    """
    names = list(dict.fromkeys(exchange.turn for exchange in found))
    if not names:
        return np.zeros((0, 0))
    texts = {exchange.turn: exchange.user for exchange in found}
    users, replies = encode([texts[name] for name in names]), encode([exchange.reply for exchange in found])
    cosines = np.asarray(users, dtype=np.float64) @ np.asarray(replies, dtype=np.float64).T
    owners = np.array([names.index(exchange.turn) for exchange in found])
    return np.stack([cosines[:, owners == turn].mean(axis=1) for turn in range(len(names))], axis=1)
