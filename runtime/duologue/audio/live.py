"""A voice conversation on this machine's own devices, held in a process of its own.

A Python program may hold the interpreter's lock for tens of milliseconds at a time (sorting a large list, matching a
regular expression, unpacking an array), and a native callback alone does not help: it plays on, but what refills its
rings starves. So the device, the rings, the resampling, the model and the metrics run in a second process with a lock
of its own, and the program that opened the conversation only receives events and sends commands; its own stalls delay
its view of the conversation, never the conversation. `benchmarks/audio_gil.py` compares the ways: in a minute beside a
program that sorts in a loop, a Python callback lost 98 of 120 clicks and this way none.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from multiprocessing import Pipe
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, cast

from duologue.agent import DuplexAgent
from duologue.audio.device import DeviceSpec, StreamInfo
from duologue.audio.driver import ANSWER_S, STOP_S, PortAudioSpec
from duologue.audio.port import SharedPort
from duologue.audio.spawn import spawn
from duologue.audio.wire import (
    LIVE_EVENT_KINDS,
    Command,
    Failure,
    FrameEvent,
    LiveAgent,
    LiveFrame,
    LiveOptions,
    LiveStats,
    Ready,
    Reply,
)
from duologue.audio.worker import serve
from duologue.config import AgentConfig, Sampling
from duologue.dispatch import EventDispatcher, Handler
from duologue.errors import StreamError
from duologue.metrics.types import Event, InteractivityReport

_ANSWER_S = 5.0
# The old device ends, the new one opens, starts and, if that fails, ends too.
_DEVICE_ANSWER_S = 2 * STOP_S + 2 * ANSWER_S + _ANSWER_S
_POLITE_S = 0.7
_CLOSE_S = 0.9


class LiveSession:
    """A running live conversation.

    Attributes:
        note: What a listener should know about the agent's weights; "" for a trained model.
        sampling: How its conversations begin to draw tokens.
        device: What the device agreed to when the conversation began.
        playout_ms: Time a frame may take, at first, before the loudspeaker runs dry; `stats` tells the present one.
    """

    note: str
    sampling: Sampling
    device: StreamInfo
    playout_ms: float

    def __init__(self, options: LiveOptions, *, open_timeout_s: float = 120.0) -> None:
        """Start the conversation; see `open_live` for the usual way in.

        Args:
            options: Agent, device and delays.
            open_timeout_s: Time to load the agent and open the device.

        Raises:
            DeviceError: If the device does not open.
            StreamError: If the process dies or the time is over.
            DuologueError: What loading the agent raised.
        """
        self._events = EventDispatcher(LIVE_EVENT_KINDS)
        self._futures: dict[int, Future[Any]] = {}
        self._numbers = count()
        self._lock = threading.Lock()
        self._failure: Failure | None = None
        self._is_closed = False
        self._shared = SharedPort()
        self._pipe, theirs = Pipe()
        # Not a daemon, because it starts the driver's process; it ends by itself when this end of the pipe closes.
        self._process = spawn(serve, (theirs, self._shared.name, options), name="duologue-live", is_daemon=False)
        theirs.close()
        atexit.register(self.close)
        try:
            ready = self._await_ready(open_timeout_s)
        except BaseException:
            self.close()
            raise
        self.note, self.sampling = ready.note, ready.sampling
        self.device, self.playout_ms = ready.device, ready.playout_ms
        self._reader = threading.Thread(target=self._read, name="duologue-live-events", daemon=True)
        self._reader.start()

    def on(self, kind: str, handler: Handler | None = None) -> Callable[[Handler], Handler] | Handler:
        """Register a handler for an event, directly or as a decorator; "*" means all.

        Kinds are those of `Session.on`, "frame" (a `FrameEvent`) for every step, "device_error", "device_returned" and
        "recording_ended" (the disk failed; the conversation goes on).
        Handlers run on a background thread, in order; events that find 1024 waiting are dropped and counted.

        Raises:
            ConfigError: If there is no such event.
        """
        if handler is not None:
            return self._events.subscribe(kind, handler)
        return lambda function: self._events.subscribe(kind, function)

    def on_frame(self, handler: Callable[[LiveFrame], None]) -> None:
        """Call `handler` with every step."""

        def unwrap(event: Event) -> None:
            assert isinstance(event, FrameEvent)
            handler(event.frame)

        self._events.subscribe("frame", unwrap)

    def interrupt(self) -> float:
        """Silence the agent's audio that waits to be played and return its length in ms.

        The delay stays as it was, and so does the model: what it says next is heard.

        Raises:
            StreamError: If the conversation is over.
        """
        return float(self._ask("interrupt"))

    def mute(self, is_muted: bool = True) -> None:
        """Give the agent silence instead of the microphone, from the next driver call on.

        Raises:
            StreamError: If the conversation is over.
        """
        self._ask("mute", is_muted=is_muted)

    def set_sampling(self, **changes: float) -> None:
        """Change single sampling values from the next frame on, for example `padding_bias=1.0`.

        Raises:
            ConfigError: If a name is unknown or a value out of range.
            StreamError: If the conversation is over.
        """
        self._ask("sampling", **changes)

    def reset(self, *, seed: int = 0) -> int:
        """Begin a new conversation with the same agent on the same device.

        Returns:
            How many frames came before it, in a recording too.

        Raises:
            StreamError: If the conversation is over.
        """
        return cast(int, self._ask("reset", seed=seed))

    def switch_device(self, device: DeviceSpec) -> StreamInfo:
        """Go on with another device; the conversation keeps its memory.

        Raises:
            DeviceError: If it does not open; the old device is then opened again.
            StreamError: If the conversation is over.
        """
        return cast(StreamInfo, self._ask("device", answer_s=_DEVICE_ANSWER_S, spec=device))

    def stats(self) -> LiveStats:
        """Return the state of the device and what has been lost so far.

        Raises:
            StreamError: If the conversation is over.
        """
        return cast(LiveStats, self._ask("stats"))

    def report(self) -> InteractivityReport:
        """Measure the conversation so far: the four axes, their human bands and the latency of every stage.

        Raises:
            StreamError: If the conversation is over.
        """
        return cast(InteractivityReport, self._ask("report"))

    @property
    def dropped_events(self) -> int:
        """Events that handlers did not see because they were too slow."""
        return self._events.dropped

    @property
    def failed_handlers(self) -> int:
        """Handler calls that raised; each is in the log."""
        return self._events.failed

    @property
    def is_running(self) -> bool:
        """Whether the conversation goes on (also while it waits for its device)."""
        return not self._is_closed and self._process.is_alive()

    @property
    def process_id(self) -> int | None:
        """Of the conversation's process."""
        return self._process.pid

    def close(self) -> None:
        """End the conversation within one second, whatever state the sound server is in."""
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        until_s = monotonic() + _CLOSE_S
        with self._lock, suppress(OSError):
            self._pipe.send(Command(number=-1, name="close", values={}))
        self._process.join(_POLITE_S)
        if self._process.is_alive():
            # The driver's process sees its pipe close and ends by itself.
            self._process.kill()
            self._process.join(max(0.0, until_s - monotonic()))
        self._shared.close()
        self._fail_waiting()
        self._events.close(max(0.05, until_s - monotonic()))

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await_ready(self, timeout_s: float) -> Ready:
        until_s = monotonic() + timeout_s
        try:
            while not self._pipe.poll(0.1):
                if monotonic() > until_s:
                    raise StreamError(f"the conversation did not start within {timeout_s:.0f} s; give it longer")
            message = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(_POLITE_S)
            raise StreamError(f"the conversation's process died (exit code {self._process.exitcode})") from error
        if isinstance(message, Failure):
            raise message.error()
        return cast(Ready, message)

    def _ask(self, name: str, *, answer_s: float = _ANSWER_S, **values: object) -> Any:
        future: Future[Any] = Future()
        with self._lock:
            self._check_running()
            number = next(self._numbers)
            self._futures[number] = future
            try:
                self._pipe.send(Command(number=number, name=name, values=values))
            except OSError as error:
                raise self._over() from error
        try:
            value = future.result(answer_s)
        except FutureTimeoutError as error:
            self._futures.pop(number, None)
            raise StreamError(f"the conversation gave no answer to {name!r} for {answer_s:.0f} s") from error
        if isinstance(value, Failure):
            raise value.error()
        return value

    def _check_running(self) -> None:
        if self._is_closed or not self._process.is_alive():
            raise self._over()

    def _over(self) -> StreamError:
        reason = f" ({self._failure.message})" if self._failure is not None else ""
        return StreamError(f"this conversation is over{reason}; open another")

    def _read(self) -> None:
        try:
            while True:
                self._handle(self._pipe.recv())
        except (EOFError, OSError):
            self._fail_waiting()

    def _handle(self, message: object) -> None:
        if isinstance(message, Event):
            self._events.publish(message)
        elif isinstance(message, Reply):
            future = self._futures.pop(message.number, None)
            if future is not None:
                future.set_result(message.value)
        elif isinstance(message, Failure):
            self._failure = message
            detail: dict[str, str | float] = {"message": message.message}
            self._events.publish(Event(kind="error", side=None, start_s=0.0, end_s=0.0, detail=detail))

    def _fail_waiting(self) -> None:
        for number in list(self._futures):
            future = self._futures.pop(number, None)
            if future is not None and not future.done():
                future.set_exception(self._over())


def open_live(
    agent: str | Path | None = None,
    config: AgentConfig | None = None,
    *,
    device: DeviceSpec | None = None,
    load_agent: Callable[[], LiveAgent] | None = None,
    **settings: Any,
) -> LiveSession:
    """Open a live conversation.

    Args:
        agent: A folder in Moshi's format, `hf://owner/name`, or None for the small default agent.
        config: How to run it; its `record` has no effect here, `record_path` has.
        device: Sound device; None for the default microphone and loudspeaker.
        load_agent: Returns the agent instead, for example `EchoAgent`; must be importable by name.
        settings: Further fields of `LiveOptions`, such as `seed` and `record_path`.

    Raises:
        DeviceError: If the device does not open.
        DuologueError: As `DuplexAgent.load`.
    """
    # What is recorded is what the device heard, so the process records and not the session.
    settled = replace(config or AgentConfig(), record=None)
    loader = load_agent or partial(DuplexAgent.load, agent, settled)
    return LiveSession(LiveOptions(load_agent=loader, device=device or PortAudioSpec(), **settings))
