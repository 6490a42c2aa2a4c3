"""Stand-ins for the synthesiser and the text source, so that the composing of dialogues is tested without either."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from duologue.types import SAMPLE_RATE_HZ
from duologue_align.synth.chat import ChatLine, UserText
from duologue_align.synth.pieces import Phone, Piece, Sentence, Word
from duologue_align.synth.voices import Voice

WORD_S = 0.27
LINES = UserText(
    [
        ChatLine(
            "I watched a long movie last night, and then I could not sleep at all because it was so sad.", ("movies",)
        ),
        ChatLine("My dog ran away from me in the park this morning. It took me an hour to find him again.", ("pets",)),
        ChatLine("Do you like music? I have been trying to learn the guitar, but my fingers hurt.", ("music",)),
        ChatLine("I think so too.", ()),
        ChatLine("We went to the lake with my family, and the water was really cold, but it was fun.", ("family",)),
    ]
)


class ToneSpeaker:
    """Speaks every word as 0.27 s of a tone; a voice's pitch sets the tone."""

    def speak(self, voice: Voice, sentence: Sentence) -> list[Piece]:
        pieces, words = [], []
        for index, text in enumerate(sentence.words):
            words.append(text)
            if index in sentence.breaks or index == len(sentence.words) - 1:
                pieces.append(self._piece(voice, words))
                words = []
        return pieces

    def _piece(self, voice: Voice, words: list[str]) -> Piece:
        length_s = WORD_S * len(words)
        spoken = tuple(Word(word, WORD_S * i, WORD_S * (i + 1) - 0.02) for i, word in enumerate(words))
        phones = tuple(Phone("t", word.start_s, word.end_s) for word in spoken)
        pcm = _tone(voice.pitch)[: round(length_s * SAMPLE_RATE_HZ)]
        return Piece(pcm=pcm, words=spoken, phones=phones, spans=((0.0, length_s),))


@cache
def _tone(pitch: float) -> npt.NDArray[np.int16]:
    time_s = np.arange(20 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    return (0.14 * 32767 * np.sin(2 * np.pi * 1000 * pitch * time_s)).astype(np.int16)
