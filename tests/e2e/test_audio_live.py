"""Live conversations on the fake device: the whole chain of processes, without a sound server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.audio.echo import EchoAgent
from duologue.audio.fake import FakeSpec, FakeTiming
from duologue.audio.live import LiveSession, open_live
from duologue.audio.wire import LiveFrame
from duologue.errors import ConfigError, DeviceError, DuologueError, StreamError
from duologue.metrics.types import Event


class Broken:
    """An agent whose third live frame fails."""

    note = ""

    def session(self, *, seed: int) -> object:
        session = EchoAgent().session()
        step = session._engine.step
        calls = [0]

        def failing(codes: np.ndarray) -> object:
            calls[0] += 1
            if calls[0] > 20:
                raise RuntimeError("the model broke")
            return step(codes)

        session._engine.step = failing  # type: ignore[method-assign, assignment]
        return session


def _refuse() -> EchoAgent:
    raise DeviceError("no such agent today")


def _wait(is_done: Callable[[], bool], timeout_s: float = 15.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not is_done():
        assert time.monotonic() < until_s, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def speech(tmp_path: Path) -> tuple[Path, np.ndarray]:
    pcm = np.random.default_rng(0).integers(-20_000, 20_000, 24_000).astype(np.int16)
    path = tmp_path / "user.wav"
    soundfile.write(path, pcm, 24_000)
    return path, pcm.astype(np.float32) / 32768


def _echo(device: FakeSpec, **settings: object) -> LiveSession:
    return open_live(load_agent=EchoAgent, device=device, **{"playout_ms": 60.0, **settings})


def test_an_echo_comes_back_bit_for_bit_and_is_recorded(tmp_path: Path, speech: tuple[Path, np.ndarray]) -> None:
    path, pcm = speech
    heard_path, record_path = tmp_path / "heard.npy", tmp_path / "conversation.wav"
    frames: list[LiveFrame] = []
    with _echo(FakeSpec(user=str(path), heard_path=str(heard_path)), record_path=str(record_path)) as live:
        live.on_frame(frames.append)
        _wait(lambda: len(frames) >= 25)
        stats, report = live.stats(), live.report()
    assert live.device.host_api == "none"
    assert stats.frames >= 25
    assert report.latency["total"].count >= 25
    heard = np.load(heard_path)
    delay = round(0.140 * 24_000)
    if stats.concealed_ms == 0:
        assert np.array_equal(heard[delay : delay + len(pcm)], pcm)
    recorded, rate_hz = soundfile.read(record_path, dtype="float32")
    assert rate_hz == 24_000
    assert np.array_equal(recorded[:, 0], recorded[:, 1])
    assert np.abs(recorded[: len(pcm), 0] - pcm).max() < 1e-4
    assert frames[3].user_dbfs > -20
    assert frames[3].lag_ms == pytest.approx(140, abs=0.1) or stats.concealed_ms > 0


def test_commands_reach_the_conversation() -> None:
    with _echo(FakeSpec()) as live:
        live.mute()
        assert live.stats().is_muted
        live.mute(False)
        live.set_sampling(padding_bias=1.5)
        with pytest.raises(ConfigError, match="unknown"):
            live.set_sampling(loudness=1.0)
        assert 0 < live.interrupt() <= 160
        assert live.interrupt() < 160
        _wait(lambda: live.stats().silenced_ms > 0)
        _wait(lambda: live.report().latency["total"].count > 3)
        assert live.reset(seed=3) > 3
        assert live.report().latency["total"].count < 4
        info = live.switch_device(FakeSpec(sample_rate_hz=48_000, timing=FakeTiming(is_one_clock=False)))
        assert info.input_hz == 48_000
        before = live.stats().frames
        _wait(lambda: live.stats().frames > before + 3)


def test_a_lost_device_is_told_and_taken_back_with_the_conversation_kept() -> None:
    told: list[Event] = []
    with _echo(FakeSpec(vanish_after_s=0.5, away_s=1.2), watchdog_ms=300.0) as live:
        live.on("device_error", told.append)
        live.on("device_returned", told.append)
        _wait(lambda: len(told) == 2)
        at_return = live.stats()
        _wait(lambda: live.stats().frames > at_return.frames + 5)
        stats = live.stats()
    assert [event.kind for event in told] == ["device_error", "device_returned"]
    assert "no callback for" in str(told[0].detail["message"])
    assert stats.device_losses == 1
    assert stats.device is not None
    assert live.failed_handlers == 0


def test_the_conversation_outlives_a_host_that_holds_its_interpreter() -> None:
    numbers = np.random.default_rng(0).permutation(250_000).tolist()
    with _echo(FakeSpec(), playout_ms=80.0) as live:
        _wait(lambda: live.stats().frames > 3)
        before = live.stats()
        until_s = time.monotonic() + 3.0
        while time.monotonic() < until_s:
            sorted(numbers)
        after = live.stats()
    assert after.frames - before.frames >= 34
    assert after.lost_input_ms == before.lost_input_ms
    assert after.dropped_user_ms == before.dropped_user_ms
    assert after.concealed_ms - before.concealed_ms < 80


def test_close_is_quick_and_final() -> None:
    live = _echo(FakeSpec())
    begun = time.monotonic()
    live.close()
    live.close()
    assert time.monotonic() - begun < 1.2
    assert not live.is_running
    with pytest.raises(StreamError, match="over"):
        live.report()


def test_close_is_quick_when_the_conversation_hangs() -> None:
    live = _echo(FakeSpec())
    assert live._process.pid is not None
    os.kill(live._process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    live.close()
    assert time.monotonic() - begun < 1.3
    assert not live.is_running


def test_a_dead_process_is_an_error_not_a_hang() -> None:
    with _echo(FakeSpec()) as live:
        assert live._process.pid is not None
        os.kill(live._process.pid, signal.SIGKILL)
        _wait(lambda: not live.is_running)
        with pytest.raises(StreamError, match="over"):
            live.stats()


def test_a_failing_model_ends_the_conversation_with_its_reason() -> None:
    told: list[Event] = []
    with open_live(load_agent=Broken, device=FakeSpec(), playout_ms=40.0) as live:  # type: ignore[arg-type]
        live.on("error", told.append)
        _wait(lambda: not live.is_running)
        _wait(lambda: len(told) > 0)
        with pytest.raises(StreamError, match="the model broke"):
            live.stats()


def test_an_agent_or_device_that_does_not_open_is_named() -> None:
    with pytest.raises(DeviceError, match="no such agent today"):
        open_live(load_agent=_refuse, device=FakeSpec())
    with pytest.raises(DuologueError, match=r"nowhere\.wav"):
        _echo(FakeSpec(user="nowhere.wav"))
    with pytest.raises(ConfigError, match="cannot record"):
        _echo(FakeSpec(), record_path="/nowhere/at/all.wav")


def test_handlers_that_are_too_slow_cost_events_and_no_audio() -> None:
    gate = threading.Event()
    with _echo(FakeSpec()) as live:
        live.on("frame", lambda event: gate.wait(10) and None)
        _wait(lambda: live.stats().frames > 10)
        gate.set()
        assert live.stats().concealed_ms < 200


def test_a_script_without_a_main_guard_opens_one_conversation(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(
        "from duologue.audio.echo import EchoAgent\n"
        "from duologue.audio.fake import FakeSpec\n"
        "from duologue.audio.live import open_live\n"
        "with open_live(load_agent=EchoAgent, device=FakeSpec(), playout_ms=40.0) as live:\n"
        "    print(live.note)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == EchoAgent().note + "\n"


def test_a_host_that_forgets_to_close_still_ends(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(
        "from duologue.audio.echo import EchoAgent\n"
        "from duologue.audio.fake import FakeSpec\n"
        "from duologue.audio.live import open_live\n"
        "live = open_live(load_agent=EchoAgent, device=FakeSpec(), playout_ms=40.0)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_time_a_frame_may_take_follows_the_agent() -> None:
    with open_live(load_agent=partial(EchoAgent, step_ms=20.0), device=FakeSpec()) as live:
        assert 35 <= live.playout_ms < 100
