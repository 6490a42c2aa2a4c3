"""Keep a conversation on disk while it runs: both voices and every event, in a folder of its own."""

from __future__ import annotations

import json
import logging
import queue
import secrets
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from duologue.errors import ConfigError
from duologue.metrics.types import Event, InteractivityReport
from duologue.replacing import replacing_folder
from duologue.types import FRAME_RATE_HZ, SAMPLE_RATE_HZ, Pcm

SOUND, EVENTS, REPORT = "conversation.wav", "events.jsonl", "report.json"
"""Files of a kept conversation: stereo (left the user, right the agent), an event a line, the report."""

_CLOSE_S = 60.0
_WAITING = round(60 * FRAME_RATE_HZ)
_log = logging.getLogger(__name__)


def session_folder(parent: Path) -> Path:
    """Return a name inside `parent` that no other session has."""
    return parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


class Recorder:
    """Writes one conversation on a thread of its own; the folder appears whole when it is closed.

    A disk that fails, or stays behind for a minute, ends the recording and not the conversation.

    Attributes:
        error: Why the recording broke off, or "".
    """

    def __init__(self, folder: str | Path) -> None:
        """Prepare to record into a new folder inside `folder`; nothing is written before the first frame.

        Raises:
            ConfigError: If the folder cannot be made.
        """
        self.error = ""
        self._parent = Path(folder)
        try:
            self._parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{folder}: cannot record there ({error.strerror}); give another folder"
            raise ConfigError(message) from error
        self._queue: queue.Queue[npt.NDArray[np.float32] | Event | InteractivityReport] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def add_frame(self, user: Pcm, agent: Pcm) -> None:
        """Add a frame of both sides, 24 kHz, shape [n] each."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="duologue-recorder", daemon=True)
            self._thread.start()
        self._put(np.stack([user, agent], axis=1))

    def add_event(self, event: Event) -> None:
        """Add an event."""
        self._put(event)

    def close(self, report: InteractivityReport) -> None:
        """Add the report and wait until everything is on disk; without a frame there is nothing to keep.

        A disk that hangs is given up after a minute or two.
        """
        if self._thread is not None:
            with suppress(queue.Full):
                self._queue.put(report, timeout=_CLOSE_S)
            self._thread.join(_CLOSE_S)
            if self._thread.is_alive():
                self._fail("the disk hangs")
            self._thread = None

    def _put(self, item: npt.NDArray[np.float32] | Event) -> None:
        if self.error:
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._fail("the disk is a minute behind")

    def _fail(self, reason: str) -> None:
        self.error = reason
        _log.warning("the recording in %s breaks off: %s; the conversation goes on", self._parent, reason)

    def _run(self) -> None:
        try:
            with replacing_folder(session_folder(self._parent)) as folder:
                self._write(folder)
        except Exception as error:
            self._fail(str(error) or type(error).__name__)
            while not isinstance(self._queue.get(), InteractivityReport):
                pass

    def _write(self, folder: Path) -> None:
        with ExitStack() as files:
            sound = files.enter_context(soundfile.SoundFile(folder / SOUND, "w", SAMPLE_RATE_HZ, 2, "PCM_16"))
            events = files.enter_context((folder / EVENTS).open("w", encoding="utf-8"))
            while not isinstance(item := self._queue.get(), InteractivityReport):
                if isinstance(item, Event):
                    events.write(json.dumps(asdict(item)) + "\n")
                else:
                    sound.write(item)
        (folder / REPORT).write_text(item.to_json() + "\n", encoding="utf-8")
