"""Whole conversations with the small agent: recorded voice in, agent's voice and report out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue import AgentConfig, DuplexAgent, InteractivityReport
from duologue.audio import AudioFile
from duologue.conversation import converse
from duologue.errors import AudioError, ConfigError, StreamError
from duologue.session import Session
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ


@pytest.fixture(scope="module")
def agent() -> DuplexAgent:
    return DuplexAgent.load()


@pytest.fixture(scope="module")
def voice(demo_user: Path) -> np.ndarray:
    """Eight seconds of the bundled recorded user."""
    with AudioFile(demo_user) as recording:
        return recording.read()[: 8 * SAMPLE_RATE_HZ]


def _steps(session: Session, pcm: np.ndarray) -> list[tuple[bytes, str]]:
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return [(result.pcm.tobytes(), result.text) for result in map(session.step, frames)]


def test_same_seed_and_input_give_the_same_output(agent: DuplexAgent, voice: np.ndarray) -> None:
    with agent.session(seed=1) as a, agent.session(seed=1) as b, agent.session(seed=2) as c:
        first = _steps(a, voice)
        assert _steps(b, voice) == first
        assert _steps(c, voice) != first
        assert len({pcm for pcm, _ in first}) > len(first) // 2, "the agent must be making sound"


@pytest.mark.parametrize(("rate_hz", "dtype"), [(24_000, np.float32), (16_000, np.int16), (44_100, np.float32)])
def test_feed_does_not_depend_on_the_chunking(agent: DuplexAgent, voice: np.ndarray, rate_hz: int, dtype: type) -> None:
    pcm = voice[: 3 * rate_hz + 777]
    pcm = (pcm * 32767).astype(np.int16) if dtype is np.int16 else pcm
    outputs = []
    for chunk in (len(pcm), 1920, 333):
        with agent.session(seed=0, sample_rate_hz=rate_hz) as session:
            pieces = [session.feed(pcm[i : i + chunk]) for i in range(0, len(pcm), chunk)]
            outputs.append(np.concatenate([*pieces, session.flush()]))
            report = session.report()
        assert len(outputs[-1]) == len(pcm)
        assert report.duration_s == pytest.approx(len(pcm) / rate_hz, abs=0.081)
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])


def test_a_snapshot_continues_bit_for_bit(agent: DuplexAgent, voice: np.ndarray) -> None:
    with agent.session(seed=3) as session, agent.session(seed=9) as other:
        _steps(session, voice)
        snapshot = session.snapshot()
        first, report = _steps(session, voice), session.report()
        _steps(session, voice[::-1].copy())
        session.restore(snapshot)
        assert _steps(session, voice) == first
        other.restore(snapshot)
        assert _steps(other, voice) == first
        assert other.report().events == report.events


def test_feeding_goes_on_after_a_restore_elsewhere(agent: DuplexAgent, voice: np.ndarray) -> None:
    pcm = voice[:20_000]
    with agent.session(seed=3, sample_rate_hz=16_000) as a, agent.session(seed=8, sample_rate_hz=16_000) as b:
        a.feed(pcm[:5_001])
        b.restore(a.snapshot())
        expected = np.concatenate([a.feed(pcm[5_001:]), a.flush()])
        assert np.array_equal(np.concatenate([b.feed(pcm[5_001:]), b.flush()]), expected)


def test_a_snapshot_that_does_not_fit_changes_nothing(agent: DuplexAgent, voice: np.ndarray) -> None:
    level = DuplexAgent.load(config=AgentConfig(user_detector="level"))
    with agent.session() as a, agent.session() as untouched, level.session() as other:
        _steps(other, voice[:24_000])
        for wrong in (other.snapshot(), None, b""):
            with pytest.raises(StreamError):
                a.restore(wrong)  # type: ignore[arg-type]
        assert _steps(a, voice[:24_000]) == _steps(untouched, voice[:24_000])


def test_sessions_run_side_by_side_in_threads(agent: DuplexAgent, voice: np.ndarray) -> None:
    expected = {}
    for seed in range(3):
        with agent.session(seed=seed) as session:
            expected[seed] = _steps(session, voice)
    found: dict[int, list[tuple[bytes, str]]] = {}

    def converse_alone(seed: int) -> None:
        with agent.session(seed=seed) as session:
            found[seed] = _steps(session, voice)

    threads = [threading.Thread(target=converse_alone, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_the_async_variant_gives_the_same_frames(agent: DuplexAgent, voice: np.ndarray) -> None:
    async def chunks() -> AsyncIterator[np.ndarray]:
        for i in range(0, len(voice), 1000):
            yield voice[i : i + 1000]

    async def collect(session: Session) -> list[tuple[bytes, str]]:
        return [(result.pcm.tobytes(), result.text) async for result in session.stream(chunks())]

    with agent.session(seed=1) as a, agent.session(seed=1) as b:
        assert asyncio.run(collect(a)) == _steps(b, voice)


def test_events_reach_handlers_in_order(agent: DuplexAgent, voice: np.ndarray) -> None:
    seen: list[tuple[str, float]] = []
    pieces: list[str] = []
    with agent.session(seed=0) as session:
        session.on("*", lambda event: seen.append((event.kind, event.start_s)))

        @session.on("transcript")
        def collect(event: object) -> None:
            pieces.append(event.detail["text"])  # type: ignore[attr-defined]

        _steps(session, voice)
        report, transcript = session.report(), session.transcript
        with pytest.raises(AudioError):
            session.step(np.zeros(10, dtype=np.float32))
        session.close()
    kinds = [kind for kind, _ in seen]
    assert "user_speech_started" in kinds
    assert "user_speech_ended" in kinds
    assert kinds[-1] == "error"
    assert pieces == [text for _, text in transcript]
    live = [kind for kind in kinds if kind not in ("transcript", "deadline_missed", "error")]
    assert live == [event.kind for event in report.events][: len(live)]


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros(100, dtype=np.float32),
        np.zeros((1, FRAME_SAMPLES), dtype=np.float32),
        np.zeros(FRAME_SAMPLES, dtype=np.float64),
        np.full(FRAME_SAMPLES, np.nan, dtype=np.float32),
        np.full(FRAME_SAMPLES, np.inf, dtype=np.float32),
    ],
)
def test_a_bad_frame_is_refused_and_changes_nothing(agent: DuplexAgent, voice: np.ndarray, frame: np.ndarray) -> None:
    with agent.session(seed=4) as session, agent.session(seed=4) as untouched:
        with pytest.raises(AudioError):
            session.step(frame)
        assert _steps(session, voice[:24_000]) == _steps(untouched, voice[:24_000])


def test_a_closed_session_says_so(agent: DuplexAgent) -> None:
    session = agent.session()
    session.close()
    session.close()
    with pytest.raises(StreamError, match="closed"):
        session.step(np.zeros(FRAME_SAMPLES, dtype=np.float32))


def test_sampling_changes_live(agent: DuplexAgent, voice: np.ndarray) -> None:
    with agent.session(seed=0) as session:
        session.set_sampling(padding_bias=1000.0)
        _steps(session, voice)
        assert session.transcript == []
        with pytest.raises(ConfigError, match="unknown sampling value"):
            session.set_sampling(temprature=1.0)


def test_converse_writes_everything(agent: DuplexAgent, tmp_path: Path, voice: np.ndarray) -> None:
    source = tmp_path / "user.wav"
    soundfile.write(source, voice, SAMPLE_RATE_HZ)
    with AudioFile(source) as user:
        conversation = converse(agent, user, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"conversation.wav", "report.json", "report.html", "transcript.txt"}
    sound, rate_hz = soundfile.read(tmp_path / "out" / "conversation.wav", dtype="float32")
    assert (rate_hz, sound.shape) == (SAMPLE_RATE_HZ, (len(voice), 2))
    assert np.abs(sound[:, 0] - voice).max() < 1e-4
    text = (tmp_path / "out" / "report.json").read_text()
    assert InteractivityReport.from_json(text) == conversation.report
    assert json.loads(text)["schema_version"] == 1
    assert conversation.report.latency["total"].count == len(voice) // FRAME_SAMPLES


def test_live_metrics_equal_the_offline_ones(agent: DuplexAgent, tmp_path: Path, voice: np.ndarray) -> None:
    from duologue.metrics import measure

    source = tmp_path / "user.wav"
    soundfile.write(source, voice, SAMPLE_RATE_HZ, subtype="FLOAT")
    with agent.session(seed=5) as session:
        replies = [session.step(frame).pcm for frame in voice.reshape(-1, FRAME_SAMPLES)]
        live = session.report()
    offline = measure(voice, np.concatenate(replies), SAMPLE_RATE_HZ)
    assert offline.events == live.events
    assert offline.turn == live.turn


def test_the_torch_engine_holds_the_same_conversation(agent: DuplexAgent, voice: np.ndarray) -> None:
    pytest.importorskip("torch")
    twin = DuplexAgent.load(config=AgentConfig(engine="torch"))
    with agent.session(seed=1) as a, twin.session(seed=1) as b:
        assert [text for _, text in _steps(a, voice)] == [text for _, text in _steps(b, voice)]


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_an_agent_keeps_its_codecs_weights_as_asked(precision: str) -> None:
    agent = DuplexAgent.load(config=AgentConfig.from_dict({"codec_precision": precision}))
    assert agent.mimi.precision == precision
    with agent.session() as session:
        assert np.isfinite(session.step(np.zeros(FRAME_SAMPLES, dtype=np.float32)).pcm).all()
