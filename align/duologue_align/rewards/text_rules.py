"""Rewards that read what the agent said; nan where nobody knows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from duologue.metrics.timeline import TICK_S, UTTERANCE_BRIDGE
from duologue_align.rewards.exchange import Exchange
from duologue_align.rewards.plausibility import fade
from duologue_align.rewards.registry import component

_FEW_WORDS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Babble:
    """Options of `babble`.

    Attributes:
        slowest: Words per second of speech that cost nothing on the slow side.
        fastest: Words per second of speech that cost nothing on the fast side.
        free_repetition: Share of repeated word pairs that costs nothing.
    """

    slowest: float = 1.3
    fastest: float = 6.9
    free_repetition: float = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseQuality:
    """Options of `response_quality`.

    Attributes:
        lowest: The judge's worst rating.
        highest: The judge's best rating.
    """

    lowest: float = 0.0
    highest: float = 2.0


@component
def babble(exchange: Exchange, options: Babble) -> float:
    """Penalty for speech that is no language, in [-1, 0]; nan without a text, 0 if the agent spoke for 1 s or less.

    The worse of two: words per second of speech outside the human range (0 there, -1 at half the slowest or twice the
    fastest; so speech without words is -1), and repeated word pairs (from `free_repetition` to all of them).
    Source: 99 % of 440,181 human IPUs longer than 1 s hold 1.3 to 6.9 words per second (Switchboard word alignments).
    """
    if exchange.reply.text is None:
        return math.nan
    words, speech = exchange.reply.text.lower().split(), sum(end - start for start, end in exchange.agent_ipus)
    if speech <= UTTERANCE_BRIDGE:
        return 0.0
    rate = len(words) / (speech * TICK_S)
    slow = fade(-rate, -options.slowest, -options.slowest / 2)
    fast = fade(rate, options.fastest, 2 * options.fastest)
    return min(slow, fast, fade(_repetition(words), options.free_repetition, 1.0)) - 1.0


@component
def response_quality(exchange: Exchange, options: ResponseQuality) -> float:
    """Rating of the answer by a judge, scaled to [0, 1]; nan if no judge was asked or none had a number.

    Source: R_llm of arXiv 2606.11167 section 3.4, there 0 to 2.
    """
    score = exchange.reply.judge_score
    if score is None or math.isnan(score):
        return math.nan
    return min(1.0, max(0.0, (score - options.lowest) / (options.highest - options.lowest)))


def _repetition(words: list[str]) -> float:
    pairs = list(pairwise(words))
    return 1.0 - len(set(pairs)) / len(pairs) if len(words) >= _FEW_WORDS else 0.0
