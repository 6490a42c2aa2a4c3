"""The session's own work, with fakes for codec, model and meter: framing, deadlines, events, errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from duologue.config import Sampling
from duologue.errors import AudioError, ConfigError, StreamError
from duologue.metrics.types import Event
from duologue.session import Session
from duologue.types import FRAME_SAMPLES, StepOutput


class EchoCodec:
    """Remembers the frame it encoded and decodes it again."""

    def encode_step(self, frame: np.ndarray) -> np.ndarray:
        self.frame = frame.copy()
        return np.zeros(8, dtype=np.int32)

    def decode_step(self, codes: np.ndarray) -> np.ndarray:
        return self.frame


class ScriptedModel:
    """Speaks token n in call n; call 0 returns no codes; sleeps when told to."""

    def __init__(self, sleep_s: float = 0.0) -> None:
        self.sampling = Sampling()
        self.calls = 0
        self.sleep_s = sleep_s

    def step(self, user_codes: np.ndarray) -> StepOutput:
        time.sleep(self.sleep_s)
        self.calls += 1
        codes = None if self.calls == 1 else np.zeros(8, dtype=np.int32)
        return StepOutput(text_token=self.calls, agent_codes=codes, logprobs=np.zeros(9, dtype=np.float32))


class Words:
    """Token n is the word n, padding for even ones."""

    def piece(self, token: int) -> str:
        return f" {token}" if token % 2 else ""


class SilentMeter:
    """Finds nothing."""

    def push_frame(self, user: np.ndarray, agent: np.ndarray) -> list[Any]:
        return []


def _session(model: ScriptedModel | None = None, sample_rate_hz: int = 24_000) -> Session:
    parts: dict[str, Any] = {"codec": EchoCodec(), "engine": model or ScriptedModel(), "tokenizer": Words()}
    return Session(**parts, meter=SilentMeter(), sample_rate_hz=sample_rate_hz)  # type: ignore[arg-type]


def test_the_first_frame_is_silent_and_the_rest_is_the_echo() -> None:
    frame = np.linspace(-1, 1, FRAME_SAMPLES, dtype=np.float32)
    with _session() as session:
        assert not session.step(frame).pcm.any()
        assert np.array_equal(session.step(frame).pcm, frame)
        assert session.duration_s == pytest.approx(0.16)
        assert session.transcript == [(0.0, " 1")]


def test_feed_returns_whole_frames_and_flush_the_rest() -> None:
    pcm = np.random.default_rng(0).uniform(-1, 1, 5_000).astype(np.float32)
    with _session() as session:
        assert len(session.feed(pcm[:100])) == 0
        assert len(session.feed(pcm[100:])) == 2 * FRAME_SAMPLES
        assert len(session.flush()) == 5_000 - 2 * FRAME_SAMPLES


def test_int16_equals_float32() -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32767, 4 * FRAME_SAMPLES).astype(np.int16)
    with _session() as a, _session() as b:
        assert np.array_equal(a.feed(pcm), b.feed(pcm.astype(np.float32) / 32768))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_an_echo_survives_the_resampling_both_ways(rate_hz: int) -> None:
    time_s = np.arange(rate_hz) / rate_hz
    tone = (0.5 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
    with _session(sample_rate_hz=rate_hz) as session:
        output = np.concatenate([session.feed(tone), session.flush()])
    assert len(output) == len(tone)
    inner = slice(rate_hz // 5, -rate_hz // 5)
    assert np.abs(output[inner] - tone[inner]).max() < 1e-3


def test_a_late_frame_is_flagged_counted_and_told() -> None:
    told: list[Event] = []
    frame = np.zeros(FRAME_SAMPLES, dtype=np.float32)
    with _session(ScriptedModel(sleep_s=0.09)) as session:
        session.on("deadline_missed", told.append)
        result = session.step(frame)
    assert result.is_late
    assert result.stage_ms["model"] > 80
    assert sum(
        result.stage_ms[stage] for stage in ("encode", "model", "decode", "detokenise", "metrics")
    ) == pytest.approx(result.stage_ms["total"], rel=0.01)
    assert [event.kind for event in told] == ["deadline_missed"]
    assert told[0].detail["total_ms"] == result.stage_ms["total"]


def test_a_failing_step_is_raised_and_told() -> None:
    told: list[Event] = []

    class Broken(ScriptedModel):
        def step(self, user_codes: np.ndarray) -> StepOutput:
            raise RuntimeError("the driver went away")

    with _session(Broken()) as session:
        session.on("error", told.append)
        with pytest.raises(RuntimeError, match="driver"):
            session.step(np.zeros(FRAME_SAMPLES, dtype=np.float32))
    assert [event.detail["message"] for event in told] == ["RuntimeError: the driver went away"]


def test_sound_of_the_wrong_scale_is_refused() -> None:
    with _session() as session, pytest.raises(AudioError, match="full scale is 1"):
        session.feed(np.full(100, 3000.0, dtype=np.float32))


def test_what_a_failed_feed_had_completed_comes_with_the_next() -> None:
    class FailsOnce(ScriptedModel):
        def step(self, user_codes: np.ndarray) -> StepOutput:
            if self.calls == 2:
                self.calls += 1
                raise RuntimeError("once")
            return super().step(user_codes)

    with _session(FailsOnce()) as session:
        with pytest.raises(RuntimeError, match="once"):
            session.feed(np.full(4 * FRAME_SAMPLES, 0.5, dtype=np.float32))
        assert len(session.feed(np.zeros(0, dtype=np.float32))) == 3 * FRAME_SAMPLES


def test_two_threads_in_one_session_are_told() -> None:
    frame = np.zeros(FRAME_SAMPLES, dtype=np.float32)
    with _session(ScriptedModel(sleep_s=0.3)) as session:
        other = threading.Thread(target=session.step, args=(frame,))
        other.start()
        time.sleep(0.1)
        with pytest.raises(StreamError, match="another thread"):
            session.step(frame)
        other.join()


def test_cancelling_a_stream_leaves_a_whole_state() -> None:
    frame = np.zeros(FRAME_SAMPLES, dtype=np.float32)

    async def source() -> AsyncIterator[np.ndarray]:
        while True:
            yield frame

    async def listen(session: Session) -> None:
        async for _ in session.stream(source()):
            pass

    async def cancel_midway(session: Session) -> None:
        task = asyncio.create_task(listen(session))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = session.duration_s
        session.step(frame)
        assert session.duration_s == pytest.approx(before + 0.08)

    with _session(ScriptedModel(sleep_s=0.03)) as session:
        asyncio.run(cancel_midway(session))


def test_a_stream_pads_its_last_frame_and_leaves_nothing_to_flush() -> None:
    async def source() -> AsyncIterator[np.ndarray]:
        for _ in range(5):
            yield np.zeros(1000, dtype=np.float32)

    async def count(session: Session) -> int:
        return len([result async for result in session.stream(source())])

    with _session(sample_rate_hz=16_000) as session:
        assert asyncio.run(count(session)) == 4
        assert len(session.flush()) == 0
        assert session.duration_s == pytest.approx(0.32)


def test_sampling_must_be_sampling() -> None:
    with _session() as session:
        with pytest.raises(ConfigError, match="must be a Sampling"):
            session.sampling = None  # type: ignore[assignment]
        with pytest.raises(ConfigError, match="unknown sampling value 'temprature'"):
            session.set_sampling(temprature=1.0)
