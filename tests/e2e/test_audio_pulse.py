"""A live conversation over PulseAudio through ALSA, the path of a desktop.

Its pipes run at speeds of their own, so that two clocks are tested here: JACK drives everybody by one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duologue.audio.driver import PortAudioSpec
from duologue.audio.echo import EchoAgent
from duologue.audio.files import AudioFile
from duologue.audio.live import open_live
from duologue.audio.wire import LiveStats
from duologue.metrics.types import Event
from duologue.types import FRAME_MS
from virtual_jack import find_delay
from virtual_pulse import PulseServer, require_pulse

pytestmark = pytest.mark.audio

DEVICE = PortAudioSpec(input="agent", output="agent", host_api="ALSA")
PIECE = 6_000


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PulseServer]:
    require_pulse()
    made = PulseServer(tmp_path, monkeypatch)
    yield made
    made.kill()


def _loud_pieces(speech: np.ndarray) -> list[int]:
    return [at for at in range(0, len(speech), PIECE) if np.abs(speech[at : at + PIECE]).max() > 0.05]


def _comes_back(speech: np.ndarray, heard: np.ndarray, at: int) -> bool:
    # Short pieces, because the drift correction bends time by up to half a percent after a loss.
    said = speech[at : at + PIECE]
    window = heard[at : at + PIECE + 27_000]
    found = find_delay(said, window, limit=27_000)
    echo = window[found : found + PIECE]
    likeness = float(np.dot(echo, said) / (np.linalg.norm(echo) * np.linalg.norm(said) + 1e-9))
    return likeness > 0.75 and found / 24 >= 139


def _assert_all_taken(stats: LiveStats) -> None:
    """What the server gave has become frames, but for what waits: a slow server is its own affair, a slow loop ours."""
    waiting_ms = stats.received_ms - FRAME_MS * stats.frames
    assert stats.device_losses == 0
    assert stats.lost_input_ms == stats.dropped_user_ms == 0
    assert -1 <= waiting_ms <= FRAME_MS + 480


@pytest.mark.parametrize("is_split", [False, True])
def test_an_echo_comes_back_whole(server: PulseServer, demo_user: Path, is_split: bool) -> None:
    speech = np.ascontiguousarray(AudioFile(demo_user).read(24_000)[: 10 * 24_000])
    user = server.user(speech)
    device = PortAudioSpec(input="agent", output="agent", host_api="ALSA", is_split=is_split)
    try:
        with open_live(load_agent=EchoAgent, device=device, playout_ms=60.0) as live:
            while live.stats().frames < 5:
                time.sleep(0.05)
            heard = user.converse(len(speech) + 48_000)
            stats = live.stats()
    finally:
        user.close()
    _assert_all_taken(stats)
    # The desktop path makes no promise of exactness: most of the speech must come back, later by 140 ms
    # for frame and playout and at most a second for the server's own buffers. A block told as lost may cost a piece.
    flagged = sum(one.flagged for one in stats.counters.callbacks)
    loud = _loud_pieces(speech)
    returned = [at for at in loud if _comes_back(speech, heard, at)]
    assert len(returned) >= max(1, 0.6 * len(loud) - flagged)


@pytest.mark.parametrize("mic_ppm", [-200.0, 200.0])
def test_a_microphone_on_another_clock_is_followed(server: PulseServer, demo_user: Path, mic_ppm: float) -> None:
    # JACK has one clock for all; here the user's writing is the microphone's clock and the system's the loudspeaker's.
    seconds = 25
    speech = np.resize(AudioFile(demo_user).read(24_000), seconds * 24_000)
    user = server.user(speech, mic_ppm=mic_ppm)
    lags_ms: list[float] = []
    try:
        with open_live(load_agent=EchoAgent, device=replace(DEVICE, is_split=True), playout_ms=80.0) as live:
            live.on_frame(lambda frame: lags_ms.append(frame.lag_ms))
            while live.stats().frames < 5:
                time.sleep(0.05)
            before = live.stats()
            user.converse(seconds * 24_000)
            stats = live.stats()
    finally:
        user.close()
    _assert_all_taken(stats)
    assert stats.concealed_ms - before.concealed_ms <= 20
    if sum(one.flagged for one in stats.counters.callbacks) == 0 and user.refused_blocks == 0:
        assert stats.drift_ppm == pytest.approx(-mic_ppm, abs=120)
        # Blocks of 20 ms on either side; unfollowed, the lag would have moved by 5 ms.
        assert np.median(lags_ms[-60:]) == pytest.approx(160, abs=4)


def test_a_killed_server_is_told(server: PulseServer) -> None:
    user = server.user(np.zeros(24_000, dtype=np.float32))
    told: list[Event] = []
    with open_live(load_agent=EchoAgent, device=DEVICE, playout_ms=60.0) as live:
        live.on("device_error", told.append)
        while live.stats().frames < 3:
            time.sleep(0.05)
        server.kill()
        until_s = time.monotonic() + 15
        while not told:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        begun = time.monotonic()
        live.close()
        assert time.monotonic() - begun < 1.3
    user.close()
