"""Small hand-made interactivity reports for the tests of what is drawn from them."""

from __future__ import annotations

from dataclasses import replace

from duologue.metrics.latency import LatencySummary
from duologue.metrics.types import (
    BackchannelAxis,
    CompatColumn,
    Distribution,
    Event,
    FloorStatistics,
    HumanBand,
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

Spans = tuple[tuple[float, float], ...]

USER_SPANS: Spans = ((0.5, 2.0), (2.5, 4.0), (8.0, 10.0), (61.0, 64.0))
AGENT_SPANS: Spans = ((4.3, 9.0), (59.0, 61.5), (70.0, 71.0))


def event(kind: str, side: Side | None, start_s: float, end_s: float, value_s: float | None = None) -> Event:
    return Event(kind=kind, side=side, start_s=start_s, end_s=end_s, known_s=end_s, value_s=value_s)


EVENTS = (
    event("user_speech_started", "user", 0.5, 0.5),
    event("takeover", "agent", 2.0, 2.5),
    event("takeover", "agent", 62.0, 62.4),
    event("turn_missed", "agent", 8.0, 10.0),
    event("turn_talked_over", "agent", 61.0, 64.0),
    event("overlap", "user", 8.0, 9.0),
    event("overlap", "user", 59.5, 61.5),
    event("interruption", "user", 8.0, 10.0),
    event("agent_yielded", "agent", 8.0, 9.0, 1.0),
    event("agent_held", "agent", 61.0, 63.0),
    event("backchannel", "agent", 70.0, 70.4, 0.1),
    event("backchannel", "user", 60.0, 60.4, -0.2),
    event("backchannel", "user", 75.0, 75.0),
    event("agent_stopped_for_backchannel", "agent", 60.0, 60.5, 0.5),
)


def measure(value: float | None, count: int, unit: Unit = "rate", band: HumanBand | None = None) -> Measure:
    return Measure(value=value, count=count, unit=unit, band=band)


def band(low: float, median: float, high: float) -> HumanBand:
    return HumanBand(low=low, median=median, high=high)


def distribution(*values: float, band: HumanBand | None = None) -> Distribution:
    """Return a distribution whose quantiles are all the middle value, or None where there is none."""
    middle = sorted(values)[len(values) // 2] if values else None
    return Distribution(
        count=len(values),
        mean=middle,
        p5=middle,
        p25=middle,
        p50=middle,
        p75=middle,
        p95=middle,
        band=band,
        values=values,
    )


def side(spans: Spans, share: float | None) -> SideStatistics:
    return SideStatistics(
        speech_share=measure(share, len(spans), "share", band(0.2, 0.43, 0.6)),
        ipus_per_min=measure(3.0, len(spans), "per_min"),
        utterances_per_min=measure(2.0, 2, "per_min"),
        pauses_per_min=measure(1.0, 1, "per_min"),
        ipu_s=distribution(*(end - start for start, end in spans)),
        pause_s=distribution(0.5),
        spans=spans,
    )


def stage(scale_ms: float) -> LatencySummary:
    """Return a stage whose times are spread evenly from once to twice the scale."""
    return LatencySummary(
        count=938,
        mean_ms=1.5 * scale_ms,
        p50_ms=1.5 * scale_ms,
        p95_ms=1.95 * scale_ms,
        p99_ms=1.99 * scale_ms,
        max_ms=2 * scale_ms,
        cdf=tuple((scale_ms * (1 + i / 10), i / 10) for i in range(1, 11)),
    )


def lively() -> InteractivityReport:
    """Return a report of 75 s in which something of everything happened."""
    fto = band(-0.52, 0.14, 0.92)
    return InteractivityReport(
        duration_s=75.0,
        user_detector="speech",
        agent_detector="given",
        user=side(USER_SPANS, 0.11),
        agent=side(AGENT_SPANS, 0.11),
        floor=FloorStatistics(
            overlap_share=measure(0.04, 2, "share", band(0.01, 0.038, 0.09)),
            silence_share=measure(0.8, 5, "share", band(0.09, 0.185, 0.3)),
            gaps_per_min=measure(8.0, 10, "per_min"),
            overlaps_per_min=measure(1.6, 2, "per_min"),
            gap_s=distribution(0.3, 0.4),
            overlap_s=distribution(1.0, 2.0),
            fto_s=distribution(-1.0, 0.3, 0.4, band=fto),
        ),
        pause=PauseAxis(takeover_rate=measure(2 / 3, 3, "rate", band(0.0, 0.03, 0.1))),
        turn=TurnAxis(
            fto_s=distribution(0.3, 0.4, -3.0, 9.0, band=fto),
            fto_to_user_s=distribution(-1.0, band=fto),
            answered_rate=measure(0.9, 12, "rate", band(0.7, 0.9, 1.0)),
            missed_rate=measure(0.05, 12, "rate", band(0.0, 0.03, 0.2)),
            talked_over_rate=measure(0.05, 12),
            brief_answer_rate=measure(0.0, 11),
        ),
        backchannel=BackchannelAxis(
            per_user_speech_min=measure(4.7, 1, "per_min", band(1.2, 5.4, 10.8)),
            placement_s=distribution(0.1),
            unplaced_rate=measure(0.0, 1),
        ),
        interruption=InterruptionAxis(
            yield_rate=measure(0.5, 2), stop_latency_s=distribution(1.0), response_latency_s=distribution()
        ),
        selectivity=SelectivityAxis(selectivity=measure(0.0, 1)),
        compat=(
            CompatColumn(suite="full-duplex-bench-v1", name="pause TOR", measure=measure(1.0, 1), caveat="whole file"),
            CompatColumn(suite="full-duplex-bench-v1", name="JSD", measure=measure(0.767, 12, "distance")),
            CompatColumn(suite="tau-voice", name="L_R", measure=measure(None, 0, "s"), caveat="<b>whole</b> file"),
        ),
        events=EVENTS,
        latency={"encode": stage(5.0), "total": stage(50.0)},
        late_frames=3,
    )


def silent() -> InteractivityReport:
    """Return a report in which nobody ever spoke and nothing was timed."""
    none, never = measure(None, 0), distribution()
    fto = distribution(band=band(-0.52, 0.14, 0.92))
    report = lively()
    return replace(
        report,
        user=replace(side((), 0.0), pause_s=never),
        agent=replace(side((), 0.0), pause_s=never),
        floor=replace(report.floor, gap_s=never, overlap_s=never, fto_s=fto),
        pause=PauseAxis(takeover_rate=none),
        turn=TurnAxis(
            fto_s=fto,
            fto_to_user_s=fto,
            answered_rate=none,
            missed_rate=none,
            talked_over_rate=none,
            brief_answer_rate=none,
        ),
        backchannel=BackchannelAxis(
            per_user_speech_min=measure(None, 0, "per_min"), placement_s=never, unplaced_rate=none
        ),
        interruption=InterruptionAxis(yield_rate=none, stop_latency_s=never, response_latency_s=never),
        selectivity=SelectivityAxis(selectivity=none),
        compat=(),
        events=(),
        latency={},
        late_frames=0,
    )
