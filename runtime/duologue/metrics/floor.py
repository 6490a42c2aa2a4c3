"""Who holds the floor: mutual silences, overlaps and floor transfers from the merged activity of both sides.

A side is "on" inside its IPUs. The floor belongs to the last side that was on alone.

* pause: neither side on, and the side that held the floor before is the one that is on alone after it.
* floor transfer: the floor passes from one side to the other. Its offset (FTO) is the start of the new holder's IPU
  minus the end of the old holder's last IPU: positive across a silence (a gap), negative through an overlap.
* overlap: both sides on.
Source: Heldner and Edlund 2010, "Pauses, gaps and overlaps in conversations"; the Switchboard figures use the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from duologue.metrics.types import Side

Edge = tuple[int, str, bool]
"""(tick, side, on): from this tick on the side is, or is no more, inside an IPU."""
FloorEvent = tuple[str, Side | None, int, int, int | None]
"""(kind, side, start, end, value), all in ticks."""


@dataclass(slots=True)
class Floor:
    """State of the floor; feed it settled edges in order of time.

    Attributes:
        edges: Edges that are known but not yet settled, because the other side may still add an earlier one.
        on: Sides that are on.
        holder: Side that was last on alone, or None at the beginning.
        since: Tick of the last change of `on`.
        ipu_start: Start of each side's last IPU.
        ipu_end: End of each side's last finished IPU.
    """

    edges: list[Edge] = field(default_factory=list)
    on: set[str] = field(default_factory=set)
    holder: Side | None = None
    since: int = 0
    ipu_start: dict[str, int] = field(default_factory=dict)
    ipu_end: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Floor:
        """Return an independent copy."""
        return Floor(
            edges=list(self.edges),
            on=set(self.on),
            holder=self.holder,
            since=self.since,
            ipu_start=dict(self.ipu_start),
            ipu_end=dict(self.ipu_end),
        )

    def add(self, edge: Edge) -> None:
        """Note an edge; edges of one side come in order, the two sides' may interleave."""
        self.edges.append(edge)

    def settle(self, horizon: int) -> list[FloorEvent]:
        """Apply every edge before `horizon` and return what happened.

        Args:
            horizon: No edge before this tick can still be added.
        """
        if not any(edge[0] < horizon for edge in self.edges):
            return []
        self.edges.sort()
        events: list[FloorEvent] = []
        while self.edges and self.edges[0][0] < horizon:
            tick = self.edges[0][0]
            count = sum(edge[0] == tick for edge in self.edges)
            events += self._apply(tick, self.edges[:count])
            del self.edges[:count]
        return events

    def _apply(self, tick: int, edges: list[Edge]) -> list[FloorEvent]:
        before, after = set(self.on), set(self.on)
        for _, side, is_on in edges:
            (after.add if is_on else after.discard)(side)
            (self.ipu_start if is_on else self.ipu_end)[side] = tick
        events: list[FloorEvent] = []
        if len(before) == 2:
            events.append(("overlap", None, self.since, tick, None))
        if len(after) == 1 and after != before:
            events += self._take(after, before, tick)
        self.on, self.since = after, tick
        return events

    def _take(self, after: set[str], before: set[str], tick: int) -> list[FloorEvent]:
        side: Side = "user" if "user" in after else "agent"
        old, self.holder = self.holder, side
        if old is None:
            return []
        if old == side:
            return [] if before else [("pause", side, self.since, tick, None)]
        start, end = self.ipu_start[side], self.ipu_end[old]
        events: list[FloorEvent] = [("gap", side, end, start, start - end)] if start > end else []
        return [*events, ("floor_transfer", side, min(start, end), max(start, end), start - end)]
