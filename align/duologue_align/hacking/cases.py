"""Draw situations for the suite: at most one of a conversation and axis, so that they are independent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from duologue.errors import ConfigError
from duologue.metrics.timeline import TICK_S, UTTERANCE_BRIDGE
from duologue_align.rewards.situation import Seconds, Situation, bridged_spans
from duologue_align.segments.rules import MiningRules
from duologue_align.segments.segment import AXES, Axis
from duologue_align.segments.sets import Found, find_segments
from duologue_align.segments.speech import Activity, TickSpans, analyse

RULES = MiningRules(longest_s=30.0, skip_backchannels=True)
"""The paper's thresholds; windows over 30 s are left out, and a backchannel does not break a sequence of turns."""

Conversations: TypeAlias = Iterable[tuple[int, Activity]]
"""(number, activity of both sides)."""


@dataclass(frozen=True, slots=True)
class Case:
    """A situation and the conversation it is from.

    Attributes:
        situation: The situation.
        conversation: Number of the conversation.
    """

    situation: Situation
    conversation: int


def read_timing(path: Path, *, half: int | None = None) -> Iterator[tuple[int, Activity]]:
    """Yield the conversations of a who-speaks-when file: one row per IPU, conversation, channel, start_s, end_s.

    Args:
        path: An npz file.
        half: 0 for the conversations with even numbers, 1 for the odd ones, None for all.

    Raises:
        ConfigError: The file cannot be read, or an array is missing.
    """
    try:
        with np.load(path) as data:
            conversation, channel = data["conversation"], data["channel"]
            spans = np.rint(np.stack([data["start_s"], data["end_s"]], axis=1) / TICK_S).astype(int)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: {error}; expected arrays conversation, channel, start_s and end_s") from error
    for rows in np.split(np.arange(len(conversation)), np.flatnonzero(np.diff(conversation)) + 1):
        number = int(conversation[rows[0]])
        if half is None or number % 2 == half:
            sides = [_ordered(spans[rows[channel[rows] == side]]) for side in (0, 1)]
            yield number, Activity(ticks=int(spans[rows, 1].max()), user=sides[0], agent=sides[1])


def draw_cases(conversations: Conversations, per_axis: int, *, seed: int = 0) -> list[Case]:
    """Return up to `per_axis` cases of each axis, in the order of the conversations; either person is the user once.

    Interruptions are drawn where the recorded agent yielded and answered by the event rules: the other sets hold by
    their own rules what a well-behaved agent did, and this one does not. "user_backchannel" and "hold" are drawn where
    the window begins with a turn of the user, so that an agent without context has something to answer.

    Args:
        conversations: Where to draw from, until every axis has enough.
        per_axis: Cases of each axis.
        seed: Other seeds draw others.
    """
    cases: list[Case] = []
    missing = dict.fromkeys(AXES, per_axis)
    for number, activity in conversations:
        if not any(missing[axis] for axis in AXES if axis != "interruption") and not _may_interrupt(activity):
            continue
        rng = np.random.default_rng((seed, number))
        for axis, found in _by_axis(activity).items():
            if found and missing[axis]:
                missing[axis] -= 1
                cases.append(Case(found[int(rng.integers(len(found)))], number))
        if not any(missing.values()):
            break
    return cases


def _by_axis(activity: Activity) -> dict[Axis, list[Situation]]:
    situations: dict[Axis, list[Situation]] = {axis: [] for axis in AXES}
    for roles in (activity, activity.swapped()):
        for found in find_segments(analyse(roles), RULES):
            if _is_example(found):
                situations[found.axis].append(_situation(found, roles))
    return situations


def _may_interrupt(activity: Activity) -> bool:
    """Tell whether four long utterances alternate, the third begun in the second; far quicker than to look properly."""
    order = sorted(
        (*span, side)
        for side, runs in enumerate((activity.user, activity.agent))
        for span in _utterances(runs)
        if span[1] - span[0] >= RULES.interruption_min_s / TICK_S
    )
    fours = zip(order, order[1:], order[2:], order[3:], strict=False)
    return any(a[2] == c[2] != b[2] == d[2] and c[0] < b[1] for a, b, c, d in fours)


def _utterances(runs: TickSpans) -> TickSpans:
    active = np.zeros(runs[-1][1] if runs else 0, dtype=np.bool_)
    for start, end in runs:
        active[start:end] = True
    return tuple(bridged_spans(active, UTTERANCE_BRIDGE))


def _is_example(found: Found) -> bool:
    kinds = {event.kind for event in found.events}
    if found.axis == "interruption":
        return {"agent_yielded", "agent_responded"} <= kinds
    return any(event.kind == "utterance" and event.side == "user" for event in found.events)


def _situation(found: Found, activity: Activity) -> Situation:
    return Situation.from_events(
        axis=found.axis,
        window_s=(found.start_s, found.end_s),
        events=found.events,
        user_spans_s=_seconds(activity.user),
        reference_spans_s=_seconds(activity.agent),
    )


def _seconds(spans: TickSpans) -> list[Seconds]:
    return [(start * TICK_S, end * TICK_S) for start, end in spans]


def _ordered(spans: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> TickSpans:
    return tuple(sorted((int(start), int(end)) for start, end in spans))
