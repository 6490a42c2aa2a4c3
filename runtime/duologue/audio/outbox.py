"""The way out of the conversation's process: a thread that sends and records, so that the frame loop never waits."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from duologue.errors import ConfigError
from duologue.metrics.types import Event
from duologue.types import SAMPLE_RATE_HZ, Pcm

_CAPACITY = 4096


class Outbox:
    """Sends messages to the host and writes the recording, in order.

    A disk that fails ends the recording, with an event "recording_ended", and not the conversation.

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
        self._recorded = 0
        self._recording: soundfile.SoundFile | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
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
        """Send what is queued, within `timeout_s`, and finish the recording; a hanging disk costs as long again."""
        self._ending.set()
        # Wakes a thread that waits; a full queue needs no waking.
        self.send(None)
        self._thread.join(timeout_s)
        # A host that does not read holds the thread, not the lock, and the recording is to be whole nevertheless.
        if self._lock.acquire(timeout=timeout_s):
            self._end_recording()
            self._lock.release()

    def _run(self) -> None:
        while not (self._ending.is_set() and self._queue.empty()):
            message = self._queue.get()
            if isinstance(message, np.ndarray):
                message = self._write(message)
            if message is not None:
                self._tell(message)

    def _tell(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            self.is_broken = True

    def _write(self, sides: npt.NDArray[np.float32]) -> Event | None:
        """Write a frame; return what to tell the host if that ended the recording."""
        with self._lock:
            if self._recording is None:
                return None
            try:
                self._recording.write(sides)
            except (OSError, soundfile.SoundFileError) as error:
                at_s = self._recorded / SAMPLE_RATE_HZ
                self._end_recording()
                message = f"the recording ended: {error}; the conversation goes on"
                return Event(kind="recording_ended", side=None, start_s=at_s, end_s=at_s, detail={"message": message})
            self._recorded += len(sides)
        return None

    def _end_recording(self) -> None:
        if self._recording is not None:
            with suppress(OSError, soundfile.SoundFileError):
                self._recording.close()
        self._recording = None
