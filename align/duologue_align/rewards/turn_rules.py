"""Rewards for answering and for yielding: when, for how long, and only if there was something to yield."""

from __future__ import annotations

from dataclasses import dataclass

from duologue.metrics.timeline import TICK_S, UTTERANCE_BRIDGE, Span
from duologue_align.rewards.exchange import Exchange
from duologue_align.rewards.plausibility import fade, fto_plausibility
from duologue_align.rewards.registry import component


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTiming:
    """Options of `response_timing` and `recovery`.

    Attributes:
        middle: Share of human answers that all count as perfectly timed.
    """

    middle: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuity:
    """Options of `continuity`.

    Attributes:
        target_s: How long an answer goes on for full credit, the window and the user's next turn permitting.
    """

    target_s: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Yielding:
    """Options of `yielding`.

    Attributes:
        full_s: Stop latency up to which credit is full.
        none_s: Stop latency from which there is none.
    """

    full_s: float = 0.8
    none_s: float = 2.0


@component
def response_timing(exchange: Exchange, options: ResponseTiming) -> float:
    """Credit for answering the user's turn (the focus) when a human would, in [0, 1].

    1 inside the middle of the human floor-transfer offsets (-0.36 to 0.65 s), falling to 0 in both tails, so that an
    early start is no prize; 0 without an answer of more than 1 s.
    Source: `duologue.metrics.human_fto`; answer rule of `duologue.metrics.events`.
    """
    end = exchange.situation.focus[1]
    answer = exchange.answer_to(end)
    return 0.0 if answer is None else fto_plausibility((answer[0] - end) * TICK_S, options.middle)


@component
def continuity(exchange: Exchange, options: Continuity) -> float:
    """Credit for an answer to the focus that says something, in [0, 1]: its length over `target_s`.

    The target shrinks to what the window or the user's next turn leaves. A 1.1 s "well, um" earns about a quarter.
    Source: the 4 s continuity target of arXiv 2609.12623.
    """
    end = exchange.situation.focus[1]
    answer = exchange.answer_to(end)
    if answer is None:
        return 0.0
    return min(1.0, (answer[1] - answer[0]) / _room(exchange, answer, round(options.target_s / TICK_S)))


@component
def yielding(exchange: Exchange, options: Yielding) -> float:
    """Credit for giving way to an interruption (the focus), in [0, 1]; 0 if the agent was not speaking at its onset.

    1 up to a stop latency of `full_s`, falling to 0 at `none_s`.
    Source: `agent_yielded` of `duologue.metrics.events`; tau-voice's window of 2 s; human median 0.43 s.
    """
    event = exchange.event_at(exchange.situation.focus[0], "agent_yielded")
    if event is None or event.value_s is None:
        return 0.0
    return fade(event.value_s, options.full_s, options.none_s)


@component
def recovery(exchange: Exchange, options: ResponseTiming) -> float:
    """Credit for answering an interruption (the focus) when a human would, in [0, 1]; 0 unless the agent yielded to it.

    Source: as `response_timing`; credit only for an interruption of the agent as in arXiv 2609.12623.
    """
    if exchange.event_at(exchange.situation.focus[0], "agent_yielded") is None:
        return 0.0
    return response_timing(exchange, options)


def _room(exchange: Exchange, answer: Span, target: int) -> int:
    next_turn = min(
        (start for start, end in exchange.user_utterances if start > answer[0] and end - start > UTTERANCE_BRIDGE),
        default=exchange.situation.ticks,
    )
    # No answer of a second or less gets this far, so the room is never smaller.
    return max(UTTERANCE_BRIDGE, min(target, next_turn - answer[0]))
