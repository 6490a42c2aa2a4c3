"""Speech with human timing drawn from the bundled figures: breaths, answers, backchannels, yielding. Ticks of 10 ms."""

from __future__ import annotations

import numpy as np

from duologue.metrics.timeline import TICK_S, Span
from duologue_align.synth.timing import human_timing

BACKCHANNELS_PER_PHRASE = 0.14
"""Chance of a backchannel beside the end of a phrase: 5.4 a minute of the other's speech, IPUs of 1.55 s in the median
and 2.3 s in the mean."""


def draw(name: str, rng: np.random.Generator, *, low: float = -np.inf, high: float = np.inf) -> int:
    """Draw a time by its name in `duologue_align.synth.timing`, in ticks; low and high are in seconds."""
    return round(human_timing().draw(name, rng, low=low, high=high) / TICK_S)


def speech(start: int, end: int, rng: np.random.Generator, *, longest_pause_s: float = 1.0) -> list[Span]:
    """Return IPUs with pauses that begin at `start` and are cut off at `end`."""
    spans: list[Span] = []
    tick = start
    while tick < end:
        stop = min(end, tick + draw("ipu_s", rng))
        spans.append((tick, stop))
        tick = stop + draw("pause_s", rng, high=longest_pause_s)
    return spans


def backchannels(phrases: list[Span], rng: np.random.Generator) -> list[Span]:
    """Return backchannels of the other side beside the ends of phrases, the last phrase left out, in order."""
    spans: list[Span] = []
    for _, end in phrases[:-1]:
        if rng.random() >= BACKCHANNELS_PER_PHRASE:
            continue
        onset = end + draw("backchannel_offset_s", rng, low=-1.0, high=1.0)
        stop = onset + draw("backchannel_s", rng, high=1.0)
        if onset > phrases[0][0] and stop < phrases[-1][1] and (not spans or onset > spans[-1][1] + 100):
            spans.append((onset, stop))
    return spans
