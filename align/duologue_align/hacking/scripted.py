"""Whole conversations of two people, who speaks when, scripted from the bundled human timing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from duologue.metrics.timeline import Span
from duologue_align.hacking.human_timing import backchannels, draw
from duologue_align.rewards.situation import bridged_spans
from duologue_align.segments.speech import Activity, TickSpans

LENGTH = 30_000
"""Five minutes, the length of the recorded conversations."""
INTERRUPTED_SHARE = 0.4
"""Share of the turns over 4 s that the listener cuts short: more than people do, so that few conversations suffice."""
FEWEST_PHRASES = 2
"""Phrases of a turn, at least; the shorter turns of people make no segments."""


def script_conversations(count: int, *, seed: int = 0) -> Iterator[tuple[int, Activity]]:
    """Yield (number, activity) of scripted conversations; the same seed gives the same ones."""
    for number in range(count):
        yield number, script_conversation(np.random.default_rng((seed, number)))


def script_conversation(rng: np.random.Generator) -> Activity:
    """Return who speaks when in five minutes: turns of phrases, floor transfers, backchannels, interruptions."""
    sides: tuple[list[Span], list[Span]] = ([], [])
    speaker, tick = int(rng.integers(2)), 50
    while tick < LENGTH:
        phrases = _turn(tick, rng)
        sides[1 - speaker].extend(backchannels(phrases, rng))
        end = phrases[-1][1]
        if end - tick > 400 and rng.random() < INTERRUPTED_SHARE:
            onset = int(rng.integers(tick + 300, end))
            end = min(end, onset + draw("yield_s", rng, high=1.7))
            next_tick = onset
        else:
            next_tick = end + draw("turn_fto_s", rng, low=-1.0, high=2.0)
        sides[speaker].extend((start, min(stop, end)) for start, stop in phrases if start < end)
        speaker, tick = 1 - speaker, max(next_tick, tick + 30)
    return Activity(ticks=LENGTH, user=_runs(sides[0]), agent=_runs(sides[1]))


def _turn(tick: int, rng: np.random.Generator) -> list[Span]:
    phrases: list[Span] = []
    for _ in range(draw("turn_ipus", rng, low=FEWEST_PHRASES) // 100):
        phrases.append((tick, tick + draw("ipu_s", rng)))
        tick = phrases[-1][1] + draw("pause_s", rng)
    return phrases


def _runs(spans: list[Span]) -> TickSpans:
    active = np.zeros(LENGTH, dtype=np.bool_)
    for start, end in spans:
        active[max(0, start) : end] = True
    return tuple(bridged_spans(active, 0))
