"""The ticker under a clock that the test moves, and threads that really keep the interpreter."""

from __future__ import annotations

import time

import pytest

from duologue.profile.clock import MonotonicClock
from duologue.profile.wakeups import GilHog, Ticker, tick_overshoots_ms
from profile_sample import FakeClock


def test_overshoots_are_what_the_clock_overslept() -> None:
    remaining = iter([False] * 5 + [True])
    clock = FakeClock(oversleep_s=0.0007)
    assert tick_overshoots_ms(clock, lambda: next(remaining)) == pytest.approx([0.7] * 5)
    assert clock.time_s == pytest.approx(100 + 5 * 0.0017)


def test_a_ticker_ticks_while_the_block_runs() -> None:
    with Ticker(MonotonicClock()) as ticker:
        time.sleep(0.1)
    count = ticker.timing.count
    assert 5 <= count <= 100
    time.sleep(0.02)
    assert ticker.timing.count == count


def test_a_hog_makes_the_ticker_wait_for_the_interpreter() -> None:
    hog = GilHog(hold_ms=40.0)
    with Ticker(MonotonicClock()) as ticker, hog:
        time.sleep(0.3)
    assert hog.timing.count >= 1
    assert hog.timing.max_ms >= 15
    # The longest wait is one whole hold, which no idle scheduler imposes.
    assert ticker.timing.max_ms >= 15
