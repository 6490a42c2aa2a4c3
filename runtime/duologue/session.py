"""One conversation: every byte that it changes lives here; weights are shared through the agent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from duologue.audio.files import MAX_LEVEL
from duologue.audio.resample import Resampler, ResamplerState
from duologue.codec import MimiStream
from duologue.config import Sampling
from duologue.dispatch import EventDispatcher, Handler
from duologue.engine.base import StepStream
from duologue.errors import AudioError, ConfigError, StreamError
from duologue.metrics.latency import LatencyHistogram
from duologue.metrics.meter import InteractivityMeter, MeterSnapshot
from duologue.metrics.types import EVENT_KINDS, Event, InteractivityReport
from duologue.types import FRAME_MS, FRAME_RATE_HZ, FRAME_SAMPLES, SAMPLE_RATE_HZ, FrameResult, Pcm

if TYPE_CHECKING:
    from duologue.model.tokenizer import Tokenizer
    from duologue.recorder import Recorder

STAGES = ("encode", "model", "decode", "detokenise", "metrics", "total")
SESSION_EVENT_KINDS = (*EVENT_KINDS, "transcript", "deadline_missed", "error")
"""Kinds a handler may ask for: the meter's, and three whose `detail` holds "text", "total_ms" or "message"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """Everything a conversation remembers; opaque, for `Session.restore` of the same agent."""

    codec: bytes
    engine: object
    meter: MeterSnapshot
    resamplers: tuple[ResamplerState, ResamplerState]
    pending: Pcm
    ready: Pcm
    fed_samples: int
    returned_samples: int
    frames: int
    transcript: tuple[tuple[float, str], ...]


class Session:
    """A running conversation with the agent.

    Use `feed` for audio of any chunk size at the declared rate, or `step` for whole 24 kHz frames. Not for use by two
    threads at once; many sessions of one agent may run in as many threads.
    """

    def __init__(
        self,
        *,
        codec: MimiStream,
        engine: StepStream,
        tokenizer: Tokenizer,
        meter: InteractivityMeter,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        recorder: Recorder | None = None,
    ) -> None:
        """Wire the streams of one conversation; see `DuplexAgent.session` for the usual way in.

        Args:
            codec: Mimi stream of this conversation.
            engine: Step stream of this conversation, prompts already prefilled.
            tokenizer: Text tokenizer of the model.
            meter: Fresh interactivity meter.
            sample_rate_hz: Rate of the audio given to and returned by `feed`.
            recorder: Keeps the conversation, or None.

        Raises:
            ConfigError: If the rate is out of range.
        """
        self.sample_rate_hz = sample_rate_hz
        self._codec, self._engine, self._tokenizer, self._meter = codec, engine, tokenizer, meter
        self._recorder = recorder
        self._to_model = Resampler(sample_rate_hz, SAMPLE_RATE_HZ)
        self._from_model = Resampler(SAMPLE_RATE_HZ, sample_rate_hz)
        self._pending: Pcm = np.empty(0, dtype=np.float32)
        self._ready: Pcm = np.empty(0, dtype=np.float32)
        self._frames = 0
        self._fed_samples = self._returned_samples = 0
        self._transcript: list[tuple[float, str]] = []
        self._latency = {stage: LatencyHistogram() for stage in STAGES}
        self._late_frames = 0
        self._events = EventDispatcher(SESSION_EVENT_KINDS)
        self._is_closed = False
        self._busy = threading.Lock()

    # Audio in, audio out

    def step(self, frame: Pcm) -> FrameResult:
        """Advance the conversation by one 80 ms frame.

        Args:
            frame: The user's frame at 24 kHz, float32, shape [1920].

        Returns:
            The agent's frame and what led to it.

        Raises:
            AudioError: If the frame has another shape or type, or holds what is no sound (NaN, or beyond full scale).
            StreamError: If the session is closed, or another thread is inside it.
        """
        with self._at_work():
            return self._step(_checked_frame(frame))

    def feed(self, pcm: npt.NDArray[np.float32] | npt.NDArray[np.int16]) -> Pcm:
        """Give the user's audio and take the agent's, in chunks of any size at the session's rate.

        Args:
            pcm: Samples, float32 in [-1, 1] or int16, shape [n], n >= 0.

        Returns:
            The agent's samples that are complete, shape [m]; over all calls they do not depend on the chunking. What a
            failed call had completed comes with the next one.

        Raises:
            AudioError: If the samples are of another type or shape, or hold what is no sound.
            StreamError: If the session is closed, or another thread is inside it.
        """
        with self._at_work():
            samples = _checked_chunk(pcm)
            self._fed_samples += len(samples)
            self._run_frames(self._to_model.process(samples))
            return self._take_ready(len(self._ready))

    def flush(self) -> Pcm:
        """Pad the last partial frame with silence and return the agent's remaining samples.

        Meant for the end of a recording: with it, `feed` has returned exactly as many samples as it was given.

        Raises:
            StreamError: As `feed`.
        """
        with self._at_work():
            missing = self._fed_samples - self._returned_samples
            if missing:
                self._run_frames(self._to_model.flush())
                self._run_frames(np.zeros(-len(self._pending) % FRAME_SAMPLES, dtype=np.float32))
                self._ready = np.concatenate([self._ready, self._from_model.flush()])
            return self._take_ready(missing)

    async def stream(
        self, chunks: AsyncIterable[npt.NDArray[np.float32] | npt.NDArray[np.int16]]
    ) -> AsyncIterator[FrameResult]:
        """Turn an async source of chunks at the session's rate into frame results, each step in a worker thread.

        The results' `pcm` is the agent's frame at 24 kHz. When the source ends, the last partial frame is padded with
        silence. Cancelling waits for the step in progress.

        Raises:
            AudioError: As `feed`.
            StreamError: As `feed`.
        """
        async for chunk in chunks:
            self._check_open()
            for frame in self._whole_frames(self._to_model.process(_checked_chunk(chunk))):
                yield await self._step_in_thread(frame)
        rest = np.concatenate([self._pending, self._to_model.flush()])
        self._pending = np.empty(0, dtype=np.float32)
        for frame in self._whole_frames(np.pad(rest, (0, -len(rest) % FRAME_SAMPLES))):
            yield await self._step_in_thread(frame)

    # Events, state, report

    def on(self, kind: str, handler: Handler | None = None) -> Callable[[Handler], Handler] | Handler:
        """Register a handler for an event, directly or as a decorator; "*" means all.

        Handlers run on a background thread, in order. When 1024 events wait, further ones are dropped and counted in
        `dropped_events`.

        Raises:
            ConfigError: If there is no such event.
            StreamError: If the session is closed.
        """
        if handler is not None:
            return self._events.subscribe(kind, handler)
        return lambda function: self._events.subscribe(kind, function)

    @property
    def dropped_events(self) -> int:
        """Events that no handler saw because the queue was full."""
        return self._events.dropped

    @property
    def failed_handlers(self) -> int:
        """Handler calls that raised; each is in the log."""
        return self._events.failed

    @property
    def duration_s(self) -> float:
        """Length of the conversation so far."""
        return self._frames / FRAME_RATE_HZ

    @property
    def transcript(self) -> list[tuple[float, str]]:
        """The agent's text so far: (time in seconds, piece)."""
        return list(self._transcript)

    @property
    def sampling(self) -> Sampling:
        """Sampling of the model; assign a changed copy to change it from the next frame on."""
        return self._engine.sampling

    @sampling.setter
    def sampling(self, value: Sampling) -> None:
        if not isinstance(value, Sampling):
            raise ConfigError(f"sampling must be a Sampling, got a {type(value).__name__}")
        self._engine.sampling = value

    def set_sampling(self, **changes: float) -> None:
        """Change single sampling values from the next frame on, for example `padding_bias=1.0`.

        Raises:
            ConfigError: If a name is unknown or a value out of range.
        """
        known = [field.name for field in fields(Sampling)]
        for name in changes:
            if name not in known:
                raise ConfigError(f"unknown sampling value {name!r}; known: {', '.join(known)}")
        self._engine.sampling = replace(self._engine.sampling, **changes)  # type: ignore[arg-type]

    def snapshot(self) -> SessionSnapshot:
        """Copy the whole state of the conversation.

        Raises:
            StreamError: If the session is closed.
        """
        self._check_open()
        return SessionSnapshot(
            codec=self._codec.snapshot(),
            engine=self._engine.snapshot(),
            meter=self._meter.snapshot(),
            resamplers=(self._to_model.snapshot(), self._from_model.snapshot()),
            pending=self._pending.copy(),
            ready=self._ready.copy(),
            fed_samples=self._fed_samples,
            returned_samples=self._returned_samples,
            frames=self._frames,
            transcript=tuple(self._transcript),
        )

    def restore(self, snapshot: SessionSnapshot) -> None:
        """Go back to a snapshot of this agent's session at the same rate; what follows is bit for bit the same.

        Stage latencies and late frames are this session's own measurements and are not part of a snapshot.

        Raises:
            StreamError: If the snapshot does not fit this session, which then stays as it was, or the session is
                recorded: a recording does not go back.
        """
        self._check_open()
        if self._recorder is not None:
            raise StreamError("this session is recorded and cannot go back; restore in a session without record")
        if not isinstance(snapshot, SessionSnapshot):
            raise StreamError(f"a {type(snapshot).__name__} is no snapshot; pass what Session.snapshot() returned")
        before = self.snapshot()
        try:
            self._put_back(snapshot)
        except StreamError:
            self._put_back(before)
            raise

    def report(self) -> InteractivityReport:
        """Measure the conversation so far: the four axes, their human bands and the latency of every stage."""
        return replace(
            self._meter.report(),
            latency={stage: histogram.summary() for stage, histogram in self._latency.items()},
            late_frames=self._late_frames,
        )

    def close(self) -> None:
        """End the conversation; events already queued are still delivered, for at most one second.

        A recorded conversation is now whole on disk.
        """
        if self._recorder is not None and not self._is_closed:
            self._recorder.close(self.report())
        self._is_closed = True
        self._events.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The frame path

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._check_open()
        if not self._busy.acquire(blocking=False):
            raise StreamError("another thread is inside this session; give each thread a session of its own")
        try:
            yield
        except Exception as error:
            self._publish("error", self.duration_s, message=f"{type(error).__name__}: {error}")
            raise
        finally:
            self._busy.release()

    async def _step_in_thread(self, frame: Pcm) -> FrameResult:
        step = asyncio.ensure_future(asyncio.to_thread(self.step, frame))
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            # The thread cannot be stopped half-way: let it finish, so that the next step finds a whole state.
            await asyncio.wait([step])
            raise

    def _run_frames(self, pcm: Pcm) -> None:
        for frame in self._whole_frames(pcm):
            self._ready = np.concatenate([self._ready, self._from_model.process(self._step(frame).pcm)])

    def _take_ready(self, count: int) -> Pcm:
        taken, self._ready = self._ready[:count], np.empty(0, dtype=np.float32)
        self._returned_samples += len(taken)
        return taken

    def _whole_frames(self, pcm: Pcm) -> Iterator[Pcm]:
        self._pending = np.concatenate([self._pending, pcm])
        while len(self._pending) >= FRAME_SAMPLES:
            frame, self._pending = self._pending[:FRAME_SAMPLES], self._pending[FRAME_SAMPLES:]
            yield frame

    def _step(self, frame: Pcm) -> FrameResult:
        started = perf_counter()
        user_codes = self._codec.encode_step(frame)
        encoded = perf_counter()
        output = self._engine.step(user_codes)
        stepped = perf_counter()
        pcm = np.zeros(FRAME_SAMPLES, dtype=np.float32)
        if output.agent_codes is not None:
            pcm = self._codec.decode_step(output.agent_codes)
        decoded = perf_counter()
        text = self._tokenizer.piece(output.text_token)
        detokenised = perf_counter()
        events = self._meter.push_frame(frame, pcm)
        ended = perf_counter()

        clock = (started, encoded, stepped, decoded, detokenised, ended)
        stage_ms = {stage: 1e3 * (b - a) for stage, a, b in zip(STAGES, clock, clock[1:], strict=False)}
        stage_ms["total"] = 1e3 * (ended - started)
        result = FrameResult(
            index=self._frames,
            pcm=pcm,
            text=text,
            user_codes=user_codes,
            agent_codes=output.agent_codes,
            stage_ms=stage_ms,
            is_late=stage_ms["total"] > FRAME_MS,
        )
        if self._recorder is not None:
            self._recorder.add_frame(frame, pcm)
        self._account(result, events)
        return result

    def _account(self, result: FrameResult, events: list[Event]) -> None:
        for stage, duration_ms in result.stage_ms.items():
            self._latency[stage].add(duration_ms)
        self._frames += 1
        at_s = result.index / FRAME_RATE_HZ
        for event in events:
            self._tell(event)
        if result.text:
            self._transcript.append((at_s, result.text))
            self._publish("transcript", at_s, text=result.text)
        if result.is_late:
            self._late_frames += 1
            self._publish("deadline_missed", at_s, total_ms=result.stage_ms["total"])

    def _publish(self, kind: str, at_s: float, **detail: str | float) -> None:
        self._tell(Event(kind=kind, side="agent", start_s=at_s, end_s=at_s, detail=detail))

    def _tell(self, event: Event) -> None:
        self._events.publish(event)
        if self._recorder is not None:
            self._recorder.add_event(event)

    def _put_back(self, snapshot: SessionSnapshot) -> None:
        self._codec.restore(snapshot.codec)
        self._engine.restore(snapshot.engine)
        self._meter.restore(snapshot.meter)
        self._to_model.restore(snapshot.resamplers[0])
        self._from_model.restore(snapshot.resamplers[1])
        self._pending, self._ready = snapshot.pending.copy(), snapshot.ready.copy()
        self._fed_samples, self._returned_samples = snapshot.fed_samples, snapshot.returned_samples
        self._frames = snapshot.frames
        self._transcript = list(snapshot.transcript)

    def _check_open(self) -> None:
        if self._is_closed:
            raise StreamError("this session is closed; open another with agent.session()")


def _checked_frame(frame: Pcm) -> Pcm:
    samples = _checked_chunk(frame)
    if samples.shape != (FRAME_SAMPLES,):
        raise AudioError(
            f"a frame has {FRAME_SAMPLES} samples at 24 kHz, got {len(samples)}; use feed() for other sizes"
        )
    return samples


def _checked_chunk(pcm: npt.NDArray[np.float32] | npt.NDArray[np.int16]) -> Pcm:
    array = np.asarray(pcm)
    if array.dtype == np.int16:
        array = array.astype(np.float32) / 32768.0
    if array.dtype != np.float32 or array.ndim != 1:
        raise AudioError(
            f"expected float32 or int16 samples of shape [n], got {array.dtype} of shape {list(array.shape)}"
        )
    peak = float(np.abs(array).max(initial=0.0))
    if not peak <= MAX_LEVEL:
        raise AudioError(
            f"a sample of the chunk is {peak:g}, full scale is 1; pass int16 as int16, or divide it by 32768"
        )
    return np.ascontiguousarray(array)
