"""Four agents that understand nothing: a metric worth its name must rate each of them badly somewhere.

Each takes the user's audio and returns the agent's, both 24 kHz float32 of one length. What gives each away is stated
with it; `benchmarks/degenerate_agents.py` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from duologue.types import SAMPLE_RATE_HZ, Pcm

ECHO_DELAY_S = 0.5
"""How late the echo repeats the user."""
MM_HM_S = 0.4
"""Length of one mm-hm: the median of human backchannels."""

_PITCH_HZ, _HARMONICS, _PEAK = 120.0, 12, 0.3


def render_speech(spans_s: Iterable[tuple[float, float]], duration_s: float) -> Pcm:
    """Return a voice-like buzz inside the spans and digital silence outside: activity with exactly known edges.

    Args:
        spans_s: When to sound, (start, end) in seconds.
        duration_s: Length of the result.
    """
    times = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * _PITCH_HZ * times
    buzz = sum(np.sin(k * phase) / k for k in range(1, _HARMONICS + 1))
    is_on = np.zeros(len(times), dtype=np.float64)
    for start, end in spans_s:
        is_on[round(start * SAMPLE_RATE_HZ) : round(end * SAMPLE_RATE_HZ)] = _PEAK / 2
    return np.asarray(buzz * is_on, dtype=np.float32)


def silent(user_pcm: Pcm) -> Pcm:
    """Say nothing. Given away by turn-taking: every turn is missed; no backchannels."""
    return np.zeros_like(user_pcm)


def always_talking(user_pcm: Pcm) -> Pcm:
    """Never stop. Given away by every axis: pauses taken, turns talked over, no interruption yielded to."""
    return _fitted(render_speech([(0.0, len(user_pcm) / SAMPLE_RATE_HZ)], len(user_pcm) / SAMPLE_RATE_HZ), user_pcm)


def two_mm_hm(user_pcm: Pcm) -> Pcm:
    """Say mm-hm twice in the whole conversation. Given away by turn-taking: all but two turns are missed at least."""
    duration_s = len(user_pcm) / SAMPLE_RATE_HZ
    onsets = (round(duration_s / 3, 2), round(2 * duration_s / 3, 2))
    return _fitted(render_speech([(onset, onset + MM_HM_S) for onset in onsets], duration_s), user_pcm)


def echo(user_pcm: Pcm) -> Pcm:
    """Repeat the user half a second later. Given away by pauses taken, turns talked over and the share of overlap."""
    delay = round(ECHO_DELAY_S * SAMPLE_RATE_HZ)
    return np.concatenate([np.zeros(delay, dtype=np.float32), user_pcm])[: len(user_pcm)]


DEGENERATE_AGENTS: dict[str, Callable[[Pcm], Pcm]] = {
    "silent": silent,
    "always talking": always_talking,
    "two mm-hm": two_mm_hm,
    "echo": echo,
}
"""The four by name."""


def _fitted(pcm: Pcm, like: Pcm) -> Pcm:
    return np.pad(pcm, (0, max(0, len(like) - len(pcm))))[: len(like)]
