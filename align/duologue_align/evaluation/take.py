"""A take: what an agent did in one item, as activity and words, and the playing that makes one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from duologue.agent import DuplexAgent
from duologue.metrics.activity import Ticks, make_detector
from duologue.metrics.timeline import IPU_BRIDGE, TICK_S
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm
from duologue_align.rewards.situation import bridged_spans
from duologue_align.sft.dialogues import SpokenWord

LETTER_S, SHORTEST_S = 0.06, 0.16
"""A word lasts so long per letter, and so long at least; the inner monologue tells only where it begins."""
EARLY_S = 0.8
"""How far ahead of its sound a word of the inner monologue may stand."""


@dataclass(frozen=True, slots=True)
class Take:
    """What an agent did.

    Attributes:
        spans_s: Where it speaks, IPUs in seconds from the start of the window.
        words: What it says with times, or None for an agent without words.
    """

    spans_s: tuple[tuple[float, float], ...]
    words: tuple[SpokenWord, ...] | None = None


def play(agent: DuplexAgent, user: Pcm, *, seed: int) -> tuple[Pcm, list[tuple[float, str]]]:
    """Play a recorded user to an agent in a conversation of its own.

    Args:
        agent: The agent.
        user: 24 kHz, shape [n]; the last frame is padded with silence.
        seed: Of the session.

    Returns:
        The agent's samples, shape [n], and its inner monologue as (time in seconds, piece).
    """
    frames = np.pad(user, (0, -len(user) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
    with agent.session(seed=seed) as session:
        pcm = np.concatenate([session.step(frame).pcm for frame in frames])
        return pcm[: len(user)], session.transcript


def make_take(pcm: Pcm, transcript: Iterable[tuple[float, str]], *, lead_s: float = 0.0) -> tuple[Take, Pcm]:
    """Cut what came before the window off and find the speech and the words in the rest.

    Args:
        pcm: The agent's samples, 24 kHz.
        transcript: Its inner monologue, times from the first sample.
        lead_s: What lies before the window, in seconds.

    Returns:
        The take and the samples of the window.
    """
    window = pcm[round(lead_s * SAMPLE_RATE_HZ) :]
    spans = spoken_spans(heard(window))
    return Take(spans, tuple(place_words([(at_s - lead_s, piece) for at_s, piece in transcript], spans))), window


def heard(pcm: Pcm) -> Ticks:
    """Return the activity of clean audio by loudness, ticks of 10 ms."""
    detector = make_detector("level")
    return np.concatenate([detector.push(pcm), detector.finish()])


def spoken_spans(activity: Ticks) -> tuple[tuple[float, float], ...]:
    """Return the IPUs of an activity in seconds."""
    runs = bridged_spans(activity, IPU_BRIDGE)
    return tuple((round(start * TICK_S, 2), round(end * TICK_S, 2)) for start, end in runs)


def place_words(transcript: Sequence[tuple[float, str]], spans_s: Sequence[tuple[float, float]]) -> list[SpokenWord]:
    """Put the words of an inner monologue where they sound; a word with no sound at its place is not heard.

    Args:
        transcript: (time in seconds, piece); a piece that begins with a blank begins a word.
        spans_s: Where the agent sounds, in order.
    """
    words: list[tuple[float, str]] = []
    for at_s, piece in transcript:
        for part in re.findall(r"\s*\S+", piece):
            if words and not part[0].isspace():
                words[-1] = (words[-1][0], words[-1][1] + part)
            else:
                words.append((at_s, part.strip()))
    placed: list[SpokenWord] = []
    for index, (at_s, text) in enumerate(words):
        span = next((span for span in spans_s if span[1] > at_s), None)
        if at_s < 0 or span is None or span[0] > at_s + EARLY_S:
            continue
        start_s = max(at_s, span[0])
        following_s = words[index + 1][0] if index + 1 < len(words) else np.inf
        longest_s = max(SHORTEST_S, LETTER_S * len(text))
        end_s = min(start_s + longest_s, max(following_s, start_s + TICK_S), span[1])
        placed.append(SpokenWord(text, round(start_s, 3), round(float(end_s), 3)))
    return placed
