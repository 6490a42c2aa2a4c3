"""The driver process: PortAudio alone with the native callback.

A dead sound server makes PortAudio hang in abort and close, a restarted one is seen only after a new initialisation,
and some drivers crash. Here all of that happens in a process that holds nothing but shared memory and can be killed
and started again without the conversation losing a byte of its state.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any

from duologue.audio.device import StreamInfo
from duologue.audio.port import SharedPort
from duologue.audio.priority import hurry
from duologue.audio.spawn import spawn
from duologue.errors import DeviceError, DuologueError

if TYPE_CHECKING:
    from duologue.audio.portaudio import Streams

_CLOSE_S = 0.25

ANSWER_S = 10.0
"""Longest time that opening the device, and starting it, may take each."""

STOP_S = 3 * _CLOSE_S
"""Longest time that ending the driver process takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortAudioSpec:
    """A real microphone and loudspeaker.

    Attributes:
        input: Microphone: index, name or unique part of it, or None for the default.
        output: Loudspeaker, likewise.
        host_api: Part of the sound system's name, to look only there.
        sample_rate_hz: Rate to ask for; None takes the first of 24, 48, 44.1 and 16 kHz that the device accepts.
        latency: "low", "high" or seconds, as PortAudio understands it.
        block_samples: Samples per driver call; 0, the driver's own choice, has the least delay.
        is_split: Whether to open one stream per direction, for devices on clocks of their own; None decides by
            whether both belong to one host API.
    """

    input: int | str | None = None
    output: int | str | None = None
    host_api: str | None = None
    sample_rate_hz: int | None = None
    latency: str | float = "low"
    block_samples: int = 0
    is_split: bool | None = None

    def open(self, shared: SharedPort) -> DriverProcess:
        """Open the device in a driver process and configure the port.

        Raises:
            MissingExtraError: If sounddevice is not installed.
            DeviceError: If there is no such device, or it does not open within 10 s.
        """
        return DriverProcess(self, shared)


class DriverProcess:
    """A running driver process and the pipe to it."""

    info: StreamInfo

    def __init__(self, spec: PortAudioSpec, shared: SharedPort) -> None:
        """Start the process and wait until the device is open."""
        self._pipe, self._process = _start("open", spec, shared.name)
        try:
            self.info = self._answer()
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int | None:
        """Of the driver process."""
        return self._process.pid

    def start(self) -> None:
        """Let the audio flow.

        Raises:
            DeviceError: If the stream does not start.
        """
        self._pipe.send("start")
        self._answer()

    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the process: politely for half a second, then by force."""
        _stop(self._pipe, self._process)

    def _answer(self) -> Any:
        return _answer(self._pipe, self._process)


def ask_driver(question: str) -> Any:
    """Start a driver process for one answer.

    Raises:
        DuologueError: What the driver met.
    """
    pipe, process = _start(question)
    try:
        return _answer(pipe, process)
    finally:
        _stop(pipe, process)


def _start(*task: object) -> tuple[Connection[Any, Any], SpawnProcess]:
    ours, theirs = Pipe()
    process = spawn(_serve, (theirs, *task), name="duologue-driver", is_daemon=True)
    theirs.close()
    return ours, process


def _answer(pipe: Connection[Any, Any], process: SpawnProcess) -> Any:
    try:
        if not pipe.poll(ANSWER_S):
            raise DeviceError(f"the sound system gave no answer for {ANSWER_S:.0f} s; is the sound server alive?")
        answer = pipe.recv()
    except (EOFError, OSError) as error:
        if isinstance(error, DeviceError):
            raise
        process.join(_CLOSE_S)
        raise DeviceError(
            f"the sound driver's process ended (exit code {process.exitcode}); is the sound server alive?"
        ) from error
    if isinstance(answer, DuologueError):
        raise answer
    return answer


def _stop(pipe: Connection[Any, Any], process: SpawnProcess) -> None:
    pipe.close()
    process.join(2 * _CLOSE_S)
    if process.is_alive():
        process.kill()
        process.join(_CLOSE_S)


# In the driver process


def _serve(pipe: Connection[Any, Any], question: str, spec: PortAudioSpec | None = None, name: str = "") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _quiet()
    try:
        from duologue.audio import portaudio

        if question == "list":
            pipe.send(portaudio.query_devices())
            return
        assert spec is not None
        # PortAudio's and the sound server's threads inherit it.
        scheduling = hurry(is_real_time=True)
        shared = SharedPort(name)
        streams = portaudio.open_streams(spec, shared.port)
        pipe.send(replace(streams.info, scheduling=scheduling))
        _run(pipe, streams)
    except (EOFError, BrokenPipeError):
        pass
    except DuologueError as error:
        pipe.send(error)
    except Exception as error:
        # Standard error leads nowhere, so this is the only way to learn of it.
        pipe.send(DeviceError(f"the sound driver failed ({type(error).__name__}: {error})"))
    finally:
        # PortAudio's own exit handlers hang with a dead server; the memory belongs to the conversation.
        os._exit(0)


def _run(pipe: Connection[Any, Any], streams: Streams) -> None:
    pipe.recv()
    streams.start()
    pipe.send(True)
    try:
        pipe.recv()
    except (EOFError, OSError):
        closing = threading.Thread(target=streams.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


def _quiet() -> None:
    # ALSA and JACK write to the terminal whatever they look for and do not find; no server is to be started.
    os.environ.setdefault("JACK_NO_START_SERVER", "1")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.dup2(null, 1)
