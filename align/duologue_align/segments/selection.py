"""Draw up to N segments of each set: by a hash of seed and name, so that a growing corpus changes little."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

from duologue_align.segments.segment import AXES, Axis, Segment


class Selection:
    """The segments drawn so far; holds N of each set and no more."""

    def __init__(self, *, per_axis: int, seed: int) -> None:
        """Begin an empty draw.

        Args:
            per_axis: Most segments of each set.
            seed: Other seeds draw others.
        """
        self._per_axis, self._seed = per_axis, seed
        self._heaps: dict[Axis, list[tuple[int, str, Segment]]] = {axis: [] for axis in AXES}
        self.found: dict[Axis, int] = dict.fromkeys(AXES, 0)

    def add(self, segments: Iterable[Segment]) -> None:
        """Offer segments."""
        for segment in segments:
            self.found[segment.axis] += 1
            # Negative, because the heap's least entry is the one to be pushed out.
            entry = (-self._rank(segment), segment.id, segment)
            heap = self._heaps[segment.axis]
            if len(heap) < self._per_axis:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    def chosen(self) -> list[Segment]:
        """Return what was drawn, in order of set, conversation and time."""
        return [
            segment
            for axis in AXES
            for segment in sorted(
                (segment for _, _, segment in self._heaps[axis]),
                key=lambda segment: (segment.conversation, segment.start_s, segment.id),
            )
        ]

    def _rank(self, segment: Segment) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._seed}:{segment.id}".encode()).digest()[:8], "big")
