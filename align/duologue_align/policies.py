"""Scripted agents: what pays without understanding anything, and what a human did.

Each is a function of a situation and a random generator. They hear the user alone, except `human_like`, which replays
the recorded agent, and those that are told where the user's turns end, as a trained model can learn to tell by ear
(`human_timed`, `filler_then_stop`, `early_starter`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from duologue.metrics.events import Activity
from duologue.metrics.timeline import IPU_BRIDGE, UTTERANCE_BRIDGE, Span
from duologue_align.hacking.human_timing import backchannels, draw, speech
from duologue_align.rewards.situation import Reply, Situation, bridged_spans

Policy: TypeAlias = Callable[[Situation, np.random.Generator], Reply]
"""What an agent does in a situation."""

MM_HM_TICKS = 40
"""Length of an mm-hm: the median of human backchannels, 0.4 s."""
ECHO_TICKS = 50
"""How late the echo repeats the user."""
FILLER_TICKS = 110
"""A filler just long enough to count as an utterance and not as a backchannel."""
REACTION_TICKS = 20
"""How soon the endpointer falls silent when the user speaks."""


def human_like(situation: Situation, rng: np.random.Generator) -> Reply:
    """Replay the recorded agent."""
    return Reply(activity=situation.reference)


def human_timed(situation: Situation, rng: np.random.Generator) -> Reply:
    """Behave like some other human: every time drawn from the human figures, where turns end told by an oracle."""
    turns = _turns(situation)
    spans, free_from = [], 0
    for index, (start, end) in enumerate(turns):
        phrases = [span for span in bridged_spans(situation.user, IPU_BRIDGE) if start <= span[0] < end]
        spans += backchannels(phrases, rng)
        next_turn = turns[index + 1][0] if index + 1 < len(turns) else situation.ticks
        onset = max(free_from, end + draw("turn_fto_s", rng, low=-1.0, high=2.0))
        free_from = next_turn + draw("yield_s", rng)
        spans += speech(onset, free_from, rng)
    return _speaking(situation, spans)


def silent(situation: Situation, rng: np.random.Generator) -> Reply:
    """Say nothing."""
    return Reply(activity=np.zeros_like(situation.user))


def always_talking(situation: Situation, rng: np.random.Generator) -> Reply:
    """Never stop."""
    return Reply(activity=np.ones_like(situation.user))


def two_mm_hm(situation: Situation, rng: np.random.Generator) -> Reply:
    """Say mm-hm after a third and after two thirds of the window."""
    onsets = (situation.ticks // 3, 2 * situation.ticks // 3)
    return _speaking(situation, [(onset, onset + MM_HM_TICKS) for onset in onsets])


def metronome(situation: Situation, rng: np.random.Generator) -> Reply:
    """Say mm-hm every 3 s."""
    return _speaking(situation, [(onset, onset + MM_HM_TICKS) for onset in range(300, situation.ticks, 300)])


def echo(situation: Situation, rng: np.random.Generator) -> Reply:
    """Repeat the user half a second later."""
    late = np.concatenate([np.zeros(ECHO_TICKS, dtype=np.bool_), situation.user])
    return Reply(activity=late[: situation.ticks])


def babble(situation: Situation, rng: np.random.Generator) -> Reply:
    """Speak in bursts of 0.3 to 2.5 s with silences of 0.2 to 1.5 s between, whatever the user does."""
    spans, tick = [], 0
    while tick < situation.ticks:
        tick += round(100 * rng.uniform(0.2, 1.5))
        end = tick + round(100 * rng.uniform(0.3, 2.5))
        spans.append((tick, end))
        tick = end
    return _speaking(situation, spans)


def filler_then_stop(situation: Situation, rng: np.random.Generator) -> Reply:
    """Say "well, um" for 1.1 s wherever a turn of the user ends, at once, and nothing else."""
    return _speaking(situation, [(end, end + FILLER_TICKS) for _, end in _turns(situation)])


def early_starter(situation: Situation, rng: np.random.Generator) -> Reply:
    """Begin 0.9 s before each turn of the user ends and speak until the user begins again."""
    turns = _turns(situation)
    until = [start for start, _ in turns[1:]] + [situation.ticks]
    return _speaking(situation, [(max(0, end - 90), stop) for (_, end), stop in zip(turns, until, strict=False)])


def endpointer(delay_s: float, reply_s: float) -> Policy:
    """Return an agent that answers after a fixed silence of the user and stops when the user speaks.

    Args:
        delay_s: Silence of the user after which it speaks.
        reply_s: Length of what it says.
    """
    delay, length = round(delay_s * 100), round(reply_s * 100)

    def answer(situation: Situation, rng: np.random.Generator) -> Reply:
        spans, free_from = [], 0
        runs = bridged_spans(situation.user, 0)
        onsets = [start for start, _ in runs[1:]] + [situation.ticks]
        for (_, end), next_onset in zip(runs, onsets, strict=False):
            start = end + delay
            if start < next_onset and start >= free_from:
                free_from = min(start + length, next_onset + REACTION_TICKS)
                spans.append((start, free_from))
        return _speaking(situation, spans)

    return answer


POLICIES: dict[str, Policy] = {
    "human-like": human_like,
    "human-timed": human_timed,
    "silent": silent,
    "always talking": always_talking,
    "two mm-hm": two_mm_hm,
    "mm-hm every 3 s": metronome,
    "echo": echo,
    "endpointer 0.3 s": endpointer(0.3, 6.0),
    "endpointer 0.5 s": endpointer(0.5, 6.0),
    "endpointer 0.7 s": endpointer(0.7, 60.0),
    "endpointer 1.1 s": endpointer(1.1, 60.0),
    "filler then stop": filler_then_stop,
    "early starter": early_starter,
    "babble": babble,
}
"""All by name, the human first."""


def _turns(situation: Situation) -> list[Span]:
    spans = bridged_spans(situation.user, UTTERANCE_BRIDGE)
    return [(start, end) for start, end in spans if end - start > UTTERANCE_BRIDGE]


def _speaking(situation: Situation, spans: list[Span]) -> Reply:
    activity: Activity = np.zeros_like(situation.user)
    for start, end in spans:
        activity[max(0, start) : end] = True
    return Reply(activity=activity)
