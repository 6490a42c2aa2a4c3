"""One side's speech as it becomes known: raw activity ticks to IPUs and utterances.

Time runs in ticks of 10 ms; a span [start, end) is in ticks, `now` is the number of ticks observed. IPU: activity with
silences of at most 0.2 s bridged. Utterance: IPUs of one side with silences of at most 1.0 s bridged.
Source: 0.2 s as in the Switchboard figures the human bands come from; 1.0 s as in arXiv 2606.11167 section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TICK_S = 0.01
"""Seconds in one tick; the grid on which every rule of this package is stated."""
TICKS_PER_FRAME = 8
"""Ticks in one 80 ms frame."""
IPU_BRIDGE = 20
"""Longest silence inside an IPU, in ticks."""
UTTERANCE_BRIDGE = 100
"""Longest silence inside an utterance, in ticks; also the length above which speech is no backchannel."""

Span = tuple[int, int]


@dataclass(slots=True)
class SideTrack:
    """IPUs and utterances of one side, closed ones and the open one.

    Attributes:
        is_active: State of the last tick observed.
        last_end: Tick after the last active one; meaningful while silent.
        ipu_start: Start of the open IPU, or None.
        utterance_start: Start of the open utterance, or None.
        ipus: Closed IPUs.
        utterances: Closed utterances.
    """

    is_active: bool = False
    last_end: int = 0
    ipu_start: int | None = None
    utterance_start: int | None = None
    ipus: list[Span] = field(default_factory=list)
    utterances: list[Span] = field(default_factory=list)

    def copy(self) -> SideTrack:
        """Return an independent copy."""
        return SideTrack(
            is_active=self.is_active,
            last_end=self.last_end,
            ipu_start=self.ipu_start,
            utterance_start=self.utterance_start,
            ipus=list(self.ipus),
            utterances=list(self.utterances),
        )

    def turn_on(self, tick: int) -> bool:
        """Note that activity begins at `tick`; return whether an IPU begins with it."""
        self.is_active = True
        begins = self.ipu_start is None
        if begins:
            self.ipu_start = tick
        if self.utterance_start is None:
            self.utterance_start = tick
        return begins

    def turn_off(self, tick: int) -> None:
        """Note that activity ends: `tick` is the first silent one."""
        self.is_active = False
        self.last_end = tick

    def close_ipu(self) -> Span:
        """Close the open IPU at the last activity and return it."""
        assert self.ipu_start is not None
        span = (self.ipu_start, self.last_end)
        self.ipus.append(span)
        self.ipu_start = None
        return span

    def close_utterance(self) -> Span:
        """Close the open utterance at the last activity and return it."""
        assert self.utterance_start is not None
        span = (self.utterance_start, self.last_end)
        self.utterances.append(span)
        self.utterance_start = None
        return span

    def horizon(self, now: int) -> int:
        """Return the tick up to which it is settled whether this side is inside an IPU."""
        return self.last_end if self.ipu_start is not None and not self.is_active else now

    def heard_until(self, now: int) -> int:
        """Return the tick after the last activity so far, 0 if there was none."""
        return now if self.is_active else self.last_end

    def ipu_at(self, tick: int, now: int) -> Span | None:
        """Return the IPU with start < tick < end, its end `now` or later while it is open, or None."""
        return _span_at(self.ipus, self.ipu_start, tick, self.heard_until(now))

    def utterance_at(self, tick: int, now: int) -> Span | None:
        """Return the utterance with start < tick < end (end so far, while it is open), or None."""
        return _span_at(self.utterances, self.utterance_start, tick, self.heard_until(now))

    def first_ipu_from(self, tick: int) -> int | None:
        """Return the start of the first IPU that begins at `tick` or later, or None."""
        found = self.ipu_start if self.ipu_start is not None and self.ipu_start >= tick else None
        for start, _ in reversed(self.ipus):
            if start < tick:
                break
            found = start
        return found

    def ipus_between(self, begin: int, end: int, now: int) -> list[Span]:
        """Return the IPUs that share a tick with [begin, end), in order of time."""
        found = []
        if self.ipu_start is not None and self.ipu_start < end and self.heard_until(now) > begin:
            found.append((self.ipu_start, self.heard_until(now)))
        for span in reversed(self.ipus):
            if span[1] <= begin:
                break
            if span[0] < end:
                found.append(span)
        return found[::-1]

    def utterance_from(self, ipu_start: int, now: int) -> tuple[Span, bool]:
        """Return the utterance that holds the IPU beginning at `ipu_start`, and whether it is closed."""
        if self.utterance_start is not None and self.utterance_start <= ipu_start:
            return (self.utterance_start, self.heard_until(now)), False
        for span in reversed(self.utterances):
            if span[0] <= ipu_start:
                return span, True
        raise AssertionError(f"no utterance holds tick {ipu_start}")


def _span_at(closed: list[Span], open_start: int | None, tick: int, heard_until: int) -> Span | None:
    if open_start is not None and open_start < tick:
        return (open_start, heard_until) if tick < heard_until else None
    for start, end in reversed(closed):
        if start < tick:
            return (start, end) if tick < end else None
    return None
