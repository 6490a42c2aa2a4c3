"""What a reward looks at: a recorded situation, and what the agent did in it. Plain data on a grid of 10 ms ticks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from duologue.errors import ConfigError
from duologue.metrics.events import Activity
from duologue.metrics.timeline import TICK_S, TICKS_PER_FRAME, Span
from duologue.metrics.types import Event
from duologue_align.segments.segment import AXES, Axis, Segment

Seconds: TypeAlias = tuple[float, float]
"""A span [start, end) in seconds from the start of the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A window of a recorded conversation in which the agent's side is to be filled anew.

    The windows are those of `duologue_align.segments.sets`; the focus is what the axis is about: the user's utterance
    ("pause", "turn", "backchannel"), the utterance with which the user breaks in ("interruption"), or the utterance
    that the recorded agent holds ("user_backchannel", "hold").

    Attributes:
        axis: What the situation tests.
        user: Activity of the recorded user, shape [ticks]; the user never reacts.
        reference: Activity of the recorded agent, a human, shape [ticks].
        focus: What the axis is about, [start, end) in ticks of the window.
    """

    axis: Axis
    user: Activity
    reference: Activity
    focus: Span

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            ConfigError: An unknown axis, activities of two lengths, or a focus outside the window.
        """
        if self.axis not in AXES:
            raise ConfigError(f"axis {self.axis!r} is unknown; use one of {', '.join(AXES)}")
        if self.user.ndim != 1 or self.user.shape != self.reference.shape:
            raise ConfigError(
                f"user {self.user.shape} and reference {self.reference.shape} must be one-dimensional and of one length"
            )
        if not 0 <= self.focus[0] < self.focus[1] <= len(self.user):
            raise ConfigError(f"focus {self.focus} lies outside the window of {len(self.user)} ticks")

    @property
    def ticks(self) -> int:
        """Length of the window in ticks of 10 ms."""
        return len(self.user)

    @property
    def duration_s(self) -> float:
        """Length of the window in seconds."""
        return round(self.ticks * TICK_S, 2)

    @classmethod
    def from_spans(
        cls,
        *,
        axis: Axis,
        duration_s: float,
        user_spans_s: Iterable[Seconds],
        reference_spans_s: Iterable[Seconds],
        focus_s: Seconds,
    ) -> Situation:
        """Build from spans of speech in seconds; what lies outside the window is cut off.

        Args:
            axis: What the situation tests.
            duration_s: Length of the window.
            user_spans_s: Where the recorded user speaks.
            reference_spans_s: Where the recorded agent speaks.
            focus_s: What the axis is about.

        Raises:
            ConfigError: As the constructor.
        """
        ticks = round(duration_s / TICK_S)
        return cls(
            axis=axis,
            user=spans_to_activity(user_spans_s, ticks),
            reference=spans_to_activity(reference_spans_s, ticks),
            focus=(max(0, round(focus_s[0] / TICK_S)), min(ticks, round(focus_s[1] / TICK_S))),
        )

    @classmethod
    def from_segment(cls, segment: Segment) -> Situation:
        """Build from a mined segment.

        Raises:
            ConfigError: The segment holds no utterance that its axis is about.
        """
        return cls.from_events(
            axis=segment.axis,
            window_s=(segment.start_s, segment.end_s),
            events=segment.events,
            user_spans_s=segment.user_spans,
            reference_spans_s=segment.agent_spans,
        )

    @classmethod
    def from_events(
        cls,
        *,
        axis: Axis,
        window_s: Seconds,
        events: Sequence[Event],
        user_spans_s: Iterable[Seconds],
        reference_spans_s: Iterable[Seconds],
    ) -> Situation:
        """Build from a window of a conversation, all times in seconds of the conversation.

        Args:
            axis: What the situation tests.
            window_s: The window.
            events: What makes it a segment, as `duologue_align.segments.sets` lists it.
            user_spans_s: Where the recorded user speaks.
            reference_spans_s: Where the recorded agent speaks.

        Raises:
            ConfigError: The events hold no utterance that the axis is about.
        """
        begin_s, end_s = window_s
        start_s, stop_s = _focus(axis, events)
        return cls.from_spans(
            axis=axis,
            duration_s=end_s - begin_s,
            user_spans_s=[(start - begin_s, end - begin_s) for start, end in user_spans_s],
            reference_spans_s=[(start - begin_s, end - begin_s) for start, end in reference_spans_s],
            focus_s=(start_s - begin_s, stop_s - begin_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the agent did in a situation.

    Attributes:
        activity: Where the agent's audio is active, shape [ticks] of the situation.
        text: What the agent said (inner monologue or transcript), or None if nobody knows.
        judge_score: Rating of the text by a judge in its own unit, or None if nobody asked one.
    """

    activity: Activity
    text: str | None = None
    judge_score: float | None = None


def spans_to_activity(spans_s: Iterable[Seconds], ticks: int) -> Activity:
    """Return activity on the grid, shape [ticks], true inside the spans."""
    activity = np.zeros(ticks, dtype=np.bool_)
    for start_s, end_s in spans_s:
        activity[max(0, round(start_s / TICK_S)) : max(0, round(end_s / TICK_S))] = True
    return activity


def frames_to_ticks(active_frames: Activity, ticks: int) -> Activity:
    """Return activity per 80 ms frame, shape [frames], on the grid of ticks; shape [ticks], the rest is silence."""
    stretched = np.repeat(active_frames, TICKS_PER_FRAME)[:ticks]
    return np.pad(stretched, (0, ticks - len(stretched)))


def bridged_spans(activity: Activity, bridge: int) -> list[Span]:
    """Return the spans of an activity, silences of at most `bridge` ticks included, in ticks."""
    edges = np.flatnonzero(np.diff(activity, prepend=False, append=False)).reshape(-1, 2)
    if not len(edges):
        return []
    is_apart = edges[1:, 0] - edges[:-1, 1] > bridge
    starts, ends = edges[:, 0][np.r_[True, is_apart]], edges[:, 1][np.r_[is_apart, True]]
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _focus(axis: Axis, events: Sequence[Event]) -> Seconds:
    side = "agent" if axis in ("user_backchannel", "hold") else "user"
    place = {"interruption": 1, "user_backchannel": -1, "hold": -1}.get(axis, 0)
    utterances = [event for event in events if event.kind == "utterance" and event.side == side]
    try:
        return utterances[place].start_s, utterances[place].end_s
    except IndexError:
        raise ConfigError(f"a segment of the set {axis!r} must list the {side}'s utterances among its events") from None
