"""The way out of the conversation's process: a failing disk or a host that does not read costs only itself."""

from __future__ import annotations

from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.audio import live
from duologue.audio.live import open_live
from duologue.audio.outbox import Outbox
from duologue.audio.wire import LIVE_EVENT_KINDS, LiveOptions
from duologue.config import AgentConfig
from duologue.metrics.types import Event
from duologue.types import FRAME_SAMPLES

FRAME = np.zeros(FRAME_SAMPLES, dtype=np.float32)


def test_a_full_disk_ends_the_recording_and_not_the_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("No space left on device")

    ours, theirs = Pipe()
    outbox = Outbox(theirs, str(tmp_path / "a.wav"))
    monkeypatch.setattr(soundfile.SoundFile, "write", refuse)
    for _ in range(3):
        outbox.record(FRAME, FRAME)
    outbox.send("reply")
    outbox.close(5)
    event = ours.recv()
    assert isinstance(event, Event)
    assert event.kind == "recording_ended"
    assert event.kind in LIVE_EVENT_KINDS
    assert "No space left on device" in str(event.detail["message"])
    assert ours.recv() == "reply"
    assert not ours.poll()


def test_the_recording_is_whole_when_the_host_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duologue.audio.outbox._CAPACITY", 4)
    ours, theirs = Pipe()
    outbox = Outbox(theirs, str(tmp_path / "a.wav"))
    outbox.record(FRAME, FRAME)
    for _ in range(8):
        outbox.send(b"x" * 10_000_000)
    outbox.close(0.1)
    assert outbox.dropped > 0
    assert soundfile.info(tmp_path / "a.wav").frames == FRAME_SAMPLES
    ours.close()


def test_a_live_session_is_recorded_by_its_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LiveOptions] = []
    monkeypatch.setattr(live, "LiveSession", seen.append)
    monkeypatch.setattr("duologue.agent.DuplexAgent.load", lambda _, config: config)
    open_live(config=AgentConfig(record="calls", threads=2))
    loaded: object = seen[0].load_agent()
    assert loaded == AgentConfig(threads=2)
