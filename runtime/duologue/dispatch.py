"""Hand events to the host's handlers off the frame path, through a bounded queue that counts what it drops."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from duologue.errors import ConfigError, StreamError
from duologue.metrics.types import Event

Handler = Callable[[Event], None]
HandlerT = TypeVar("HandlerT", bound=Handler)

_log = logging.getLogger(__name__)


class EventDispatcher:
    """Calls handlers on one background thread, in order; a slow handler costs events, never a frame.

    Attributes:
        dropped: Events that found the queue full.
        failed: Handler calls that raised; each is logged with its traceback.
    """

    def __init__(self, kinds: tuple[str, ...], *, capacity: int = 1024) -> None:
        """Prepare the queue; the thread starts with the first handler.

        Args:
            kinds: The event kinds that exist.
            capacity: Events that may wait.
        """
        self.dropped = 0
        self.failed = 0
        self._kinds = kinds
        self._handlers: dict[str, list[Handler]] = {kind: [] for kind in kinds}
        self._queue: queue.Queue[Event | None] = queue.Queue(capacity)
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def subscribe(self, kind: str, handler: HandlerT) -> HandlerT:
        """Call `handler` for every event of this kind ("*" for all).

        Raises:
            ConfigError: If there is no such kind.
            StreamError: If the session is closed.
        """
        if self._is_closed:
            raise StreamError("this session is closed; register handlers before it ends")
        if kind != "*" and kind not in self._handlers:
            raise ConfigError(f"no event {kind!r}; events are: *, {', '.join(self._kinds)}")
        for name in self._kinds if kind == "*" else (kind,):
            self._handlers[name].append(handler)
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, name="duologue-events", daemon=True)
            self._thread.start()
        return handler

    def publish(self, event: Event) -> None:
        """Queue one event without waiting."""
        if not self._handlers[event.kind] or self._is_closed:
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_s: float = 1.0) -> None:
        """Deliver what is queued and stop, within `timeout_s` even if a handler hangs."""
        self._is_closed = True
        if self._thread is None or self._thread is threading.current_thread():
            return
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(timeout_s)

    def _deliver(self) -> None:
        while (event := self._queue.get()) is not None:
            for handler in self._handlers[event.kind]:
                try:
                    handler(event)
                except Exception:
                    self.failed += 1
                    _log.exception("a handler of %r failed", event.kind)
            # A queue that was full at the end had no room for the closing mark.
            if self._is_closed and self._queue.empty():
                return
