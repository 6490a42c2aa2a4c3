"""A kept conversation: sound, events and report, whole or absent, and never in the conversation's way."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.errors import ConfigError, StreamError
from duologue.metrics.meter import InteractivityMeter
from duologue.metrics.summary import build_report
from duologue.metrics.types import InteractivityReport
from duologue.recorder import EVENTS, REPORT, SOUND, Recorder
from duologue.session import Session
from duologue.types import FRAME_SAMPLES, StepOutput


class EchoCodec:
    def encode_step(self, frame: np.ndarray) -> np.ndarray:
        self.frame = frame.copy()
        return np.zeros(8, dtype=np.int32)

    def decode_step(self, codes: np.ndarray) -> np.ndarray:
        return self.frame


class CountingModel:
    calls = 0

    def step(self, user_codes: np.ndarray) -> StepOutput:
        self.calls += 1
        return StepOutput(text_token=self.calls, agent_codes=user_codes, logprobs=np.zeros(9, dtype=np.float32))


class Words:
    def piece(self, token: int) -> str:
        return f" {token}" if token % 2 else ""


def session(folder: Path) -> Session:
    meter = InteractivityMeter(user_detector="level", agent_detector="level")
    parts = {"codec": EchoCodec(), "engine": CountingModel(), "tokenizer": Words(), "meter": meter}
    return Session(**parts, recorder=Recorder(folder))  # type: ignore[arg-type]


def talk(folder: Path, frames: int = 40) -> np.ndarray:
    draw = np.random.default_rng(0)
    pcm = draw.uniform(-0.3, 0.3, (frames, FRAME_SAMPLES)).astype(np.float32)
    pcm[: frames // 2] *= 0
    with session(folder) as running:
        spoken = np.concatenate([running.step(frame).pcm for frame in pcm])
    return np.stack([pcm.ravel(), spoken], axis=1)


def test_a_session_leaves_a_folder_with_both_voices_events_and_report(tmp_path: Path) -> None:
    sides = talk(tmp_path / "kept")
    (folder,) = (tmp_path / "kept").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == sorted([SOUND, EVENTS, REPORT])
    sound, rate = soundfile.read(folder / SOUND, dtype="float32")
    assert rate == 24_000
    assert np.abs(sound - sides).max() <= 1 / 32768
    events = [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds.count("transcript") == 20
    assert "user_speech_started" in kinds
    report = InteractivityReport.from_json((folder / REPORT).read_text())
    assert report.duration_s == pytest.approx(40 * 0.08)


def test_a_session_without_a_frame_or_still_running_leaves_nothing(tmp_path: Path) -> None:
    with session(tmp_path / "kept"):
        pass
    assert list((tmp_path / "kept").iterdir()) == []
    with session(tmp_path / "kept") as running:
        running.step(np.zeros(FRAME_SAMPLES, dtype=np.float32))
        assert [path for path in (tmp_path / "kept").iterdir() if not path.name.startswith(".")] == []
    running.close()
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_recording_does_not_go_back(tmp_path: Path) -> None:
    with session(tmp_path) as running, pytest.raises(StreamError, match="is recorded and cannot go back"):
        running.restore(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_a_failing_disk_ends_the_recording_and_not_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise kind("No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", refuse)
    talk(tmp_path / "kept")
    assert "No space left on device" in caplog.text
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_hanging_disk_does_not_keep_the_conversation_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(soundfile.SoundFile, "write", lambda *_: goes_on.wait(5))
    monkeypatch.setattr("duologue.recorder._CLOSE_S", 0.05)
    monkeypatch.setattr("duologue.recorder._WAITING", 1)
    recorder, frame = Recorder(tmp_path), np.zeros(FRAME_SAMPLES, dtype=np.float32)
    for _ in range(3):
        recorder.add_frame(frame, frame)
    recorder.close(build_report([], 1.0))
    goes_on.set()
    assert recorder.error == "the disk hangs"


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot record there"):
        Recorder(tmp_path / "file" / "kept")
