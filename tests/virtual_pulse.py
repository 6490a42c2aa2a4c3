"""A PulseAudio server on pipes and the user at their ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sound_libraries import require_sounddevice
from virtual_jack import may_hurry

_BLOCK = 480
_ALSA = """
pcm.agent { type pulse hint { show on description "agent" } }
ctl.agent { type pulse }
pcm.!default { type pulse }
ctl.!default { type pulse }
"""


class PulseServer:
    """`pulseaudio` with a pipe as loudspeaker and a pipe as microphone, in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        folder.chmod(0o700)
        self._folder = folder
        (folder / "asound.conf").write_text(_ALSA, encoding="utf-8")
        settings = {
            "XDG_RUNTIME_DIR": folder,
            "HOME": folder,
            "PULSE_RUNTIME_PATH": folder / "runtime",
            "PULSE_STATE_PATH": folder / "state",
            "PULSE_SERVER": f"unix:{folder}/native",
            "PULSE_SINK": "vspk",
            "PULSE_SOURCE": "vmic",
            "ALSA_CONFIG_PATH": folder / "asound.conf",
            "JACK_NO_START_SERVER": "1",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, str(value))
        pipe = "format=float32le rate=24000 channels=1"
        modules = [
            f"module-native-protocol-unix socket={folder}/native auth-anonymous=1",
            f"module-pipe-sink sink_name=vspk file={folder}/speaker {pipe} use_system_clock_for_timing=yes",
            f"module-pipe-source source_name=vmic file={folder}/mic {pipe}",
        ]
        loads = [argument for module in modules for argument in ("-L", module)]
        command = ["chrt", "-r", "10"] if may_hurry() else []
        command += ["pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", *loads]
        with (folder / "pulse.log").open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until_s = time.monotonic() + 10
        while not all((folder / name).exists() for name in ("native", "speaker", "mic")):
            assert time.monotonic() < until_s, (folder / "pulse.log").read_text()
            time.sleep(0.05)

    def user(self, pcm: np.ndarray, *, mic_ppm: float = 0.0) -> PulseUser:
        return PulseUser(self._folder / "speaker", self._folder / "mic", pcm, mic_ppm)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class PulseUser:
    """Reads the loudspeaker block by block and, for each, writes one to the microphone: silence, then `pcm` once.

    The server takes the microphone's time from what is written, so a sample more or less in some blocks makes a
    microphone whose clock runs by `mic_ppm` faster than the loudspeaker's.
    """

    def __init__(self, speaker: Path, mic: Path, pcm: np.ndarray, mic_ppm: float) -> None:
        self._speaker = os.open(speaker, os.O_RDONLY | os.O_NONBLOCK)
        self._mic = os.open(mic, os.O_WRONLY | os.O_NONBLOCK)
        # A full pipe is delay; one page holds two blocks, and a block is written whole or not at all.
        fcntl.fcntl(self._mic, fcntl.F_SETPIPE_SZ, 4096)
        self.refused_blocks = 0
        self._pcm, self._mic_ppm = pcm, mic_ppm
        self._owed = 0.0
        self._heard: list[np.ndarray] = []
        self._said = 0
        self._is_talking = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def converse(self, samples: int) -> np.ndarray:
        self._is_talking = True
        until_s = time.monotonic() + samples / 24_000 + 20
        while len(self._heard) * _BLOCK < samples:
            assert time.monotonic() < until_s, "the loudspeaker fell silent"
            time.sleep(0.05)
        return np.concatenate(self._heard)[:samples]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._speaker)
        os.close(self._mic)

    def _run(self) -> None:
        pending = b""
        while not self._stop.is_set():
            try:
                pending += os.read(self._speaker, 4 * _BLOCK)
            except BlockingIOError:
                self._stop.wait(0.002)
            while len(pending) >= 4 * _BLOCK:
                block, pending = pending[: 4 * _BLOCK], pending[4 * _BLOCK :]
                self._exchange(np.frombuffer(block, dtype=np.float32))

    def _exchange(self, heard: np.ndarray) -> None:
        self._owed += _BLOCK * self._mic_ppm * 1e-6
        count = _BLOCK + int(self._owed)
        self._owed -= int(self._owed)
        reply = np.zeros(count, dtype=np.float32)
        if self._is_talking:
            self._heard.append(heard)
            part = self._pcm[self._said : self._said + count]
            reply[: len(part)] = part
            self._said += count
        try:
            os.write(self._mic, reply.tobytes())
        except BlockingIOError:
            self.refused_blocks += self._is_talking
        except BrokenPipeError:  # The server was killed.
            self._stop.set()


def require_pulse() -> None:
    """Skip, saying why, where the PulseAudio tests cannot run."""
    if shutil.which("pulseaudio") is None:
        pytest.skip("pulseaudio is not installed; on Debian: apt-get install pulseaudio libasound2-plugins")
    require_sounddevice()
