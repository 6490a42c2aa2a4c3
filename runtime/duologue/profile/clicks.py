"""The click loop: short clicks in the agent's stream, found again in the user's by a matched filter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from duologue.profile.audio_facts import ClickFacts, Step
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Codes, FrameResult, Pcm

PERIOD_FRAMES = 12
"""Frames between clicks: an echo may take as long as that, 960 ms, without being taken for the next one's."""
_MIN_SIMILARITY = 0.6
_LEVEL = 0.5


def click() -> Pcm:
    """Return the click: 2 ms of a 2 kHz tone under a Hann window, shape [48]."""
    count = round(0.002 * SAMPLE_RATE_HZ)
    tone = np.sin(2 * np.pi * 2000 * np.arange(count) / SAMPLE_RATE_HZ)
    return (_LEVEL * np.hanning(count) * tone).astype(np.float32)


class ClickLoop:
    """Stands between an audio loop and a conversation: lets it compute, and plays clicks in place of its voice."""

    def __init__(self, step: Step | None = None) -> None:
        """Start without a click sent.

        Args:
            step: The conversation, or None for one that computes nothing.
        """
        self._step = step
        self._heard: list[Pcm] = []

    def __call__(self, frame: Pcm) -> FrameResult:
        """Advance by the user's frame and reply with a click or silence."""
        reply = np.zeros(FRAME_SAMPLES, dtype=np.float32)
        if len(self._heard) % PERIOD_FRAMES == 0:
            sound = click()
            reply[: len(sound)] = sound
        self._heard.append(frame)
        if self._step is None:
            return FrameResult(index=len(self._heard) - 1, pcm=reply, text="", user_codes=_no_codes(), agent_codes=None)
        return replace(self._step(frame), pcm=reply)

    def facts(self, *, skip_frames: int = 0) -> ClickFacts | None:
        """Return how long the clicks took, or None if none came back.

        Args:
            skip_frames: Clicks of that many first frames do not count.
        """
        heard = np.concatenate(self._heard) if self._heard else np.empty(0, dtype=np.float32)
        period = PERIOD_FRAMES * FRAME_SAMPLES
        first = -(-skip_frames // PERIOD_FRAMES) * period
        starts = range(first, len(heard) - period + 1, period)
        delays = [_find(heard[start : start + period]) for start in starts]
        delays_ms = [1e3 * delay / SAMPLE_RATE_HZ for delay in delays if delay is not None]
        if not delays_ms:
            return None
        return ClickFacts(
            sent=len(delays),
            heard=len(delays_ms),
            p50_ms=float(np.median(delays_ms)),
            min_ms=min(delays_ms),
            max_ms=max(delays_ms),
        )


def _find(sound: Pcm) -> int | None:
    """Return where in `sound` the click begins, or None."""
    template = click()
    matches = np.abs(np.correlate(sound, template, mode="valid"))
    place = int(np.argmax(matches))
    energy = np.linalg.norm(sound[place : place + len(template)]) * np.linalg.norm(template)
    return place if energy > 0 and matches[place] / energy >= _MIN_SIMILARITY else None


def _no_codes() -> Codes:
    return np.zeros(8, dtype=np.int32)
