"""Rewards for the agent's backchannels: where the human had them, how many, and beside what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duologue.metrics.timeline import TICK_S
from duologue_align.rewards.exchange import Exchange
from duologue_align.rewards.matching import f1_score
from duologue_align.rewards.plausibility import placement_plausibility
from duologue_align.rewards.registry import NoOptions, component


@dataclass(frozen=True, slots=True, kw_only=True)
class BackchannelMatch:
    """Options of `backchannel_match`.

    Attributes:
        tolerance_s: Largest distance of two onsets that match.
    """

    tolerance_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackchannelRate:
    """Options of `backchannel_rate`.

    Attributes:
        least: Backchannels that the user's utterance calls for.
        most: Backchannels that are never too many.
        most_per_min: Highest rate in a long utterance, per minute of the user's speech.
    """

    least: int = 1
    most: int = 2
    most_per_min: float = 8.2


@dataclass(frozen=True, slots=True, kw_only=True)
class BackchannelPlacement:
    """Options of `backchannel_placement`.

    Attributes:
        middle: Share of human backchannels that all count as perfectly placed.
    """

    middle: float = 0.8


@component
def backchannel_match(exchange: Exchange, options: BackchannelMatch) -> float:
    """Credit for backchannels where the recorded human had them: F1 of the onsets, in [0, 1]; 1 if neither had any.

    Longer utterances are false positives, one for each second begun.
    Source: R_bc of arXiv 2606.11167 section 3.4.
    """
    intruding = sum(int(np.ceil((end - start) * TICK_S)) for start, end in exchange.agent_turns)
    return f1_score(
        np.array([span[0] for span in exchange.agent_brief]) * TICK_S,
        np.array([span[0] for span in exchange.reference.agent_brief]) * TICK_S,
        options.tolerance_s,
        false_positives=intruding,
    )


@component
def backchannel_rate(exchange: Exchange, options: BackchannelRate) -> float:
    """Credit for as many backchannels as humans give, in [0, 1]: count / least below `least`, most / count above most.

    Counted are the agent's utterances <= 1 s anywhere in the window.
    Source: backchannels per minute of the other's speech, median 4.2 and 90 % quantile 8.2 (`synth.timing`).
    """
    count = len(exchange.agent_brief)
    speech_min = sum(end - start for start, end in exchange.user_utterances) * TICK_S / 60
    most = max(float(options.most), options.most_per_min * speech_min)
    if count < options.least:
        return count / options.least
    return min(1.0, most / count) if count else 1.0


@component
def backchannel_restraint(exchange: Exchange, options: NoOptions) -> float:
    """Credit for no more backchannels than the recorded human gave, in [0, 1]: 1 up to theirs, theirs / count above.

    Windows are shorter than the time between two backchannels of people, so that no count of one window is too many by
    itself; over many windows, what the recorded humans gave is people's rate.
    Source: backchannels per minute of the other's speech, median 4.2 (`synth.timing`).
    """
    given = len(exchange.reference.agent_brief)
    count = len(exchange.agent_brief)
    return 1.0 if count <= given else given / count


@component
def backchannel_placement(exchange: Exchange, options: BackchannelPlacement) -> float:
    """Credit for backchannels beside the ends of the user's phrases, in [0, 1]: mean over them, 0 if there is none.

    Each counts by how human its offset from the user's nearest IPU end is; 0 if that is more than 2 s away.
    Source: `backchannel` of `duologue.metrics.events`; offsets of 26,194 labelled ones, `duologue_align.synth.timing`.
    """
    offsets = [event.value_s for event in exchange.events if event.kind == "backchannel" and event.side == "agent"]
    credits = [0.0 if offset is None else placement_plausibility(offset, options.middle) for offset in offsets]
    return sum(credits) / len(credits) if credits else 0.0
