"""The conversation's process: device, rings, resampling, the session and its metrics, on an interpreter of its own."""

from __future__ import annotations

import gc
import math
import queue
import signal
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from duologue._native import monotonic_ns
from duologue.audio.canceller import EchoCanceller
from duologue.audio.device import DeviceSpec, OpenDevice
from duologue.audio.loop import DuplexLoop, LoopFrame, LoopSettings
from duologue.audio.outbox import Outbox
from duologue.audio.playout import first_playout_ms
from duologue.audio.port import SharedPort, read_counters
from duologue.audio.priority import hurry
from duologue.audio.wire import (
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
from duologue.errors import DeviceError
from duologue.metrics.latency import LatencyHistogram
from duologue.metrics.types import Event
from duologue.session import Session
from duologue.types import FRAME_MS, FRAME_RATE_HZ, SAMPLE_RATE_HZ, FrameResult, Pcm

_POLL_S = 0.05
_REOPEN_S = (0.5, 1.0, 2.0, 4.0)


def serve(pipe: Connection[Any, Any], port_name: str, options: LiveOptions) -> None:
    """Hold one conversation; the entry point of the process."""
    # The terminal sends an interrupt to everyone in it; the host decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hurry(is_real_time=False)
    worker: Worker | None = None
    try:
        worker = Worker(pipe, port_name, options)
        worker.run()
    except Exception as error:
        # The host may already be gone.
        if worker is None:
            _try_send(pipe, Failure.of(error))
        else:
            worker.outbox.send(Failure.of(error))
    finally:
        if worker is not None:
            worker.close()


class Worker:
    """One conversation between a device and an agent.

    Attributes:
        outbox: Way to the host.
    """

    def __init__(self, pipe: Connection[Any, Any], port_name: str, options: LiveOptions) -> None:
        """Load the agent, measure it, open the device and start.

        Raises:
            DuologueError: What the agent or the device raised.
        """
        self._pipe, self._options = pipe, options
        self._stop = threading.Event()
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._resample = LatencyHistogram()
        self._device: OpenDevice | None = None
        self._device_spec = options.device
        self._losses = self._attempts = 0
        self._next_attempt_s = 0.0
        self._opening: Future[OpenDevice] | None = None
        self._frame_index = self._earlier_frames = 0
        self._canceller = EchoCanceller() if options.cancels_echo else None
        self.outbox = Outbox(pipe, options.record_path)
        self._agent: LiveAgent = options.load_agent()
        with self._agent.session(seed=0) as session:
            measured_ms = first_playout_ms(session.step)
        self._session = self._open_session(options.seed)
        self._settings = LoopSettings(
            playout_ms=options.playout_ms if options.playout_ms is not None else measured_ms,
            adapts_playout=options.playout_ms is None,
            max_backlog_ms=options.max_backlog_ms,
            max_lag_ms=options.max_lag_ms,
        )
        # What lives now lives to the end; collecting it again and again would only cost time.
        gc.collect()
        gc.freeze()
        # The host owns the memory, so that it goes even if this process is killed.
        self._shared = SharedPort(port_name)
        self._loop: DuplexLoop | None = None
        self._open_device(self._device_spec)

    def run(self) -> None:
        """Converse until the host says stop or goes away."""
        assert self._device is not None
        self.outbox.send(
            Ready(
                note=self._agent.note,
                sampling=self._session.sampling,
                device=self._device.info,
                playout_ms=self._settings.playout_ms,
            )
        )
        threading.Thread(target=self._listen, name="duologue-commands", daemon=True).start()
        while not self._stop.is_set() and not self.outbox.is_broken:
            while not self._commands.empty():
                self._answer(self._commands.get())
            if self._device is None:
                self._try_to_reopen()
            else:
                self._advance(self._device)

    def close(self) -> None:
        """End everything; at most half a second for the device and a quarter for the messages."""
        self._session.close()
        # The recording first: a dead sound server may cost all the time there is.
        self.outbox.close(0.25)
        if self._device is not None:
            self._device.close()
        self._device = self._loop = None
        self._shared.close()

    # The frame path

    def _advance(self, device: OpenDevice) -> None:
        assert self._loop is not None
        wanted = self._loop.samples_to_wait_for
        if self._shared.port.wait_input(wanted, _POLL_S) >= wanted:
            for frame in self._loop.pump():
                self._publish(frame)
        elif not device.is_alive():
            self._lose_device("the driver's process died")
        elif self._silence_ms() > self._options.watchdog_ms:
            self._lose_device(f"no callback for {self._silence_ms():.0f} ms")

    def _step(self, frame: Pcm) -> FrameResult:
        return self._session.step(frame)

    def _silence_ms(self) -> float:
        return (monotonic_ns() - max(self._started_ns, self._shared.port.last_call_ns)) / 1e6

    def _publish(self, frame: LoopFrame) -> None:
        result = frame.result
        self._resample.add(frame.resample_ms)
        self._frame_index += 1
        self.outbox.record(frame.user, result.pcm)
        live = LiveFrame(
            index=result.index,
            text=result.text,
            user_dbfs=_dbfs(frame.user),
            agent_dbfs=_dbfs(result.pcm),
            stage_ms={**result.stage_ms, **_stages(frame)},
            is_late=result.is_late,
            lag_ms=frame.lag_ms,
            fill_ms=frame.fill_ms,
            backlog_ms=frame.backlog_ms,
        )
        at_s = result.index / FRAME_RATE_HZ
        self.outbox.send(FrameEvent(kind="frame", side=None, start_s=at_s, end_s=at_s + 1 / FRAME_RATE_HZ, frame=live))

    # The device

    def _open_device(self, spec: DeviceSpec) -> None:
        self._start_device(spec.open(self._shared))

    def _start_device(self, device: OpenDevice) -> None:
        try:
            port, is_one_clock = self._shared.port, device.info.is_one_clock
            delay_ms = device.info.input_latency_ms + device.info.output_latency_ms
            if self._loop is None:
                self._loop = DuplexLoop(
                    port,
                    self._step,
                    self._settings,
                    is_one_clock=is_one_clock,
                    device_delay_ms=delay_ms,
                    canceller=self._canceller,
                )
            else:
                self._loop.attach(port, is_one_clock=is_one_clock, device_delay_ms=delay_ms)
            self._started_ns = monotonic_ns()
            device.start()
        except BaseException:
            device.close()
            raise
        self._device, self._attempts = device, 0

    def _lose_device(self, reason: str) -> None:
        self._close_device()
        self._losses += 1
        self._next_attempt_s = time.monotonic() + _REOPEN_S[0]
        self._tell("device_error", f"{reason}; the conversation waits until the device returns")

    def _close_device(self) -> None:
        if self._device is not None:
            self._device.close()
        self._device = None

    def _try_to_reopen(self) -> None:
        """Take one step towards a device; a hanging sound server must not keep the host's commands waiting."""
        self._stop.wait(_POLL_S)
        if self._opening is None and time.monotonic() >= self._next_attempt_s:
            self._opening = Future()
            threading.Thread(target=self._open_aside, args=(self._opening,), daemon=True).start()
        elif self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            self._next_attempt_s = time.monotonic() + _REOPEN_S[min(self._attempts, len(_REOPEN_S) - 1)]
            self._attempts += 1
            with suppress(DeviceError):
                self._start_device(opening.result())
                self._tell("device_returned", "the device is back")

    def _open_aside(self, opening: Future[OpenDevice]) -> None:
        try:
            opening.set_result(self._device_spec.open(self._shared))
        except Exception as error:
            opening.set_exception(error)

    def _tell(self, kind: str, message: str) -> None:
        now_s = self._frame_index / FRAME_RATE_HZ
        self.outbox.send(Event(kind=kind, side=None, start_s=now_s, end_s=now_s, detail={"message": message}))

    # The session and the host's commands

    def _open_session(self, seed: int) -> Session:
        session = self._agent.session(seed=seed)
        session.on("*", self.outbox.send)
        return session

    def _listen(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            while not self._stop.is_set():
                command: Command = self._pipe.recv()
                if command.name == "close":
                    break
                # These two must not wait for a frame, and do not change what the frame at hand is made of.
                if command.name == "interrupt":
                    self._reply(command, 1e3 * loop.silence_queued())
                elif command.name == "mute":
                    self._shared.port.is_muted = bool(command.values["is_muted"])
                    self._reply(command, None)
                else:
                    self._commands.put(command)
        except (EOFError, OSError):
            pass
        self._stop.set()

    def _answer(self, command: Command) -> None:
        try:
            value = getattr(self, f"_do_{command.name}")(**command.values)
        except Exception as error:
            value = Failure.of(error)
        self._reply(command, value)

    def _reply(self, command: Command, value: object) -> None:
        self.outbox.send(Reply(number=command.number, value=value))

    def _do_report(self) -> object:
        return self._session.report()

    def _do_sampling(self, **changes: float) -> None:
        self._session.set_sampling(**changes)

    def _do_reset(self, seed: int) -> int:
        self._session.close()
        self._session = self._open_session(seed)
        self._earlier_frames += self._frame_index
        self._frame_index = 0
        return self._earlier_frames

    def _do_device(self, spec: DeviceSpec) -> object:
        if self._opening is not None:
            raise DeviceError("the lost device is just being opened again; ask once more in a moment")
        self._close_device()
        self._next_attempt_s = 0.0
        self._open_device(spec)
        assert self._device is not None
        self._device_spec = spec
        return self._device.info

    def _do_stats(self) -> LiveStats:
        assert self._loop is not None
        port, done = self._shared.port, self._loop.counters
        counters = read_counters(port)
        return LiveStats(
            frames=done.frames,
            device=self._device.info if self._device is not None else None,
            device_losses=self._losses,
            playout_ms=1e3 * self._loop.target_lag_s - FRAME_MS,
            lag_ms=1e3 * self._loop.lag_s(),
            drift_ppm=self._loop.drift_ppm,
            received_ms=1e3 * port.clocks()[0] / port.input_hz,
            dropped_user_ms=1e3 * done.dropped_user / SAMPLE_RATE_HZ,
            cut_agent_ms=1e3 * done.cut_agent / SAMPLE_RATE_HZ,
            inserted_ms=1e3 * done.inserted / SAMPLE_RATE_HZ,
            concealed_ms=1e3 * counters.concealed_output_samples / port.output_hz,
            lost_input_ms=1e3 * counters.lost_input_samples / port.input_hz,
            silenced_ms=1e3 * counters.silenced_samples / port.output_hz,
            counters=counters,
            resample=self._resample.summary(),
            dropped_events=self.outbox.dropped,
            is_muted=port.is_muted,
            echo_reduction_db=self._canceller.reduction_db if self._canceller is not None else None,
        )


def _stages(frame: LoopFrame) -> dict[str, float]:
    stages = {"queue": frame.queue_ms, "resample": frame.resample_ms}
    return stages if frame.cancel_ms is None else {**stages, "aec": frame.cancel_ms}


def _dbfs(pcm: Pcm) -> float:
    power = float(np.mean(pcm * pcm))
    return 10 * math.log10(power) if power > 0 else -math.inf


def _try_send(pipe: Connection[Any, Any], message: object) -> None:
    with suppress(OSError):
        pipe.send(message)
