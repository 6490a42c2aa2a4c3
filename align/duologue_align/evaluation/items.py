"""What an agent is evaluated on when the user is a recording: one situation, its audio, and what was said in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duologue.types import SAMPLE_RATE_HZ, Pcm
from duologue_align.corpus.conversation import Line
from duologue_align.rewards.situation import Situation
from duologue_align.segments.mining import file_stem
from duologue_align.segments.segment import Axis, Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A situation with a recorded user.

    Attributes:
        name: Unique among the items, and a file name.
        conversation: What it was cut from; intervals treat the items of one conversation as one observation.
        situation: Who speaks when, the axis and its focus; the recorded agent is silent where it is not known.
        has_reference: Whether the recorded agent is known.
        lines: What the user and the recorded agent said, times from the start of the window.
        audio: Returns the user's samples with so many seconds before the window, 24 kHz, shape [n].
        source: Folder of files that Full-Duplex-Bench keeps beside a sample, or None.
        segment: Id of the mined segment; "" if it is none.
    """

    name: str
    conversation: str
    situation: Situation
    has_reference: bool
    lines: tuple[Line, ...]
    audio: Callable[[float], Pcm]
    source: Path | None = None
    segment: str = ""

    @property
    def axis(self) -> Axis:
        """What the item tests."""
        return self.situation.axis

    @property
    def focus_s(self) -> tuple[float, float]:
        """What the axis is about, in seconds from the start of the window."""
        start, end = self.situation.focus
        return start / 100, end / 100

    def user_words(self, *, before_focus: bool = False) -> str:
        """Return what the user said in the focus, or before it."""
        start_s, end_s = self.focus_s
        span = (0.0, start_s) if before_focus else (start_s, end_s)
        return " ".join(line.text for line in _within(self.lines, *span) if line.side == "user")


def items_from_segments(segments: Iterable[Segment]) -> list[Item]:
    """Return mined segments as items; those that cannot be a situation are left out by `mine` already.

    Raises:
        ConfigError: A segment holds no utterance that its axis is about.
    """
    return [_from_segment(segment) for segment in segments]


def with_lead(pcm: Pcm, lead_s: float, there_s: float) -> Pcm:
    """Put silence before samples whose first `there_s` seconds are lead already, up to `lead_s` seconds of it."""
    return np.pad(pcm, (round((lead_s - there_s) * SAMPLE_RATE_HZ), 0))


def _from_segment(segment: Segment) -> Item:
    def audio(lead_s: float) -> Pcm:
        there_s = min(lead_s, segment.start_s)
        return with_lead(segment.pcm("user", context_s=there_s), lead_s, there_s)

    return Item(
        name=file_stem(segment.id),
        conversation=segment.conversation,
        situation=Situation.from_segment(segment),
        has_reference=True,
        lines=tuple(
            Line(line.side, line.start_s - segment.start_s, line.end_s - segment.start_s, line.text)
            for line in segment.lines
        ),
        audio=audio,
        segment=segment.id,
    )


def _within(lines: Sequence[Line], start_s: float, end_s: float) -> list[Line]:
    return [line for line in lines if start_s <= (line.start_s + line.end_s) / 2 < end_s]
