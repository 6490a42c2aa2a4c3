"""Words by ear: what a recogniser hears in audio, in the form of an inner monologue, so that the rest need not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from duologue.metrics.timeline import TICK_S, UTTERANCE_BRIDGE
from duologue.types import SAMPLE_RATE_HZ, Pcm
from duologue_align.corpus.conversation import Line
from duologue_align.evaluation.items import Item
from duologue_align.evaluation.take import heard, spoken_spans
from duologue_align.judge.transcriber import Speech, Transcriber, make_transcriber

INNER_MONOLOGUE = "inner-monologue"
LONGEST_S = 25.0
"""Utterances that are longer are heard in parts; recognisers read 30 s at most."""

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ears:
    """A recogniser with a name, which tells what it heard from what others did.

    Attributes:
        name: As given to `make_transcriber`.
        transcriber: Tells the words of a stretch of audio.
    """

    name: str
    transcriber: Transcriber

    @classmethod
    def open(cls, name: str) -> Ears | None:
        """Load a recogniser by its name; None for the inner monologue, which needs no ears.

        Raises:
            ConfigError: As `make_transcriber`; MissingExtraError and WeightsError likewise.
        """
        return None if name == INNER_MONOLOGUE else cls(name, make_transcriber(name))

    def words(self, pcm: Pcm, start_s: float, end_s: float) -> str:
        """Return what is said in a stretch of samples at 24 kHz, shape [n]."""
        first, last = (max(0, round(at_s * SAMPLE_RATE_HZ)) for at_s in (start_s, end_s))
        return self.transcriber.transcribe(Speech(pcm=pcm[first:last]))

    def transcript(self, pcm: Pcm) -> list[tuple[float, str]]:
        """Return what is said in samples at 24 kHz, shape [n], as an inner monologue: (time in seconds, " word").

        Each utterance is heard by itself and its words are spread evenly over the time in which it sounds.
        """
        found: list[tuple[float, str]] = []
        for ipus in _utterances(spoken_spans(heard(pcm))):
            words = self.words(pcm, ipus[0][0], ipus[-1][1]).split()
            edges = np.cumsum([0.0, *(end - start for start, end in ipus)])
            for index, word in enumerate(words):
                sounded_s = index / len(words) * edges[-1]
                place = int(np.searchsorted(edges, sounded_s, side="right")) - 1
                found.append((float(ipus[place][0] + sounded_s - edges[place]), f" {word}"))
        return found


def hear_user(item: Item, ears: Ears) -> Item:
    """Return the item with what the user says in its focus, if nobody wrote that down."""
    if item.user_words():
        return item
    start_s, end_s = item.focus_s
    text = ears.words(item.audio(0.0), start_s, end_s)
    return replace(item, lines=(*item.lines, Line("user", start_s, end_s, text))) if text else item


def _utterances(ipus: Sequence[Span]) -> list[list[Span]]:
    groups: list[list[Span]] = []
    for ipu in ipus:
        is_new = not groups or ipu[0] - groups[-1][-1][1] > UTTERANCE_BRIDGE * TICK_S
        if is_new or ipu[1] - groups[-1][0][0] > LONGEST_S:
            groups.append([])
        groups[-1].append(ipu)
    return groups
