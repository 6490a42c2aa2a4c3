"""How events are marked in the pictures: one sign, one shape and one tone for each kind that is worth a mark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from duologue.metrics.types import Event

Tone: TypeAlias = Literal["good", "bad", "plain"]
"""Whether the event speaks for the agent, against it, or neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The mark of one kind of event.

    Attributes:
        kind: Kind of the event.
        label: What the legend calls it.
        sign: One character, for text.
        path: SVG path around the origin, about 10 px wide.
        tone: Colour class.
        is_at_end: Whether the end of the event's span is the moment to mark, not its begin.
    """

    kind: str
    label: str
    sign: str
    path: str
    tone: Tone
    is_at_end: bool = False

    def time_s(self, event: Event) -> float:
        """Return the moment of an event at which its mark stands."""
        return event.end_s if self.is_at_end else event.start_s


_SQUARE = "M-4.5-4.5H4.5V4.5H-4.5Z"

MARKS = (
    Mark(kind="takeover", label="takeover of a pause", sign="▲", path="M0-5.5L5.5 4.5H-5.5Z", tone="bad"),
    Mark(
        kind="turn_missed",
        label="missed turn",
        sign="✕",
        path="M-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0L-5-3Z",
        tone="bad",
        is_at_end=True,
    ),
    Mark(
        kind="turn_talked_over",
        label="turn talked over",
        sign="△",
        path="M0-5.5L5.5 4.5H-5.5ZM0-2L-2.5 2.8H2.5Z",
        tone="bad",
        is_at_end=True,
    ),
    Mark(kind="interruption", label="interruption", sign="◆", path="M0-6L6 0L0 6L-6 0Z", tone="plain"),
    Mark(kind="agent_yielded", label="agent yielded", sign="■", path=_SQUARE, tone="good", is_at_end=True),
    Mark(
        kind="agent_held",
        label="agent did not yield",
        sign="□",
        path=f"{_SQUARE}M-2.5-2.5V2.5H2.5V-2.5Z",
        tone="bad",
        is_at_end=True,
    ),
    Mark(
        kind="backchannel",
        label="backchannel",
        sign="●",
        path="M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z",
        tone="plain",
    ),
    Mark(
        kind="agent_stopped_for_backchannel",
        label="agent stopped for a backchannel",
        sign="▼",
        path="M0 5.5L5.5-4.5H-5.5Z",
        tone="bad",
        is_at_end=True,
    ),
)
"""Every mark, in the order of the legend."""

_BY_KIND = {mark.kind: mark for mark in MARKS}


def marked(events: Iterable[Event]) -> list[tuple[Mark, Event]]:
    """Return the events that carry a mark, each with its mark, in order of time."""
    pairs = [(_BY_KIND[event.kind], event) for event in events if event.kind in _BY_KIND]
    return sorted(pairs, key=lambda pair: (pair[0].time_s(pair[1]), pair[0].kind))
