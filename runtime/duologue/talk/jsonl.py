"""The live conversation as JSON lines on standard output: the same events that the card draws."""

from __future__ import annotations

import json
import math
import sys
import threading
from dataclasses import asdict
from typing import Any, TextIO

from duologue.audio.live import LiveSession
from duologue.audio.wire import FrameEvent, LiveStats
from duologue.errors import StreamError
from duologue.metrics.types import Event, InteractivityReport
from duologue.talk.state import Setup

STATS_PERIOD_S = 1.0
"""Time between two lines of type "stats"."""


class LineWriter:
    """Writes one JSON object a line and flushes each; any thread may write.

    Attributes:
        is_broken: Whether the reader went away.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream`, by default standard output."""
        self.is_broken = False
        self._stream = stream if stream is not None else sys.stdout
        self._lock = threading.Lock()

    def write(self, kind: str, **values: Any) -> None:
        """Write one line of this type; a level of -inf becomes null, as JSON has no infinity."""
        line = json.dumps(_finite({"type": kind, **values}), allow_nan=False)
        with self._lock:
            if self.is_broken:
                return
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                self.is_broken = True

    def write_event(self, event: Event) -> None:
        """Write an event of the conversation."""
        if isinstance(event, FrameEvent):
            self.write("frame", **asdict(event.frame))
            return
        values = asdict(event)
        self.write(values.pop("kind"), **values)

    def write_setup(self, setup: Setup, seed: int) -> None:
        """Write the first line."""
        self.write("ready", seed=seed, **asdict(setup))

    def write_report(self, report: InteractivityReport, files: list[str]) -> None:
        """Write the last line: the report as in report.json, and the files."""
        self.write("report", report=json.loads(report.to_json(indent=None)), files=files)

    def write_stats(self, stats: LiveStats) -> None:
        """Write the state of the device."""
        self.write("stats", **_without_curves(asdict(stats)))


def stream_lines(live: LiveSession, writer: LineWriter, stop: threading.Event, *, seconds: float | None) -> None:
    """Write events until the conversation ends, `stop` is set, the reader goes away or the time is over.

    Args:
        live: The conversation.
        writer: Where the lines go.
        stop: Set from a signal handler.
        seconds: Length, or None.
    """
    live.on("*", writer.write_event)
    left_s = math.inf if seconds is None else seconds
    while live.is_running and not writer.is_broken and left_s > 0:
        if stop.wait(min(STATS_PERIOD_S, left_s)):
            return
        left_s -= STATS_PERIOD_S
        try:
            writer.write_stats(live.stats())
        except StreamError as error:
            writer.write("warning", message=str(error))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _without_curves(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_curves(item) for key, item in value.items() if key != "cdf"}
    if isinstance(value, list | tuple):
        return [_without_curves(item) for item in value]
    return value
