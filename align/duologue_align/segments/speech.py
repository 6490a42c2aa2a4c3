"""Who speaks when in a conversation: activity of each side, and the IPUs, utterances and events it makes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from duologue.errors import AudioError
from duologue.metrics.activity import Ticks, make_detector
from duologue.metrics.events import EventMachine
from duologue.metrics.timeline import TICK_S
from duologue.metrics.types import Event, Side
from duologue_align.corpus.audio import read_blocks
from duologue_align.corpus.conversation import Channel

Span = tuple[float, float]
"""(start, end) in seconds from the start of the conversation."""

TickSpans = tuple[tuple[int, int], ...]
"""Activity as runs of active ticks of 10 ms, [start, end)."""

_SAME_SHARE, _LEAST_SPEECH_S = 0.98, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Activity of both sides.

    Attributes:
        ticks: Ticks of 10 ms in the conversation, the longer side's.
        user: When the user is active.
        agent: When the agent is.
    """

    ticks: int
    user: TickSpans
    agent: TickSpans

    @property
    def duration_s(self) -> float:
        """Length of the conversation."""
        return round(self.ticks * TICK_S, 2)

    def swapped(self) -> Activity:
        """Return the same conversation with the roles exchanged."""
        return Activity(ticks=self.ticks, user=self.agent, agent=self.user)


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A conversation in the units of `duologue.metrics`, times in seconds.

    Attributes:
        duration_s: Its length.
        ipus: IPUs of either side, in order.
        utterances: Utterances of either side, in order.
        events: Everything the event machine found.
    """

    duration_s: float
    ipus: dict[Side, tuple[Span, ...]]
    utterances: dict[Side, tuple[Span, ...]]
    events: tuple[Event, ...]

    def pauses(self, side: Side, utterance: Span) -> list[Span]:
        """Return the silences between the IPUs of an utterance."""
        inside = overlapping(self.ipus[side], *utterance)
        return [(before[1], after[0]) for before, after in pairwise(inside)]


def listen(user: Channel, agent: Channel, detector: str) -> Activity:
    """Find the speech of both sides of a recording.

    Args:
        user: Where the user's voice is.
        agent: Where the agent's is.
        detector: "speech" or "level".

    Raises:
        AudioError: A side cannot be read, or both hold the same sound, so that nobody knows who speaks.
    """
    sides = [_ticks(channel, detector) for channel in (user, agent)]
    length = max(len(side) for side in sides)
    first, second = (np.pad(side, (0, length - len(side))) for side in sides)
    either = int((first | second).sum())
    if either * TICK_S > _LEAST_SPEECH_S and int((first & second).sum()) > _SAME_SHARE * either:
        raise AudioError(f"{user.path}: both channels hold the same sound; one speaker per channel is needed")
    return Activity(ticks=length, user=_runs(first), agent=_runs(second))


def analyse(activity: Activity) -> Talk:
    """Return IPUs, utterances and events by the rules of `duologue.metrics.events`."""
    machine = EventMachine()
    machine.advance(_spread(activity.user, activity.ticks), _spread(activity.agent, activity.ticks))
    machine.finish()
    events = tuple(machine.log)
    sides: tuple[Side, Side] = ("user", "agent")
    return Talk(
        duration_s=activity.duration_s,
        ipus={side: _spans(events, f"{side}_speech_ended", side) for side in sides},
        utterances={side: _spans(events, "utterance", side) for side in sides},
        events=events,
    )


def overlapping(spans: Sequence[Span], start_s: float, end_s: float) -> Sequence[Span]:
    """Return the spans that share time with [start_s, end_s); spans are in order and do not overlap each other."""
    first = bisect_right(spans, start_s, key=lambda span: span[1])
    return spans[first : bisect_left(spans, end_s, key=lambda span: span[0])]


def _ticks(channel: Channel, detector: str) -> Ticks:
    listener = make_detector(detector)
    heard = [listener.push(block) for block in read_blocks(channel)]
    ticks = np.concatenate([*heard, listener.finish()])
    if not len(ticks):
        raise AudioError(f"{channel.path}: shorter than 10 ms")
    return ticks


def _runs(active: Ticks) -> TickSpans:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return tuple((int(start), int(end)) for start, end in edges.reshape(-1, 2))


def _spread(spans: TickSpans, ticks: int) -> Ticks:
    active = np.zeros(ticks, dtype=np.bool_)
    for start, end in spans:
        active[start:end] = True
    return active


def _spans(events: Iterable[Event], kind: str, side: Side) -> tuple[Span, ...]:
    return tuple((event.start_s, event.end_s) for event in events if event.kind == kind and event.side == side)
