"""Columns under the definitions of published suites, from the same events as everything else in the report.

The suites judge recordings cut around one situation; here every such situation of a conversation is one sample. Numbers
compare in kind with published ones, not to the last digit: other dialogues, other detectors, no word recognition.
"""

from __future__ import annotations

from collections.abc import Sequence

from duologue.metrics import compat_fdb as fdb
from duologue.metrics.compat_tau import Span, find_tau_events
from duologue.metrics.timeline import TICK_S, UTTERANCE_BRIDGE
from duologue.metrics.types import CompatColumn, Event, Measure, Unit

FDB, TAU = "full-duplex-bench-v1", "tau-voice"
BACKCHANNEL_TURN = 500
"""User turns of at least 5.0 s are samples of the backchannel task. Source: arXiv 2606.11167 section 3.3."""


def compat_columns(events: Sequence[Event], duration_s: float) -> tuple[CompatColumn, ...]:
    """Return every column.

    Args:
        events: All events of the conversation.
        duration_s: Its length.
    """
    length = round(duration_s / TICK_S)
    return (*_fdb_columns(events, length), *_tau_columns(events, length))


def _fdb_columns(events: Sequence[Event], length: int) -> list[CompatColumn]:
    speech = _spans(events, "agent_speech_ended")
    turns = _spans(events, "utterance", "user")
    next_start = {turn: following[0] for turn, following in zip(turns, [*turns, (length, length)][1:], strict=True)}
    paused = [turn for turn in turns if _has_pause(events, turn)]
    long_turns = [turn for turn in turns if turn[1] - turn[0] > UTTERANCE_BRIDGE]
    interruptions = {round(event.start_s / TICK_S) for event in events if event.kind == "interruption"}
    interrupting = [turn for turn in turns if turn[0] in interruptions]
    turn_samples = [(_inside(speech, (turn[0], next_start[turn])), turn[1]) for turn in long_turns]
    interruption_samples = [(_inside(speech, (turn[1], next_start[turn])), turn[1]) for turn in interrupting]
    return [
        _tor("pause TOR", [(_inside(speech, turn), turn[1]) for turn in paused]),
        _tor("turn-taking TOR", turn_samples),
        _latency("turn-taking latency", turn_samples),
        _tor("interruption TOR", interruption_samples),
        _latency("interruption latency", interruption_samples),
        *_fdb_backchannels(speech, [turn for turn in turns if turn[1] - turn[0] >= BACKCHANNEL_TURN]),
    ]


def _fdb_backchannels(speech: list[Span], turns: list[Span]) -> list[CompatColumn]:
    samples = [fdb.backchannel_sample(_inside(speech, turn), round((turn[1] - turn[0]) * TICK_S, 2)) for turn in turns]
    taken = [float(sample.takes_turn) for sample in samples]
    kept, seconds = sum(len(sample.kept) for sample in samples), sum(end - start for start, end in turns) * TICK_S
    frequency = 60 * kept / seconds if seconds else None
    return [
        _column(FDB, "backchannel TOR", taken, "rate", fdb.BACKCHANNEL_CAVEAT),
        CompatColumn(
            suite=FDB,
            name="backchannel frequency",
            measure=Measure(value=_rounded(frequency), count=kept, unit="per_min"),
            caveat="published per second: divide by 60; longer segments count as well",
        ),
        CompatColumn(
            suite=FDB,
            name="backchannel JSD",
            measure=Measure(value=None, count=0, unit="distance"),
            caveat=fdb.JSD_CAVEAT,
        ),
    ]


def _tau_columns(events: Sequence[Event], length: int) -> list[CompatColumn]:
    user, agent = _spans(events, "utterance", "user"), _spans(events, "utterance", "agent")
    tau = find_tau_events(user, agent, length)
    caveat = "backchannels by duration (1 s), not annotated; pauses up to 1 s bridged"
    responses, yields = tau.response_latencies, tau.yield_latencies
    return [
        _column(TAU, "L_R", [ticks * TICK_S for ticks in responses], "s", caveat),
        _column(TAU, "L_Y", [ticks * TICK_S for ticks in yields], "s", caveat),
        _ratio("R_R", len(responses), tau.turns, caveat),
        _ratio("R_Y", len(yields), tau.interruptions, caveat),
        _ratio("I_A", tau.agent_interruptions, tau.turns, "events per user turn; may exceed 1"),
        _ratio("S_BC", tau.kept_talking, tau.backchannels, caveat),
    ]


def _tor(name: str, samples: list[tuple[list[fdb.Seconds], int]]) -> CompatColumn:
    return _column(FDB, name, [float(fdb.takes_turn(chunks)) for chunks, _ in samples], "rate", fdb.TOR_CAVEAT)


def _latency(name: str, samples: list[tuple[list[fdb.Seconds], int]]) -> CompatColumn:
    values = [fdb.latency_s(chunks, end * TICK_S) for chunks, end in samples if fdb.takes_turn(chunks)]
    return _column(FDB, name, values, "s", "over taken turns only; an early start counts as 0")


def _column(suite: str, name: str, values: list[float], unit: Unit, caveat: str) -> CompatColumn:
    mean = sum(values) / len(values) if values else None
    measure = Measure(value=_rounded(mean), count=len(values), unit=unit)
    return CompatColumn(suite=suite, name=name, measure=measure, caveat=caveat)


def _ratio(name: str, hits: int, count: int, caveat: str) -> CompatColumn:
    measure = Measure(value=_rounded(hits / count if count else None), count=count, unit="rate")
    return CompatColumn(suite=TAU, name=name, measure=measure, caveat=caveat)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _spans(events: Sequence[Event], kind: str, side: str | None = None) -> list[Span]:
    spans = [
        (round(event.start_s / TICK_S), round(event.end_s / TICK_S))
        for event in events
        if event.kind == kind and side in (None, event.side)
    ]
    return sorted(spans)


def _has_pause(events: Sequence[Event], turn: Span) -> bool:
    return any(
        event.kind in ("takeover", "pause_kept") and turn[0] < round(event.start_s / TICK_S) < turn[1]
        for event in events
    )


def _inside(spans: list[Span], window: Span) -> list[fdb.Seconds]:
    """Return the parts of the spans inside a window, in seconds."""
    cut = [(max(start, window[0]), min(end, window[1])) for start, end in spans]
    return [(start * TICK_S, end * TICK_S) for start, end in cut if start < end]
