"""A segment: a window of a conversation with the roles fixed, the set it belongs to and what happens in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from duologue.errors import ConfigError, WeightsError
from duologue.metrics.types import Event, Side
from duologue.types import FRAME_RATE_HZ, SAMPLE_RATE_HZ, Pcm
from duologue_align.corpus.audio import read_span
from duologue_align.corpus.conversation import Channel, Line, Split

Axis: TypeAlias = Literal["pause", "turn", "backchannel", "interruption", "user_backchannel", "hold"]
"""The set a segment belongs to; `duologue_align.segments.sets` states the rules."""

AXES: tuple[Axis, ...] = get_args(Axis)

CodesArray: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesPlace:
    """Where a segment's codes are.

    Attributes:
        file: safetensors file, relative to the mined folder.
        tensor: Name of the tensor in it, int16 [K, T].
        first_frame: Frame of the conversation at which the tensor begins.
    """

    file: str
    tensor: str
    first_frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A window of a conversation; every time is in seconds from the start of the conversation.

    Attributes:
        id: Unique name: conversation, roles, set and first frame.
        axis: The set.
        split: "train", "dev" or "test", the same for all segments of a conversation.
        conversation: Name of the conversation.
        is_swapped: Whether the corpus' agent is the user here.
        start_s: Begin of the window, a whole number of frames.
        end_s: End of it, a whole number of frames.
        user: Where the user's voice is.
        agent: Where the recorded agent's is.
        user_speaker: Who the user is, or None.
        agent_speaker: Likewise.
        events: What makes it a segment of its set; kinds and rules are those of `duologue.metrics`.
        user_spans: The user's IPUs in the window, cut at its edges.
        agent_spans: The recorded agent's.
        lines: What was said in the window, as far as the corpus says.
        codes_place: Where the user's codes are, or None if none were made.
        folder: The mined folder, from which codes are read.
    """

    id: str
    axis: Axis
    split: Split
    conversation: str
    is_swapped: bool
    start_s: float
    end_s: float
    user: Channel
    agent: Channel
    user_speaker: str | None = None
    agent_speaker: str | None = None
    events: tuple[Event, ...] = ()
    user_spans: tuple[tuple[float, float], ...] = ()
    agent_spans: tuple[tuple[float, float], ...] = ()
    lines: tuple[Line, ...] = ()
    codes_place: CodesPlace | None = None
    folder: Path = field(default=Path(), compare=False, repr=False)

    @property
    def duration_s(self) -> float:
        """Length of the window."""
        return round(self.end_s - self.start_s, 2)

    @property
    def first_frame(self) -> int:
        """Frame of the conversation at which the window begins."""
        return round(self.start_s * FRAME_RATE_HZ)

    @property
    def frames(self) -> int:
        """Frames in the window."""
        return round(self.end_s * FRAME_RATE_HZ) - self.first_frame

    @property
    def context_frames(self) -> int:
        """Frames of the user's codes that are there before the window."""
        return 0 if self.codes_place is None else self.first_frame - self.codes_place.first_frame

    def of_kind(self, kind: str, side: Side | None = None) -> tuple[Event, ...]:
        """Return the events of a kind, and of a side if one is named."""
        return tuple(event for event in self.events if event.kind == kind and side in (None, event.side))

    def user_codes(self, *, context_frames: int = 0) -> CodesArray:
        """Read the user's codes, int32, shape [K, context_frames + frames].

        The stream they were encoded with began at `context_frames` frames before the window, or earlier.

        Args:
            context_frames: Frames before the window to begin with, at most `context_frames`.

        Raises:
            ConfigError: No codes were made, or fewer frames of context than asked for.
            WeightsError: The file is missing or damaged.
        """
        place = self.codes_place
        if place is None:
            raise ConfigError(f"{self.id}: no codes were made; mine again with --codec")
        if not 0 <= context_frames <= self.context_frames:
            raise ConfigError(
                f"{self.id}: has {self.context_frames} frames of context, {context_frames} were asked for"
            )
        begin = self.context_frames - context_frames
        path = self.folder / place.file
        try:
            with safe_open(path, framework="np") as file:
                codes = file.get_slice(place.tensor)[:, begin : self.context_frames + self.frames]
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path}: cannot read {place.tensor} ({error}); mine again") from error
        return np.asarray(codes, dtype=np.int32)

    def pcm(self, side: Side, *, context_s: float = 0.0) -> Pcm:
        """Read a side's samples from its recording, float32 at 24 kHz, shape [n].

        Args:
            side: Whose.
            context_s: Seconds before the window to begin with.

        Raises:
            AudioError: The recording cannot be read.
            ConfigError: The conversation does not go that far back.
        """
        if not 0 <= context_s <= self.start_s:
            raise ConfigError(f"{self.id}: begins at {self.start_s} s; there are no {context_s} s before it")
        pcm = read_span(self.user if side == "user" else self.agent, self.start_s - context_s, self.end_s)
        assert len(pcm) == round((self.duration_s + context_s) * SAMPLE_RATE_HZ)
        return pcm


def to_row(segment: Segment) -> dict[str, Any]:
    """Return a segment as plain values, ready for JSON."""
    place = segment.codes_place
    return {
        "id": segment.id,
        "axis": segment.axis,
        "split": segment.split,
        "conversation": segment.conversation,
        "is_swapped": segment.is_swapped,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "user": channel_row(segment.user),
        "agent": channel_row(segment.agent),
        "user_speaker": segment.user_speaker,
        "agent_speaker": segment.agent_speaker,
        "events": [
            {"kind": e.kind, "side": e.side, "start_s": e.start_s, "end_s": e.end_s, "value_s": e.value_s}
            for e in segment.events
        ],
        "user_spans": [list(span) for span in segment.user_spans],
        "agent_spans": [list(span) for span in segment.agent_spans],
        "lines": [{"side": i.side, "start_s": i.start_s, "end_s": i.end_s, "text": i.text} for i in segment.lines],
        "codes": place and {"file": place.file, "tensor": place.tensor, "first_frame": place.first_frame},
    }


def from_row(row: dict[str, Any], folder: Path) -> Segment:
    """Return the segment that `to_row` made plain.

    Raises:
        KeyError: A field is missing.
        TypeError: A field is of another shape.
        ValueError: Likewise.
    """
    place = row["codes"]
    return Segment(
        id=row["id"],
        axis=row["axis"],
        split=row["split"],
        conversation=row["conversation"],
        is_swapped=row["is_swapped"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        user=channel_from(row["user"]),
        agent=channel_from(row["agent"]),
        user_speaker=row["user_speaker"],
        agent_speaker=row["agent_speaker"],
        events=tuple(Event(**event) for event in row["events"]),
        user_spans=tuple((start_s, end_s) for start_s, end_s in row["user_spans"]),
        agent_spans=tuple((start_s, end_s) for start_s, end_s in row["agent_spans"]),
        lines=tuple(Line(**line) for line in row["lines"]),
        codes_place=None if place is None else CodesPlace(**place),
        folder=folder,
    )


def channel_row(channel: Channel) -> dict[str, Any]:
    """Return where a side is, as plain values."""
    return {
        "path": str(channel.path),
        "channel": channel.channel,
        "start_s": channel.start_s,
        "duration_s": channel.duration_s,
    }


def channel_from(row: dict[str, Any]) -> Channel:
    """Return what `channel_row` made plain."""
    return Channel(**{**row, "path": Path(row["path"])})
