"""How much of the agent's audio must wait for the loudspeaker: as little as the lateness of the replies allows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from time import perf_counter

import numpy as np

from duologue.types import FRAME_SAMPLES, FrameResult, Pcm

WINDOW_FRAMES = 125
"""Replies that count: those of the last ten seconds."""
_GUARD_S = 0.006
_STALL_S = 0.040
_WARMUP_FRAMES = 15
_MARGIN_MS = 15.0
_MAX_MS = 1000.0


def first_playout_ms(step: Callable[[Pcm], FrameResult]) -> float:
    """Warm a conversation up on silence and return the estimate to start with, in ms.

    Args:
        step: One frame of it.
    """
    times_ms = []
    silence = np.zeros(FRAME_SAMPLES, dtype=np.float32)
    for _ in range(_WARMUP_FRAMES):
        begun_s = perf_counter()
        step(silence)
        times_ms.append(1e3 * (perf_counter() - begun_s))
    # The first frames fill caches and delays.
    return min(float(math.ceil(np.percentile(times_ms[3:], 95) + _MARGIN_MS)), _MAX_MS)


class PlayoutMeter:
    """Follows how late replies come.

    A frame's reply is late by the user's audio that has come in since the frame was complete. The latest reply of ten
    seconds, and 6 ms to spare, is what must wait. A reply later than that by more than 40 ms is a stall and
    no jitter: it counts for 40 ms, and the loop makes up for the rest. However late replies are, no more than a
    maximum waits.
    """

    def __init__(self, playout_s: float, *, max_s: float) -> None:
        """Start with an estimate, which stands until ten seconds have passed or more is needed.

        Args:
            playout_s: The estimate.
            max_s: The maximum, if the estimate is not above it.
        """
        self.playout_s = playout_s
        self._max_s = max(max_s, playout_s)
        self._late_s: deque[float] = deque(maxlen=WINDOW_FRAMES)

    def add(self, late_s: float) -> float:
        """Note a reply and return what must wait from now on, in s.

        Args:
            late_s: How late it came.
        """
        self._late_s.append(min(late_s, self.playout_s + _STALL_S))
        needed_s = min(max(self._late_s) + _GUARD_S, self._max_s)
        if len(self._late_s) == WINDOW_FRAMES or needed_s > self.playout_s:
            self.playout_s = needed_s
        return self.playout_s
