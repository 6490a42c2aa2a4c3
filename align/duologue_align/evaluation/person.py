"""A simulated person: talks from given material with human timing and reacts to the other side, frame by frame.

It takes turns at drawn floor-transfer offsets, pauses inside them, says mm-hm while the other speaks, breaks into the
other's longer turns, gives way when talked over, and speaks again when nobody answers. It knows nothing in advance: it
learns that the other has stopped by hearing silence, and whether a turn was complete by its last words.
Times are drawn from the figures of `duologue_align.synth.timing` (Switchboard).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duologue.metrics.activity import make_detector
from duologue.metrics.timeline import TICK_S, UTTERANCE_BRIDGE
from duologue.types import FRAME_RATE_HZ, FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm
from duologue_align.evaluation.voices import Utterance, Voice
from duologue_align.synth.timing import HumanTiming, human_timing

FADE_SAMPLES = 480
"""Fade of a turn that is given up, 20 ms."""
SOONEST_S, LATEST_S = 0.16, 2.0
"""Offsets at which it takes the floor: it cannot hear silence sooner than in two frames."""
YIELDS = 0.7
"""Share of the times it gives way when the other speaks into its turn for longer than an mm-hm."""
UNFINISHED_S = (0.4, 1.0)
"""How much longer it waits when the other's words do not sound complete."""
PATIENCE_S = (2.5, 5.0)
"""How long it waits for an answer before it speaks again."""
BACKCHANNEL_AFTER_S, BACKCHANNELS_APART_S = 1.2, 2.0
"""The other's speech before a backchannel, and the time between two."""
_FINAL = (".", "!", "?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a person behaves.

    Attributes:
        backchannels_per_min: Per minute of the other's speech.
        interruption_share: Share of the other's utterances that it means to break into, if they last.
        opens_after_s: When it speaks if nobody has begun.
    """

    backchannels_per_min: float
    interruption_share: float
    opens_after_s: float

    @classmethod
    def of_user(cls, rng: np.random.Generator) -> Manners:
        """Draw a user; it interrupts more than people do, so that a minute holds some interruptions."""
        rate = human_timing().draw("backchannels_per_speech_min", rng)
        return cls(
            backchannels_per_min=max(2.0, rate),
            interruption_share=float(rng.uniform(0.3, 0.6)),
            opens_after_s=float(rng.uniform(0.4, 1.5)),
        )

    @classmethod
    def of_agent(cls, rng: np.random.Generator) -> Manners:
        """Draw a partner for such a user: it leaves the opening to the user and interrupts nobody."""
        rate = human_timing().draw("backchannels_per_speech_min", rng)
        return cls(backchannels_per_min=max(2.0, rate), interruption_share=0.0, opens_after_s=5.0)


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that was begun: when, until when, what, and whether it broke into the other's speech."""

    start_s: float
    end_s: float
    text: str
    is_interruption: bool


@dataclass(slots=True)
class _Speech:
    """What is being said.

    Attributes:
        pcm: All of it with its pauses.
        spans: Where it sounds, in samples.
        begin: First sample, from the start of the conversation.
        kind: "turn", "interruption" or "backchannel".
        text: The words.
        tail: The last word, told when the last phrase begins: until then the turn does not sound complete.
        yields_at_s: When it will be given up, None while there is no reason to.
        met: Start of the other's utterance about which it was decided whether to yield.
    """

    pcm: Pcm
    spans: list[tuple[int, int]]
    begin: int
    kind: str
    text: str
    tail: str = ""
    yields_at_s: float | None = None
    met: float | None = None


class _Ear:
    """Hears whether the other speaks, since when, and since when not; a tenth of a second late, as people are."""

    def __init__(self) -> None:
        self._detector = make_detector("level")
        self._ticks = 0
        self.is_speaking = False
        self.utterance_start_s: float | None = None
        self.silent_since_s: float | None = None
        self.speech_s = 0.0

    def hear(self, frame: Pcm) -> None:
        """Take a frame in."""
        for is_active in self._detector.push(frame).tolist():
            now_s = self._ticks * TICK_S
            self._ticks += 1
            if is_active:
                has_rested = self.silent_since_s is None or now_s - self.silent_since_s > UTTERANCE_BRIDGE * TICK_S
                if not self.is_speaking and (self.utterance_start_s is None or has_rested):
                    self.utterance_start_s = now_s
                self.speech_s += TICK_S
            elif self.is_speaking:
                self.silent_since_s = now_s
            self.is_speaking = is_active


class Person:
    """One side of a conversation; deterministic in its voice, its seed and what it hears.

    Attributes:
        turns: Its turns so far.
        spans_s: Where it sounded so far, in seconds.
    """

    def __init__(self, voice: Voice, manners: Manners, rng: np.random.Generator) -> None:
        """Begin a conversation.

        Args:
            voice: What it can say.
            manners: How it behaves.
            rng: Source of every choice.
        """
        self._voice, self._manners, self._rng = voice, manners, rng
        self._timing: HumanTiming = human_timing()
        self._ear = _Ear()
        self._frame = 0
        self._speech: _Speech | None = None
        self._heard_text = ""
        self._next_turn = 0
        self._ended_s: float | None = None
        self._patience_s = float(rng.uniform(*PATIENCE_S))
        self._answer: tuple[float, float] | None = None
        self._meant: tuple[float, float | None] | None = None
        self._backchannel_due_s = self._gap()
        self._last_backchannel_s = -BACKCHANNELS_APART_S
        self.turns: list[Turn] = []
        self.spans_s: list[tuple[float, float]] = []

    @property
    def now_s(self) -> float:
        """Time of the next frame."""
        return self._frame / FRAME_RATE_HZ

    def step(self, heard: Pcm, text: str = "") -> tuple[Pcm, str]:
        """Hear the other's last frame and return one's own next one, with the words begun in it.

        Args:
            heard: 24 kHz, shape [1920].
            text: What the other began to say in it, "" for nothing or unknown.
        """
        self._ear.hear(heard)
        self._heard_text += text
        begun = ""
        if self._speech is not None:
            self._consider_yielding(self._speech)
        if self._speech is None:
            begun = self._decide()
        return self._sound(), begun + self._ending()

    def close(self) -> None:
        """End the conversation: what is being said counts as far as it was heard."""
        if self._speech is not None:
            self._finish(self._speech, self._frame * FRAME_SAMPLES)

    def _decide(self) -> str:
        if self._ear.is_speaking:
            self._answer = None
            return self._listen()
        if self._ear.silent_since_s is None:
            is_due = self.now_s >= self._manners.opens_after_s and self._ended_s is None
            is_due |= self._ended_s is not None and self.now_s >= self._ended_s + self._patience_s
            return self._speak("turn") if is_due else ""
        return self._take_floor(self._ear.silent_since_s)

    def _take_floor(self, silent_since_s: float) -> str:
        if self._ended_s is not None and silent_since_s <= self._ended_s:
            is_due = self.now_s >= self._ended_s + self._patience_s
            return self._speak("turn") if is_due else ""
        if self._answer is None or self._answer[0] != silent_since_s:
            offset_s = self._timing.draw("turn_fto_s", self._rng, low=SOONEST_S, high=LATEST_S)
            if not self._heard_text.rstrip().endswith(_FINAL):
                offset_s += float(self._rng.uniform(*UNFINISHED_S))
            self._answer = (silent_since_s, silent_since_s + offset_s)
        return self._speak("turn") if self.now_s >= self._answer[1] else ""

    def _listen(self) -> str:
        start_s = self._ear.utterance_start_s
        assert start_s is not None
        if self._meant is None or self._meant[0] != start_s:
            means_to = self._rng.random() < self._manners.interruption_share
            depth_s = self._timing.draw("interruption_depth_s", self._rng, low=1.2, high=6.0)
            self._meant = (start_s, start_s + depth_s if means_to else None)
        at_s = self._meant[1]
        if at_s is not None and self.now_s >= at_s:
            self._meant = (start_s, None)
            return self._speak("interruption")
        is_long = self.now_s - start_s >= BACKCHANNEL_AFTER_S
        is_rested = self.now_s - self._last_backchannel_s >= BACKCHANNELS_APART_S
        if self._ear.speech_s >= self._backchannel_due_s and is_long and is_rested and self._voice.backchannels:
            self._backchannel_due_s = self._ear.speech_s + self._gap()
            return self._speak("backchannel")
        return ""

    def _consider_yielding(self, speech: _Speech) -> None:
        start_s = self._ear.utterance_start_s
        begin_s = speech.begin / SAMPLE_RATE_HZ
        if speech.kind == "backchannel" or not self._ear.is_speaking or start_s is None:
            return
        if start_s > begin_s and speech.met != start_s and self.now_s - start_s > UTTERANCE_BRIDGE * TICK_S:
            speech.met = start_s
            if self._rng.random() < YIELDS:
                speech.yields_at_s = self.now_s + self._timing.draw("yield_s", self._rng, low=0.0, high=1.0)
        if speech.yields_at_s is not None and self.now_s >= speech.yields_at_s:
            self._give_up(speech)

    def _speak(self, kind: str) -> str:
        chosen = self._choose(kind)
        if chosen is None:
            return ""
        begin = self._frame * FRAME_SAMPLES
        parts: list[Pcm] = []
        spans: list[tuple[int, int]] = []
        position = begin
        for index, phrase in enumerate(chosen.phrases):
            if index:
                pause = round(self._timing.draw("pause_s", self._rng, low=0.21, high=1.0) * SAMPLE_RATE_HZ)
                parts.append(np.zeros(pause, dtype=np.float32))
                position += pause
            parts.append(phrase)
            spans.append((position, position + len(phrase)))
            position += len(phrase)
        self._speech = _Speech(np.concatenate(parts), spans, begin, kind, chosen.text)
        self._answer = None
        if kind == "backchannel":
            self._last_backchannel_s = self.now_s
            return chosen.text
        self._heard_text = ""
        text = chosen.text.rstrip()
        *head, last = (text if text.endswith(_FINAL) else f"{text}.").split() or ["."]
        self._speech.tail = f" {last}"
        return f" {' '.join(head)}"

    def _choose(self, kind: str) -> Utterance | None:
        if kind == "backchannel":
            tokens = self._voice.backchannels
            return tokens[int(self._rng.integers(len(tokens)))]
        chosen = self._voice.turns[self._next_turn % len(self._voice.turns)]
        self._next_turn += 1
        return chosen

    def _sound(self) -> Pcm:
        begin = self._frame * FRAME_SAMPLES
        self._frame += 1
        frame = np.zeros(FRAME_SAMPLES, dtype=np.float32)
        speech = self._speech
        if speech is None:
            return frame
        part = speech.pcm[begin - speech.begin : begin - speech.begin + FRAME_SAMPLES]
        frame[: len(part)] = part
        if begin + FRAME_SAMPLES >= speech.begin + len(speech.pcm):
            self._finish(speech, speech.begin + len(speech.pcm))
        return frame

    def _ending(self) -> str:
        speech = self._speech
        if speech is None or not speech.tail or self._frame * FRAME_SAMPLES < speech.spans[-1][0]:
            return ""
        ending, speech.tail = speech.tail, ""
        return ending

    def _give_up(self, speech: _Speech) -> None:
        stop = self._frame * FRAME_SAMPLES + FADE_SAMPLES
        rest = speech.pcm[: stop - speech.begin].copy()
        if len(rest) >= FADE_SAMPLES:
            rest[-FADE_SAMPLES:] *= np.linspace(1.0, 0.0, FADE_SAMPLES, dtype=np.float32)
        speech.pcm = rest
        speech.yields_at_s = None

    def _finish(self, speech: _Speech, end: int) -> None:
        heard = [(start, min(stop, end)) for start, stop in speech.spans if start < end]
        self.spans_s += [(start / SAMPLE_RATE_HZ, stop / SAMPLE_RATE_HZ) for start, stop in heard]
        self._speech = None
        if speech.kind != "backchannel":
            end_s = end / SAMPLE_RATE_HZ
            # A turn that was given up counts with the words that were heard of it.
            is_whole = len(heard) == len(speech.spans) and heard[-1] == speech.spans[-1]
            text = speech.text if is_whole else ""
            self.turns.append(Turn(speech.begin / SAMPLE_RATE_HZ, end_s, text, speech.kind == "interruption"))
            self._ended_s = end_s
            self._patience_s = float(self._rng.uniform(*PATIENCE_S))

    def _gap(self) -> float:
        return float(self._rng.exponential(60.0 / self._manners.backchannels_per_min))
