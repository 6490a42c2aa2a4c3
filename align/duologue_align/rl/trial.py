"""Measure an agent on held-out segments: the same segments and the same noise for everyone who is compared."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duologue.config import Sampling
from duologue.metrics.summary import build_report
from duologue.model.lm import LanguageModel
from duologue_align.rewards import Situation
from duologue_align.rewards.exchange import find_events
from duologue_align.rl.grading import JUDGED, Graded, Grader
from duologue_align.rl.listener import Heard, Listener
from duologue_align.rl.rollout import roll_out_all
from duologue_align.rl.sampler import Pool
from duologue_align.rl.scenes import Scene, SceneMaker
from duologue_align.segments.segment import Segment
from duologue_align.sft.outcome import Outcome
from duologue_align.statistics import Interval, bootstrap, pooled_median, ratio

FIGURES = ("answered_within_2s", "pause_takeover_rate", "backchannels_per_min", "yield_rate_2s", "selectivity")
"""Rates beside the rewards, as `duologue_align.sft.outcome` counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One conversation of a trial.

    Attributes:
        segment: What it was about.
        heard: What the agent did.
        graded: What it earned.
    """

    segment: Segment
    heard: Heard
    graded: Graded

    def row(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        situation = Situation.from_segment(self.segment)
        outcome = Outcome()
        outcome.add_report(build_report(find_events(situation.user, self.heard.activity), situation.duration_s))
        return {
            "id": self.segment.id,
            "axis": self.segment.axis,
            "conversation": self.segment.conversation,
            "total": _known(self.graded.total),
            "rules": _known(self.graded.rules),
            "components": {name: _known(value) for name, value in self.graded.components.items()},
            "rates": {name: list(outcome.parts[name]) for name in FIGURES},
            "fto_s": outcome.fto_s,
            "speech_share": float(np.mean(self.heard.activity)),
            "text": self.heard.text,
        }


class Trial:
    """Held-out segments, ready to be conversed through by any number of agents."""

    def __init__(self, pool: Pool, maker: SceneMaker, *, per_axis: int, seed: int) -> None:
        """Choose up to `per_axis` segments of each axis: the same for the same seed."""
        self._segments = [segment for members in pool.values() for segment in _chosen(members, per_axis)]
        self._maker, self._seed = maker, seed
        self._scenes: list[Scene] = []

    def run(
        self, talker: LanguageModel, listener: Listener, grader: Grader, sampling: Sampling, *, rows: int
    ) -> list[Take]:
        """Converse through all segments, one rollout each."""
        if not self._scenes:
            self._scenes = [self._maker.make(segment, 0) for segment in self._segments]
        if not self._scenes:
            return []
        seeds = [(self._seed, _PLACE, index) for index in range(len(self._scenes))]
        rollouts = roll_out_all(talker, self._scenes, seeds, sampling, rows=rows)
        heard = listener.hear(rollouts, self._scenes)
        return [
            Take(segment=scene.segment, heard=item, graded=grader.grade(scene.segment, [item])[0])
            for scene, item in zip(self._scenes, heard, strict=True)
        ]


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the rules' means by axis with 95 % intervals over conversations, the rates, and the judge's mean beside.

    Args:
        rows: Of `Take.row`; those of several seeds may stand together.
    """
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    found: dict[str, Any] = {"axes": {axis: mean([row for row in rows if row["axis"] == axis]) for axis in axes}}
    found["rates"] = {name: _rate(rows, name) for name in FIGURES}
    found["fto_median_s"] = plain(bootstrap(_by_conversation(rows, lambda row: row["fto_s"]), _median))
    found["judge"] = mean(rows, lambda row: row["components"].get(JUDGED))
    found["speech_share"] = mean(rows, lambda row: row["speech_share"])
    return found


def mean(rows: Sequence[Mapping[str, Any]], value: Any = None) -> dict[str, float | None]:
    """Return the mean of a value of the rows, the rules' by default, with its interval over conversations."""
    pick = value or (lambda row: row["rules"])

    def parts(row: Mapping[str, Any]) -> list[tuple[float, float]]:
        number = pick(row)
        return [] if number is None or np.isnan(number) else [(float(number), 1.0)]

    return plain(bootstrap(_by_conversation(rows, parts), _pooled))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def plain(interval: Interval) -> dict[str, float | None]:
    """Return an interval as plain values."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _rate(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, float | None]:
    return plain(bootstrap(_by_conversation(rows, lambda row: [tuple(row["rates"][name])]), _pooled))


def _by_conversation(rows: Sequence[Mapping[str, Any]], parts: Any) -> list[list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row["conversation"], []).extend(parts(row))
    return list(found.values())


def _pooled(parts: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    return ratio([part for conversation in parts for part in conversation])


def _median(parts: Sequence[Sequence[float]]) -> float | None:
    return pooled_median(parts)


def _chosen(segments: Sequence[Segment], count: int) -> list[Segment]:
    """Return some segments, of as many conversations as possible, in an order that depends on their names alone."""
    order = sorted(segments, key=lambda segment: hashlib.sha256(segment.id.encode()).digest())
    seen: dict[str, int] = {}
    ranks = []
    for index, segment in enumerate(order):
        seen[segment.conversation] = seen.get(segment.conversation, 0) + 1
        ranks.append((seen[segment.conversation], index))
    return [order[index] for _, index in sorted(ranks)[:count]]


_PLACE = 2**31
"""Where a step would stand in a seed, for conversations that belong to none."""
