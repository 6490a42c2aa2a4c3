"""The way out of the conversation's process: a thread that sends and records, so that the frame loop never waits."""

from __future__ import annotations

import queue
import threading
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import soundfile

from duologue.errors import ConfigError
from duologue.types import SAMPLE_RATE_HZ, Pcm

_CAPACITY = 4096


class Outbox:
    """Sends messages to the host and writes the recording, in order.

    Attributes:
        dropped: Messages that found the queue full because the host did not read.
        is_broken: Whether the host is gone.
    """

    def __init__(self, pipe: Connection[Any, Any], record_path: str | None) -> None:
        """Open the recording and start the thread.

        Raises:
            ConfigError: If the recording cannot be written.
        """
        self.dropped = 0
        self.is_broken = False
        self._pipe = pipe
        self._recording = None
        if record_path is not None:
            try:
                self._recording = soundfile.SoundFile(record_path, "w", SAMPLE_RATE_HZ, 2, "PCM_16", format="WAV")
            except soundfile.LibsndfileError as error:
                raise ConfigError(f"{record_path}: cannot record there ({error.error_string})") from error
        self._queue: queue.Queue[object] = queue.Queue(_CAPACITY)
        self._thread = threading.Thread(target=self._run, name="duologue-outbox", daemon=True)
        self._thread.start()

    def send(self, message: object) -> None:
        """Queue a message without waiting."""
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self.dropped += 1

    def record(self, user: Pcm, agent: Pcm) -> None:
        """Queue a frame for the recording, if there is one."""
        if self._recording is not None:
            self.send(np.stack([user, agent], axis=1))

    def close(self, timeout_s: float) -> None:
        """Send what is queued, within `timeout_s`, and finish the recording."""
        self.send(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            if isinstance(message, np.ndarray):
                assert self._recording is not None
                self._recording.write(message)
                continue
            try:
                self._pipe.send(message)
            except OSError:
                self.is_broken = True
        if self._recording is not None:
            self._recording.close()
