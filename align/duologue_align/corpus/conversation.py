"""A conversation as a corpus describes it: two channels, perhaps speakers, words and a split of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from duologue.metrics.types import Side

Split: TypeAlias = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

TranscriptForm: TypeAlias = Literal["lines", "alignments", "session", "fisher", "seamless", "candor"]
"""How a transcript is written; `duologue_align.corpus.transcripts` reads each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Where one side's voice is.

    Attributes:
        path: The recording.
        channel: Which channel of it, from 0; None for a recording that has only one.
        start_s: Where in the recording the conversation begins.
        duration_s: How much of the recording belongs to the conversation; None is all that follows.
    """

    path: Path
    channel: int | None = None
    start_s: float = 0.0
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """Something that was said.

    Attributes:
        side: Who said it.
        start_s: When, in seconds from the start of the conversation.
        end_s: Until when.
        text: The words.
    """

    side: Side
    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """Where the words are.

    Attributes:
        form: How they are written.
        paths: One file, or the user's and the agent's where each side has its own.
    """

    form: TranscriptForm
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Two people (or a person and an agent), one channel each.

    Attributes:
        name: Unique name; the split and the seed of the selection hang on it, so it must not depend on where the
            corpus lies.
        user: Channel of the side that a model would listen to.
        agent: Channel of the side that a model would take; where a corpus knows no such roles, the other one.
        user_speaker: Who that is, or None.
        agent_speaker: Likewise.
        transcript: Where the words are, or None.
        lines: Words that came with the listing itself.
        split: Split that the corpus prescribes, or None.
    """

    name: str
    user: Channel
    agent: Channel
    user_speaker: str | None = None
    agent_speaker: str | None = None
    transcript: Transcript | None = None
    lines: tuple[Line, ...] = ()
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something in a source that is no usable conversation.

    Attributes:
        name: File or entry.
        reason: What is wrong with it, in one line.
    """

    name: str
    reason: str
