"""Event delivery: in order, off the caller's thread, bounded, and deaf to failing handlers."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from duologue.dispatch import EventDispatcher
from duologue.errors import ConfigError, StreamError
from duologue.metrics.types import Event

KINDS = ("transcript", "error")


def _event(text: str, kind: str = "transcript") -> Event:
    return Event(kind=kind, side="agent", start_s=0.0, end_s=0.0, detail={"text": text})


def test_delivers_in_order_on_another_thread() -> None:
    seen: list[str] = []
    threads: set[int] = set()
    events = EventDispatcher(KINDS)

    def handler(event: Event) -> None:
        seen.append(str(event.detail["text"]))
        threads.add(threading.get_ident())

    events.subscribe("*", handler)
    for i in range(100):
        events.publish(_event(str(i), KINDS[i % 2]))
    events.close()
    assert seen == [str(i) for i in range(100)]
    assert threads.isdisjoint({threading.get_ident()})


def test_a_full_queue_drops_and_counts() -> None:
    release, started = threading.Event(), threading.Event()
    seen: list[str] = []
    events = EventDispatcher(KINDS, capacity=4)

    def slow(event: Event) -> None:
        started.set()
        release.wait(5)
        seen.append(str(event.detail["text"]))

    events.subscribe("transcript", slow)
    events.publish(_event("first"))
    assert started.wait(5)
    for i in range(10):
        events.publish(_event(str(i)))
    assert events.dropped == 6
    release.set()
    events.close()
    assert seen == ["first", "0", "1", "2", "3"]


def test_a_failing_handler_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    events = EventDispatcher(KINDS)
    events.subscribe("transcript", lambda event: 1 / 0)  # type: ignore[arg-type, return-value]
    events.subscribe("transcript", lambda event: seen.append(str(event.detail["text"])))
    with caplog.at_level(logging.ERROR):
        events.publish(_event("a"))
        events.close()
    assert (seen, events.failed) == (["a"], 1)
    assert "ZeroDivisionError" in caplog.text


def test_close_is_bounded_when_a_handler_hangs() -> None:
    release = threading.Event()
    events = EventDispatcher(KINDS)
    events.subscribe("transcript", lambda event: release.wait(30) and None)
    events.publish(_event("a"))
    events.close(timeout_s=0.05)
    release.set()


def test_refuses_unknown_kinds_and_late_handlers() -> None:
    events = EventDispatcher(KINDS)
    with pytest.raises(ConfigError, match="no event 'speech'"):
        events.subscribe("speech", lambda event: None)
    events.close()
    with pytest.raises(StreamError, match="closed"):
        events.subscribe("error", lambda event: None)


def test_a_handler_may_close_the_dispatcher() -> None:
    events = EventDispatcher(KINDS)
    events.subscribe("transcript", lambda event: events.close())
    events.publish(_event("a"))
    time.sleep(0.1)
    assert events.failed == 0


def test_the_thread_ends_even_when_the_queue_was_full_at_close() -> None:
    release = threading.Event()
    events = EventDispatcher(KINDS, capacity=2)
    events.subscribe("transcript", lambda event: release.wait(5) and None)
    for i in range(6):
        events.publish(_event(str(i)))
    events.close(timeout_s=0.05)
    release.set()
    assert events._thread is not None
    events._thread.join(5)
    assert not events._thread.is_alive()
