"""Rewards for leaving and keeping the floor; times and spans in ticks of 10 ms inside, seconds in options."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from duologue.metrics.opportunities import ANSWER_EARLIEST, STOP_WITHIN
from duologue.metrics.timeline import IPU_BRIDGE, TICK_S, UTTERANCE_BRIDGE, Span
from duologue_align.rewards.exchange import Exchange, overlap_ticks
from duologue_align.rewards.plausibility import fade
from duologue_align.rewards.registry import component


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorRespect:
    """Options of `floor_respect`.

    Attributes:
        none_s: Seconds of talk over the user that leave no credit.
    """

    none_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """Options of `continuation`.

    Attributes:
        target_s: How long to speak on after the user's backchannel for full credit, the window permitting.
    """

    target_s: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Options of `holding`.

    Attributes:
        full: Share of the recorded utterance that must be held for full credit.
    """

    full: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Options of `silence`.

    Attributes:
        free_s: Mutual silence that costs nothing.
        worst_s: Mutual silence that costs everything.
    """

    free_s: float = 2.0
    worst_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Monologue:
    """Options of `monologue`.

    Attributes:
        free_s: Unbroken speech that costs nothing.
        worst_s: Unbroken speech that costs everything.
    """

    free_s: float = 8.2
    worst_s: float = 16.4


@component
def floor_respect(exchange: Exchange, options: FloorRespect) -> float:
    """Credit for letting the user speak, in [0, 1]: 1 without talk over the user's turns, 0 from `none_s` s of it on.

    Counted is the agent's speech (utterances > 1 s alone, so that backchannels are free) inside the user's utterances
    > 1 s, each until 1 s before its end, where answers begin. An utterance that was going on when the user's began is
    not counted (that user is interrupting, see `yielding`), unless the window begins with the user's.
    Source: takeover and answer window of `duologue.metrics.events`; R_pause of arXiv 2606.11167 for pauses alone.
    """
    counted = 0
    for start, end in exchange.user_utterances:
        if end - start <= UTTERANCE_BRIDGE:
            continue
        intruding = tuple(turn for turn in exchange.agent_turns if turn[0] > start or start <= IPU_BRIDGE)
        counted += _talk_ticks(exchange, intruding, start, end + ANSWER_EARLIEST)
    return fade(counted * TICK_S, 0.0, options.none_s)


@component
def continuation(exchange: Exchange, options: Continuation) -> float:
    """Credit for speaking on while the user says "mm-hm" inside the recorded utterance (the focus), in [0, 1].

    Counted are the user's utterances <= 1 s that begin inside it; nan if there are none. Each earns 0 if it begins
    outside the agent's utterances or that utterance ends within 1 s of the onset, else the time the utterance goes on
    after the onset over `target_s` (or over what the recorded agent went on, if less); the result is their mean.
    Source: selectivity of `duologue.metrics.events`, tau-voice; the 4 s target of arXiv 2609.12623.
    """
    start, stop = exchange.situation.focus
    onsets = [onset for onset, end in exchange.user_utterances if end - onset <= UTTERANCE_BRIDGE]
    credits = [_continued(exchange, onset, stop, options) for onset in onsets if start < onset < stop]
    return sum(credits) / len(credits) if credits else math.nan


@component
def holding(exchange: Exchange, options: Holding) -> float:
    """Credit for keeping one's own turn (the focus, recorded), in [0, 1]: share inside the agent's turns over `full`.

    Silences up to 1 s count as held. What other turns of the user it covers is `floor_respect`'s matter.
    Source: utterance rule of arXiv 2606.11167 section 3.3.
    """
    start, end = exchange.situation.focus
    return min(1.0, overlap_ticks(exchange.agent_turns, start, end) / ((end - start) * options.full))


@component
def silence(exchange: Exchange, options: Silence) -> float:
    """Penalty for the longest mutual silence, in [-1, 0]: 0 up to `free_s`, -1 from `worst_s` on.

    Source: 99 % of human floor transfers take less than 1.7 s (Switchboard), `duologue.metrics.opportunities`.
    """
    spans = [*exchange.user_utterances, *exchange.agent_utterances]
    return fade(_longest_gap(spans, exchange.situation.ticks) * TICK_S, options.free_s, options.worst_s) - 1.0


@component
def monologue(exchange: Exchange, options: Monologue) -> float:
    """Penalty for the longest speech without a breath, in [-1, 0]: 0 up to `free_s`, -1 from `worst_s` on.

    Source: 99.5 % of 187,076 human IPUs last less than 8.24 s, `duologue_align.synth.timing`.
    """
    longest = max((end - start for start, end in exchange.agent_ipus), default=0)
    return fade(longest * TICK_S, options.free_s, options.worst_s) - 1.0


def _continued(exchange: Exchange, onset: int, stop: int, options: Continuation) -> float:
    end = next((end for start, end in exchange.agent_utterances if start < onset < end), onset)
    if end <= onset + min(STOP_WITHIN, stop - onset - 1):
        return 0.0
    return min(1.0, (end - onset) / min(round(options.target_s / TICK_S), stop - onset))


def _talk_ticks(exchange: Exchange, turns: tuple[Span, ...], start: int, end: int) -> int:
    return sum(
        exchange.speech_ticks(max(start, begin), min(end, stop))
        for begin, stop in turns
        if begin < end and stop > start
    )


def _longest_gap(spans: list[Span], ticks: int) -> int:
    longest = heard_until = 0
    for start, end in [*sorted(spans), (ticks, ticks)]:
        longest, heard_until = max(longest, start - heard_until), max(heard_until, end)
    return int(np.clip(longest, 0, ticks))
