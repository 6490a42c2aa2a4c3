"""How late a waiting thread gets to run: by the scheduler when all is idle, by the interpreter lock when it is busy."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from duologue.profile.clock import Clock
from duologue.profile.timing import Timing, summarise

TICK_MS = 1.0
"""Period of the ticker."""
_MAX_VALUES = 2_000_000


def tick_overshoots_ms(clock: Clock, should_stop: Callable[[], bool]) -> list[float]:
    """Wake up every `TICK_MS` and return by how much each wake-up was late.

    Args:
        clock: Time.
        should_stop: Asked after every wake-up.
    """
    overshoots_ms: list[float] = []
    while not should_stop():
        due_s = clock.now_s() + TICK_MS / 1e3
        clock.sleep_until(due_s)
        overshoots_ms.append(max(0.0, 1e3 * (clock.now_s() - due_s)))
    return overshoots_ms


class _Beside:
    """A thread that works while the block runs."""

    _name: ClassVar[str]

    def __init__(self) -> None:
        self._durations_ms: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)

    @property
    def timing(self) -> Timing:
        """What the thread measured; complete after the block."""
        return summarise(self._durations_ms)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError


class Ticker(_Beside):
    """Ticks, and measures how late it woke up; what it waits beyond an idle one, it waits for the interpreter."""

    _name = "duologue-ticker"

    def __init__(self, clock: Clock) -> None:
        """Prepare; the block starts it."""
        super().__init__()
        self._clock = clock

    def _run(self) -> None:
        self._durations_ms = tick_overshoots_ms(self._clock, self._stop.is_set)


class GilHog(_Beside):
    """Keeps the interpreter for 60 to 90 ms at a time, as an application may, and measures how long: it sorts a list.

    A hold includes the time in which the thread waited for a core.
    """

    _name = "duologue-gil-hog"

    def __init__(self, *, hold_ms: float = 75.0) -> None:
        """Find the length of the list; takes about five holds.

        Args:
            hold_ms: How long one sort shall take.
        """
        super().__init__()
        self._values = values_that_take(hold_ms)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._durations_ms.append(_sort_ms(self._values))


def values_that_take(hold_ms: float) -> list[float]:
    """Return values whose sorting takes that long on a core of its own; waiting for a core does not count.

    Args:
        hold_ms: How long.
    """
    source = random.Random(0)
    count = 20_000
    for _ in range(3):
        values = [source.random() for _ in range(count)]
        # The quickest of three: a neighbour can only slow a core down.
        took_ms = min(_sort_cpu_ms(values) for _ in range(3))
        # Long lists leave the caches, so the guess is made again from its own result.
        count = min(int(count * hold_ms / max(took_ms, 0.01)), _MAX_VALUES)
    return [source.random() for _ in range(count)]


def _sort_cpu_ms(values: list[float]) -> float:
    begun_s = time.thread_time()
    sorted(values)
    return 1e3 * (time.thread_time() - begun_s)


def _sort_ms(values: list[float]) -> float:
    begun_s = time.perf_counter()
    sorted(values)
    return 1e3 * (time.perf_counter() - begun_s)
