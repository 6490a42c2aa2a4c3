"""The clock a measurement runs by: the machine's, or one that a test moves by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def now_s(self) -> float:
        """Return the time since some fixed moment."""

    def sleep_until(self, due_s: float) -> None:
        """Return at `due_s`, or at once when that is past."""


class MonotonicClock:
    """CLOCK_MONOTONIC, the clock that the native audio port stamps with."""

    def now_s(self) -> float:
        """Return the time since the machine started."""
        return time.monotonic()

    def sleep_until(self, due_s: float) -> None:
        """Sleep; on Linux CPython does it by clock_nanosleep to a moment, so only waking up is late."""
        wait_s = due_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
