"""Cut what is said into IPUs: where a speaker pauses inside a turn, and where a user hesitates."""

from __future__ import annotations

import numpy as np

from duologue_align.synth.pieces import Sentence
from duologue_align.synth.timing import HumanTiming

WORD_S = 0.27
"""Mean time of a spoken word, to turn IPU lengths into words before anything is spoken."""
_OPENERS = frozenset(
    ("and", "but", "because", "so", "or", "when", "if", "that", "then", "which", "where", "while", "since", "though")
)


def phrase(
    sentences: list[str],
    timing: HumanTiming,
    rng: np.random.Generator,
    *,
    fillers: list[str] | None = None,
    filler_rate: float = 0.22,
    is_fluent: bool = False,
) -> list[tuple[Sentence, bool]]:
    """Plan the breaks of a turn.

    Breaks come where the running IPU has reached a length drawn from the human IPUs: at the next end of a sentence or
    clause, or in mid-phrase when none comes soon.

    Args:
        sentences: Written sentences of the turn.
        timing: Human figures.
        rng: Source of the choices.
        fillers: Hesitations to put beside breaks, or None for a fluent speaker.
        filler_rate: Share of the breaks inside sentences that get one.
        is_fluent: Whether to break between clauses only, never in mid-phrase.

    Returns:
        For each sentence its words and breaks, and whether a pause follows it.
    """
    planned: list[tuple[Sentence, bool]] = []
    target, run = _target(timing, rng), 0
    for number, text in enumerate(sentences):
        words: list[str] = []
        breaks: set[int] = set()
        written = text.split()
        for index, word in enumerate(written):
            words.append(word)
            run += 1
            is_last = index == len(written) - 1
            if is_last or not _is_due(written, index, run, target, is_fluent=is_fluent):
                continue
            _hesitate(words, breaks, fillers, filler_rate, rng)
            target, run = _target(timing, rng), 0
        is_turn_end = number == len(sentences) - 1
        pauses = not is_turn_end and run >= 0.5 * target
        if pauses:
            target, run = _target(timing, rng), 0
        planned.append((Sentence(words=tuple(words), breaks=frozenset(breaks)), pauses))
    return planned


def _target(timing: HumanTiming, rng: np.random.Generator) -> float:
    return timing.draw("ipu_s", rng, low=0.45, high=7.0) / WORD_S


def _is_due(written: list[str], index: int, run: int, target: float, *, is_fluent: bool) -> bool:
    left = len(written) - 1 - index
    if left < 2 and run < 2 * target:
        return False
    following = written[index + 1].lower().strip(",.!?")
    if written[index][-1] in ",;:" or following in _OPENERS:
        return run >= 0.7 * target
    return not is_fluent and run >= 1.5 * target


def _hesitate(
    words: list[str], breaks: set[int], fillers: list[str] | None, rate: float, rng: np.random.Generator
) -> None:
    chance = rng.random()
    if not fillers or chance >= rate:
        breaks.add(len(words) - 1)
        return
    filler = fillers[int(rng.integers(len(fillers)))]
    words[-1] = words[-1].rstrip(",;:") + ","
    if chance < rate / 2:
        breaks.add(len(words) - 1)
        words += filler.split()
    else:
        words += filler.split()
        breaks.add(len(words) - 1)
    words[-1] += ","
