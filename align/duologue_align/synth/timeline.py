"""The growing dialogue: what each side says when, and what happened between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from duologue_align.synth.pieces import Phone, Piece, Word, heard_phones, shifted
from duologue_align.synth.voices import Voice

Side: TypeAlias = Literal["user", "agent"]
SIDES: tuple[Side, Side] = ("user", "agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How often the agent departs from good manners in one dialogue; all 0 is the well-behaved agent.

    Each is the share of its occasions, drawn one by one: who listens to such an agent cannot tell from one fault that
    another follows.

    Attributes:
        takes_over_pauses: Starts to answer in a longer pause of the user.
        answers_late: Answers 1.5 to 4 s after the user's turn.
        misses_turns: Leaves a turn of the user without an answer.
        skips_backchannels: Is silent where it would have backchannelled.
        talks_over_interruptions: Finishes its turn when interrupted.
        stops_for_backchannels: Gives its turn up when the user says "uh-huh".
    """

    takes_over_pauses: float = 0.0
    answers_late: float = 0.0
    misses_turns: float = 0.0
    skips_backchannels: float = 0.0
    talks_over_interruptions: float = 0.0
    stops_for_backchannels: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A piece at its place.

    Attributes:
        side: Who speaks.
        start_s: When its first sample sounds.
        piece: Audio and words.
        kind: "turn", "backchannel", "interruption" or "takeover".
    """

    side: Side
    start_s: float
    piece: Piece
    kind: str

    @property
    def end_s(self) -> float:
        """When its last sample sounds."""
        return self.start_s + self.piece.duration_s


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that the composer decided: ground truth, with the times at which it happens.

    Attributes:
        kind: Named as in `duologue.metrics`: "pause", "backchannel", "interruption", "agent_yielded", ...
        side: Who did it.
        start_s: Begin, in seconds from the start of the dialogue.
        end_s: End.
        value_s: Offset or latency it was drawn with, if its kind has one.
    """

    kind: str
    side: Side
    start_s: float
    end_s: float
    value_s: float | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A turn as text: who, when, what, and why (what a reply was matched by, or where a user's line is from)."""

    side: Side
    start_s: float
    end_s: float
    text: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialoguePlan:
    """What is fixed before a dialogue is composed.

    Attributes:
        duration_s: Length of the recording, a whole number of frames.
        user: The user's voice.
        behaviour: The agent's manners.
        user_backchannels_per_min: Backchannels of the user per minute of the agent's speech.
        agent_backchannels_per_min: The same of the agent.
        interruption_share: Share of the agent's longer turns that the user interrupts.
    """

    duration_s: float
    user: Voice
    behaviour: Behaviour
    user_backchannels_per_min: float
    agent_backchannels_per_min: float
    interruption_share: float


@dataclass(slots=True)
class Timeline:
    """Everything placed so far."""

    placed: list[Placed] = field(default_factory=list)
    happened: list[Happening] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)

    def add(self, side: Side, start_s: float, piece: Piece, kind: str) -> None:
        """Place a piece."""
        self.placed.append(Placed(side, start_s, piece, kind))

    def note(self, kind: str, side: Side, start_s: float, end_s: float, value_s: float | None = None) -> None:
        """Record a happening."""
        self.happened.append(Happening(kind, side, start_s, end_s, value_s))

    def free_from(self, side: Side, start_s: float) -> float:
        """Return `start_s`, or later if the side is still speaking then."""
        ends = (placed.end_s + 0.25 for placed in self.placed if placed.side == side)
        return max(start_s, max(ends, default=start_s))

    def is_free(self, side: Side, start_s: float, end_s: float, margin_s: float) -> bool:
        """Tell whether the side says nothing within `margin_s` of [start_s, end_s)."""
        return all(
            placed.side != side or placed.end_s + margin_s <= start_s or placed.start_s >= end_s + margin_s
            for placed in self.placed
        )

    def spans(self, side: Side, duration_s: float) -> list[tuple[float, float]]:
        """Return where the side sounds, in order, clipped to the recording."""
        spans = sorted(
            (placed.start_s + start, placed.start_s + end)
            for placed in self.placed
            if placed.side == side
            for start, end in placed.piece.spans
        )
        return [(start, min(end, duration_s)) for start, end in spans if start < duration_s]

    def words(self, side: Side, duration_s: float) -> list[Word]:
        """Return the words of a side in order; those that the end of the recording cuts are left out."""
        words = [
            shifted(word, placed.start_s)
            for placed in self.placed
            if placed.side == side
            for word in placed.piece.words
        ]
        return sorted((word for word in words if word.end_s <= duration_s), key=lambda word: word.start_s)

    def phones(self, side: Side, duration_s: float) -> list[Phone]:
        """Return the phones of a side in order, clipped to the recording."""
        phones = (
            shifted(phone, placed.start_s)
            for placed in self.placed
            if placed.side == side
            for phone in placed.piece.phones
        )
        return sorted(heard_phones(phones, duration_s), key=lambda phone: phone.start_s)
