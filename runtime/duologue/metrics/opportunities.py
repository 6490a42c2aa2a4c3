"""The questions that a conversation asks the agent, each decided as soon as what follows can no longer change it.

A question is a plain tuple (name, numbers). Its function looks at what is known of both sides and returns None to wait,
or the events that answer it and the questions that follow from them. All numbers are ticks of 10 ms. Thresholds below
carry their sources; `duologue.metrics.events` states the rules as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from duologue.metrics.timeline import UTTERANCE_BRIDGE, SideTrack
from duologue.metrics.types import Side

ANSWER_WITHIN = 200
"""An answer comes within 2 s: 99 % of human floor transfers take less than 1.7 s (Switchboard)."""
ANSWER_EARLIEST = -100
"""An answer begins at most 1 s before the turn ends: the 1 % quantile of human floor-transfer offsets is -0.99 s."""
PATIENCE = 500
"""A turn without an answer after 5 s is missed, whether or not the user speaks again."""
YIELD_WITHIN = 200
"""The agent yields to an interruption within 2.0 s. Source: tau-voice, no-yield window."""
STOP_WITHIN = 100
"""Falling silent within 1.0 s of a backchannel counts as stopping for it. Source: tau-voice, backchannel window."""
PLACEMENT_WITHIN = 200
"""A backchannel is placed relative to an IPU end of the other side at most 2 s away."""

Question = tuple[str, tuple[int, ...]]
Answer = tuple[str, Side, int, int, int | None]
"""(event kind, side, start, end, value), in ticks."""


@dataclass(frozen=True, slots=True)
class View:
    """What is known at one instant.

    Attributes:
        user: The user's track.
        agent: The agent's track.
        now: Ticks observed.
        is_over: Whether the conversation has ended, so that nothing more will be known.
    """

    user: SideTrack
    agent: SideTrack
    now: int
    is_over: bool = False


Decision = tuple[list[Answer], list[Question]] | None
_DROP: tuple[list[Answer], list[Question]] = ([], [])


def decide(question: Question, view: View) -> Decision:
    """Return the events that answer a question and the questions that follow, or None to ask again later."""
    name, numbers = question
    return _RULES[name](view, *numbers)


def _pause(view: View, start: int, end: int) -> Decision:
    """Was the user's pause [start, end) left alone? Speech of the agent longer than 1 s in it is a takeover."""
    if view.agent.horizon(view.now) < end:
        return None
    is_open = False
    for ipu in view.agent.ipus_between(start, end, view.now):
        utterance, is_closed = view.agent.utterance_from(ipu[0], view.now)
        if utterance[1] - utterance[0] > UTTERANCE_BRIDGE:
            return [("takeover", "agent", start, end, None)], []
        is_open |= not is_closed
    return None if is_open else ([("pause_kept", "agent", start, end, None)], [])


def _turn(view: View, start: int, end: int) -> Decision:
    """Was the user's turn [start, end) answered?"""
    if view.agent.horizon(view.now) <= end:
        return None
    covering = view.agent.ipu_at(end, view.now)
    if covering is not None:
        onset = view.agent.utterance_from(covering[0], view.now)[0][0]
        if onset - end < ANSWER_EARLIEST:
            return [("turn_talked_over", "agent", start, end, None)], []
        return _answered(onset, end)
    answer, next_turn = view.agent.first_ipu_from(end), view.user.first_ipu_from(end + 1)
    if answer is not None and answer - end <= PATIENCE and (next_turn is None or answer <= next_turn):
        return _answered(answer, end)
    patience_over = view.now > end + PATIENCE or (view.is_over and view.now > end + ANSWER_WITHIN)
    if next_turn is not None or patience_over:
        return [("turn_missed", "agent", start, end, None)], []
    return None


def _answered(onset: int, end: int) -> Decision:
    span = (min(onset, end), max(onset, end))
    return [("turn_answered", "agent", *span, onset - end)], [("brief", (onset,))]


def _brief(view: View, onset: int) -> Decision:
    """Was the answer that began at `onset` at most 1 s long and alone?"""
    (start, end), is_closed = view.agent.utterance_from(onset, view.now)
    if end - start > UTTERANCE_BRIDGE:
        return _DROP
    return ([("answered_briefly", "agent", start, end, None)], []) if is_closed else None


def _backchannel(view: View, is_user: int, start: int, end: int) -> Decision:
    """Where does a backchannel lie relative to the other side's nearest IPU end?"""
    other = view.agent if is_user else view.user
    if other.horizon(view.now) <= start + PLACEMENT_WITHIN and not view.is_over:
        return None
    # One tick wider, for an IPU that ends just where the window begins.
    near = other.ipus_between(start - PLACEMENT_WITHIN - 1, start + PLACEMENT_WITHIN + 1, view.now)
    offsets = [start - ipu[1] for ipu in near if abs(start - ipu[1]) <= PLACEMENT_WITHIN]
    value = min(offsets, key=lambda offset: (abs(offset), -offset)) if offsets else None
    return [("backchannel", "user" if is_user else "agent", start, end, value)], []


def _onset(view: View, onset: int) -> Decision:
    """The user began to speak at `onset`: into the agent's speech, and if so, to interrupt or to acknowledge?"""
    if view.agent.horizon(view.now) <= onset:
        return None
    if view.agent.ipu_at(onset, view.now) is None:
        return _DROP
    (start, end), is_closed = view.user.utterance_from(onset, view.now)
    if end - start > UTTERANCE_BRIDGE:
        return [("interruption", "user", start, end, None)], [("yield", (onset,))]
    return ([], [("selectivity", (onset,))]) if is_closed else None


def _yield(view: View, onset: int) -> Decision:
    """Did the agent fall silent within 2 s, for more than 1 s or until the interruption was over?"""
    for _, end in view.agent.ipus_between(onset, onset + YIELD_WITHIN + 1, view.now):
        if end > onset + YIELD_WITHIN:
            break
        if view.agent.horizon(view.now) <= end:
            return None
        stays_silent = _stays_silent(view, onset, end)
        if stays_silent is None:
            return None
        if stays_silent:
            return [("agent_yielded", "agent", onset, end, end - onset)], [("response", (onset,))]
    if view.now <= onset + YIELD_WITHIN:
        return None
    return [("agent_held", "agent", onset, onset + YIELD_WITHIN, None)], []


def _stays_silent(view: View, onset: int, end: int) -> bool | None:
    resumed = view.agent.first_ipu_from(end)
    if (view.now if resumed is None else resumed) - end > UTTERANCE_BRIDGE:
        return True
    (_, user_end), is_closed = view.user.utterance_from(onset, view.now)
    if resumed is None:
        return True if is_closed else None
    if user_end > resumed:
        return False
    return True if is_closed else None


def _response(view: View, onset: int) -> Decision:
    """After an interruption to which the agent yielded: when did it answer, from the end of the interruption?"""
    (start, end), is_closed = view.user.utterance_from(onset, view.now)
    if not is_closed:
        return None
    turn = _turn(view, start, end)
    if turn is None or not turn[0]:
        return turn
    answers = [("agent_responded", *answer[1:]) for answer in turn[0] if answer[0] == "turn_answered"]
    return answers, []


def _selectivity(view: View, onset: int) -> Decision:
    """Did the agent stop within 1 s of the onset of the user's backchannel?"""
    covering = view.agent.ipu_at(onset, view.now)
    assert covering is not None
    (_, end), is_closed = view.agent.utterance_from(covering[0], view.now)
    if end > onset + STOP_WITHIN:
        return [("agent_ignored_backchannel", "agent", onset, onset + STOP_WITHIN, None)], []
    return ([("agent_stopped_for_backchannel", "agent", onset, end, end - onset)], []) if is_closed else None


_RULES: dict[str, Callable[..., Decision]] = {
    "pause": _pause,
    "turn": _turn,
    "brief": _brief,
    "backchannel": _backchannel,
    "onset": _onset,
    "yield": _yield,
    "response": _response,
    "selectivity": _selectivity,
}
