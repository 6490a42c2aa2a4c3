"""The rewards of arXiv 2606.11167 sections 2.5 and 3 of our reconstruction, word for word where the words suffice.

They are here to be compared with, and their holes are kept. Where the paper leaves a choice open, the option beside it
names the choice and `paper.toml` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duologue.metrics.timeline import TICK_S
from duologue_align.rewards.exchange import Exchange
from duologue_align.rewards.matching import f1_score
from duologue_align.rewards.registry import NoOptions, component


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperDelay:
    """Options of the turn-taking reward.

    Attributes:
        clamp_early: Whether a start before the user's end counts as a delay of 0; the formula as printed does not.
    """

    clamp_early: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperMatch:
    """Options of the backchannel reward.

    Attributes:
        tolerance_s: Largest distance of two onsets that match.
    """

    tolerance_s: float = 1.0


@component
def paper_pause(exchange: Exchange, options: NoOptions) -> float:
    """Punish speech in a pause, in [-1, 0]: -1 if any of the agent's utterances lasts more than 1 s, else 0.

    Source: arXiv 2606.11167 section 3.4, R_pause.
    """
    return -1.0 if exchange.agent_turns else 0.0


@component
def paper_turn_delay(exchange: Exchange, options: PaperDelay) -> float:
    """Punish waiting: minus the seconds from the turn's end to the first utterance > 1 s; in [-window, window].

    Without an utterance the delay is what remains of the window. A start before the end is a negative delay and so a
    prize: the hole that `response_timing` closes.
    Source: arXiv 2606.11167 section 3.4, R_turn.
    """
    end = exchange.situation.focus[1]
    start = exchange.agent_turns[0][0] if exchange.agent_turns else exchange.situation.ticks
    return -(max(start, end) - end if options.clamp_early else start - end) * TICK_S


@component
def paper_interruption_delay(exchange: Exchange, options: NoOptions) -> float:
    """Punish waiting after an interruption: minus the seconds from its end to the agent's next speech; in [-window, 0].

    An agent that is speaking at the interruption's end has a delay of 0, whether or not it ever stopped.
    Source: arXiv 2606.11167 section 3.4, R_int.
    """
    end = exchange.situation.focus[1]
    after = [max(start, end) for start, stop in exchange.agent_turns if stop > end]
    return -(min(after, default=exchange.situation.ticks) - end) * TICK_S


@component
def paper_backchannel_f1(exchange: Exchange, options: PaperMatch) -> float:
    """Reward backchannels where the human had them: F1 in [0, 1]; takeovers are false positives.

    An utterance of the agent <= 1 s is a backchannel; it matches one of the reference whose onset is within 1 s.
    Source: arXiv 2606.11167 section 3.4, R_bc.
    """
    return f1_score(
        np.array([span[0] for span in exchange.agent_brief]) * TICK_S,
        np.array([span[0] for span in exchange.reference.agent_brief]) * TICK_S,
        options.tolerance_s,
        false_positives=len(exchange.agent_turns),
    )
