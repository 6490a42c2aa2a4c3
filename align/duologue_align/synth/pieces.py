"""Spoken pieces: audio between two breaks with the times of its words, of its phones and of its sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from duologue.types import SAMPLE_RATE_HZ
from duologue_align.synth.voices import Voice

TICK_SAMPLES = 240
"""Activity is decided every 10 ms."""
FLOOR_DB = -42.0
"""A tick is active when its level is at most this far below the loudest tick of its sentence."""
BRIDGE_S = 0.2
"""Silences up to this belong to the IPU."""
FADE_SAMPLES = 480
"""Fade at a cut, 20 ms."""


@dataclass(frozen=True, slots=True)
class Word:
    """A spoken word: its text as written, punctuation included, and when it sounds, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Phone:
    """A speech sound: its IPA letter and when it sounds, in seconds."""

    name: str
    start_s: float
    end_s: float


_Timed = TypeVar("_Timed", Word, Phone)


def shifted(sound: _Timed, by_s: float) -> _Timed:
    """Return a word or a phone `by_s` later."""
    return replace(sound, start_s=sound.start_s + by_s, end_s=sound.end_s + by_s)


def heard_phones(phones: Iterable[Phone], end_s: float) -> tuple[Phone, ...]:
    """Return the phones that sound between 0 and `end_s`, those at the edges clipped."""
    clipped = (replace(phone, start_s=max(phone.start_s, 0.0), end_s=min(phone.end_s, end_s)) for phone in phones)
    return tuple(phone for phone in clipped if phone.start_s < phone.end_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Audio without a break in it.

    Attributes:
        pcm: Samples, int16, shape [n], 24 kHz; sound begins at the first and ends at the last.
        words: Words with times from the first sample.
        phones: Phones likewise, in order. A phone that a cut leaves of a word stays where its word does not.
        spans: Where there is sound, silences <= 0.2 s bridged, as (start_s, end_s).
    """

    pcm: npt.NDArray[np.int16]
    words: tuple[Word, ...]
    phones: tuple[Phone, ...]
    spans: tuple[tuple[float, float], ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.pcm) / SAMPLE_RATE_HZ

    @property
    def text(self) -> str:
        """The words in a row."""
        return " ".join(word.text for word in self.words)

    def cut(self, at_s: float) -> Piece:
        """Return what is heard of the piece if its speaker stops at `at_s`, faded out; a half spoken word stays."""
        samples = max(FADE_SAMPLES, min(len(self.pcm), round(at_s * SAMPLE_RATE_HZ)))
        pcm = self.pcm[:samples].astype(np.float32)
        pcm[-FADE_SAMPLES:] *= np.linspace(1.0, 0.0, FADE_SAMPLES, dtype=np.float32)
        end_s = samples / SAMPLE_RATE_HZ
        words = tuple(
            replace(word, end_s=min(word.end_s, end_s))
            for word in self.words
            if (word.start_s + word.end_s) / 2 <= end_s
        )
        spans = tuple((start, min(end, end_s)) for start, end in self.spans if start < end_s)
        return Piece(pcm=pcm.astype(np.int16), words=words, phones=heard_phones(self.phones, end_s), spans=spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence to be spoken.

    Attributes:
        words: Written words with their punctuation.
        breaks: Indices of the words after which the speaker pauses; the end of the sentence is not among them.
    """

    words: tuple[str, ...]
    breaks: frozenset[int] = frozenset()


class Speaker(Protocol):
    """Whatever speaks sentences: the synthesiser, or a stand-in in tests."""

    def speak(self, voice: Voice, sentence: Sentence) -> list[Piece]:
        """Return one piece per stretch between breaks; the same arguments give the same samples."""
        ...


def levels_db(pcm: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the level of every 10 ms tick in dB, shape [len(pcm) // 240]."""
    ticks = pcm[: len(pcm) // TICK_SAMPLES * TICK_SAMPLES].reshape(-1, TICK_SAMPLES)
    power = np.einsum("ij,ij->i", ticks, ticks) / TICK_SAMPLES
    levels: npt.NDArray[np.float32] = 10 * np.log10(power + 1e-10)
    return levels


def cut_piece(
    pcm: npt.NDArray[np.float32],
    active: npt.NDArray[np.bool_],
    words: Sequence[Word],
    phones: Sequence[Phone],
    first_tick: int,
    end_tick: int,
) -> Piece | None:
    """Cut [first_tick, end_tick) out of a spoken sentence and trim the silence at both ends.

    Args:
        pcm: The sentence, float32 in [-1, 1].
        active: Which of its ticks sound.
        words: The words of the cut, with times in the sentence.
        phones: Their phones, likewise.
        first_tick: Where the cut begins, in ticks.
        end_tick: Where it ends.

    Returns:
        The piece, or None if nothing sounds in it.
    """
    sounding = first_tick + np.flatnonzero(active[first_tick:end_tick])
    if len(sounding) == 0:
        return None
    begin, end = int(sounding[0]), int(sounding[-1]) + 1
    samples = pcm[begin * TICK_SAMPLES : end * TICK_SAMPLES].copy()
    fade = min(FADE_SAMPLES // 4, len(samples) // 2)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    samples[:fade] *= ramp
    samples[len(samples) - fade :] *= ramp[::-1]
    tick_s = TICK_SAMPLES / SAMPLE_RATE_HZ
    length_s = (end - begin) * tick_s
    moved = [shifted(word, -begin * tick_s) for word in words]
    inside = tuple(
        Word(word.text, min(max(word.start_s, 0.0), length_s - tick_s), min(max(word.end_s, tick_s), length_s))
        for word in moved
    )
    return Piece(
        pcm=(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16),
        words=inside,
        phones=heard_phones((shifted(phone, -begin * tick_s) for phone in phones), length_s),
        spans=tuple(bridge(sounding - begin, tick_s)),
    )


def bridge(ticks: npt.NDArray[np.intp], tick_s: float) -> list[tuple[float, float]]:
    """Return spans of sounding ticks with silences up to `BRIDGE_S` bridged, in seconds."""
    breaks = np.flatnonzero(np.diff(ticks) > round(BRIDGE_S / tick_s) + 1)
    starts = ticks[np.concatenate([[0], breaks + 1])]
    ends = ticks[np.concatenate([breaks, [len(ticks) - 1]])] + 1
    return [(float(start * tick_s), float(end * tick_s)) for start, end in zip(starts, ends, strict=True)]
