"""From the event log to the report: counts, shares and quantiles, each beside its human band."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from duologue.metrics.bands import BANDS
from duologue.metrics.compat import compat_columns
from duologue.metrics.types import (
    BackchannelAxis,
    Distribution,
    Event,
    FloorStatistics,
    InteractivityReport,
    InterruptionAxis,
    Measure,
    PauseAxis,
    SelectivityAxis,
    Side,
    SideStatistics,
    TurnAxis,
    Unit,
)

ANSWER_LIMIT_S = 2.0
"""An answer later than this is neither answered in time nor missed."""


def build_report(
    log: Iterable[Event], duration_s: float, *, user_detector: str = "given", agent_detector: str = "given"
) -> InteractivityReport:
    """Return the report of a conversation.

    Args:
        log: Its events, the end of the conversation included (`EventMachine.finish`).
        duration_s: Its length.
        user_detector: Name of the detector of the user's speech.
        agent_detector: Name of the detector of the agent's speech.
    """
    events = _Log(log, duration_s)
    return InteractivityReport(
        duration_s=duration_s,
        user_detector=user_detector,
        agent_detector=agent_detector,
        user=_side(events, "user"),
        agent=_side(events, "agent"),
        floor=_floor(events),
        pause=PauseAxis(takeover_rate=events.rate("takeover_rate", ["takeover"], ["pause_kept"])),
        turn=_turn(events),
        backchannel=_backchannel(events),
        interruption=InterruptionAxis(
            yield_rate=events.rate("yield_rate", ["agent_yielded"], ["agent_held"]),
            stop_latency_s=distribution(events.values("agent_yielded"), "stop_latency_s"),
            response_latency_s=distribution(events.values("agent_responded"), "response_latency_s"),
        ),
        selectivity=SelectivityAxis(
            selectivity=events.rate("selectivity", ["agent_ignored_backchannel"], ["agent_stopped_for_backchannel"])
        ),
        compat=compat_columns(events.all, duration_s),
        events=tuple(events.all),
    )


def distribution(values: list[float], band: str | None = None) -> Distribution:
    """Return count, mean and quantiles of times in seconds.

    Args:
        values: The times, in order.
        band: Name of the human band that belongs to them.
    """
    human = BANDS.get(band) if band else None
    if not values:
        return Distribution(count=0, mean=None, p5=None, p25=None, p50=None, p75=None, p95=None, band=human)
    p5, p25, p50, p75, p95 = (round(float(q), 4) for q in np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))
    return Distribution(
        count=len(values),
        mean=round(float(np.mean(values)), 4),
        p5=p5,
        p25=p25,
        p50=p50,
        p75=p75,
        p95=p95,
        band=human,
        values=tuple(round(value, 3) for value in values),
    )


class _Log:
    """The events by kind, and the measures made of counting them."""

    def __init__(self, log: Iterable[Event], duration_s: float) -> None:
        self.all = list(log)
        self.duration_s = duration_s
        self._by_kind: dict[str, list[Event]] = {}
        for event in self.all:
            self._by_kind.setdefault(event.kind, []).append(event)

    def of(self, kind: str, side: Side | None = None) -> list[Event]:
        return [event for event in self._by_kind.get(kind, []) if side is None or event.side == side]

    def values(self, kind: str, side: Side | None = None) -> list[float]:
        return [event.value_s for event in self.of(kind, side) if event.value_s is not None]

    def durations(self, kind: str, side: Side | None = None) -> list[float]:
        return [event.end_s - event.start_s for event in self.of(kind, side)]

    def rate(self, name: str, hits: list[str], misses: list[str]) -> Measure:
        hit = sum(len(self.of(kind)) for kind in hits)
        return share_of(name, hit, hit + sum(len(self.of(kind)) for kind in misses))

    def per_min(self, name: str, count: int, duration_s: float | None = None) -> Measure:
        duration_s = self.duration_s if duration_s is None else duration_s
        return _measure(name, 60 * count / duration_s if duration_s else None, count, "per_min")

    def share(self, name: str, spoken_s: float, count: int) -> Measure:
        return _measure(name, spoken_s / self.duration_s if self.duration_s else None, count, "share")


def share_of(name: str, hits: int, count: int) -> Measure:
    """Return hits / count as a rate with its band, None when nothing was counted."""
    return _measure(name, hits / count if count else None, count, "rate")


def _measure(name: str, value: float | None, count: int, unit: Unit) -> Measure:
    return Measure(value=None if value is None else round(value, 4), count=count, unit=unit, band=BANDS.get(name))


def _side(events: _Log, side: Side) -> SideStatistics:
    ipus, pauses = events.of(f"{side}_speech_ended"), events.durations("pause", side)
    ipu_s = events.durations(f"{side}_speech_ended")
    return SideStatistics(
        speech_share=events.share("speech_share", sum(ipu_s), len(ipus)),
        ipus_per_min=events.per_min("ipus_per_min", len(ipus)),
        utterances_per_min=events.per_min("utterances_per_min", len(events.of("utterance", side))),
        pauses_per_min=events.per_min("pauses_per_min", len(pauses)),
        ipu_s=distribution(ipu_s, "ipu_s"),
        pause_s=distribution(pauses, "pause_s"),
        spans=tuple((event.start_s, event.end_s) for event in ipus),
    )


def _floor(events: _Log) -> FloorStatistics:
    overlaps, gaps = events.durations("overlap"), events.values("gap")
    spoken_s = sum(events.durations("user_speech_ended")) + sum(events.durations("agent_speech_ended"))
    silence_s = max(0.0, events.duration_s - spoken_s + sum(overlaps))
    return FloorStatistics(
        overlap_share=events.share("overlap_share", sum(overlaps), len(overlaps)),
        silence_share=events.share("silence_share", silence_s, len(gaps) + len(events.of("pause"))),
        gaps_per_min=events.per_min("gaps_per_min", len(gaps)),
        overlaps_per_min=events.per_min("overlaps_per_min", len(overlaps)),
        gap_s=distribution(gaps, "gap_s"),
        overlap_s=distribution(overlaps, "overlap_s"),
        fto_s=distribution(events.values("floor_transfer"), "fto_s"),
    )


def _turn(events: _Log) -> TurnAxis:
    offsets = events.values("turn_answered")
    missed, talked_over = len(events.of("turn_missed")), len(events.of("turn_talked_over"))
    turns = len(offsets) + missed + talked_over
    in_time = sum(offset <= ANSWER_LIMIT_S for offset in offsets)
    return TurnAxis(
        fto_s=distribution(events.values("floor_transfer", "agent"), "fto_s"),
        fto_to_user_s=distribution(events.values("floor_transfer", "user"), "fto_s"),
        answered_rate=share_of("answered_rate", in_time, turns),
        missed_rate=share_of("missed_rate", missed, turns),
        talked_over_rate=share_of("talked_over_rate", talked_over, turns),
        brief_answer_rate=share_of("brief_answer_rate", len(events.of("answered_briefly")), len(offsets)),
    )


def _backchannel(events: _Log) -> BackchannelAxis:
    found = events.of("backchannel", "agent")
    placed = events.values("backchannel", "agent")
    user_speech_s = sum(events.durations("user_speech_ended"))
    return BackchannelAxis(
        per_user_speech_min=events.per_min("backchannels_per_speech_min", len(found), user_speech_s),
        placement_s=distribution(placed, "placement_s"),
        unplaced_rate=share_of("unplaced_rate", len(found) - len(placed), len(found)),
    )
