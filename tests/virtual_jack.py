"""A JACK server on a dummy clock and a virtual user at it, who speaks into a microphone and hears a loudspeaker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from duologue.audio.priority import hurry

_numbers = count()


class JackServer:
    """`jackd` with the dummy driver under a private name."""

    def __init__(self, folder: Path, *, sample_rate_hz: int = 24_000, block_samples: int = 480) -> None:
        self.name = os.environ["JACK_DEFAULT_SERVER"]
        self._arguments = ["-d", "dummy", "-r", str(sample_rate_hz), "-p", str(block_samples), "-C", "1", "-P", "1"]
        self._log = folder / "jackd.log"
        self.start()

    def start(self) -> None:
        scheduling = ["-R", "-P", "10"] if may_hurry() else ["-r"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["jackd", *scheduling, "-n", self.name, *self._arguments], stdout=log, stderr=subprocess.STDOUT
            )
        until_s = time.monotonic() + 10
        while subprocess.run(["jack_lsp"], capture_output=True, check=False).returncode:
            assert time.monotonic() < until_s, self._log.read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is not None:
            # One that was killed keeps its place among JACK's eight until one of its name ends in order.
            self.start()
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()


class VirtualUser:
    """Somebody at the server, in a process of its own, so that what the test does to its own interpreter spares it."""

    def __init__(self, pcm: np.ndarray, folder: Path) -> None:
        self._seconds = 0.0
        self._said_path, self._heard_path = folder / "said.npy", folder / "heard.npy"
        np.save(self._said_path, pcm)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._said_path), str(self._heard_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._tell("")

    def converse(self, samples: int) -> tuple[np.ndarray, int]:
        """Say the recording once and listen for `samples`; return what was heard meanwhile and the xruns seen."""
        xruns = int(self._tell(f"converse {samples}"))
        return np.load(self._heard_path), xruns

    def close(self) -> None:
        """Leave politely: a server whose clients were killed may not end on request, and keeps its place for ever."""
        with suppress(subprocess.TimeoutExpired, OSError):
            self._process.communicate(timeout=1)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _tell(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer, "the virtual user's process died"
        return answer


class Ends:
    """Two JACK clients on the server's sample clock: "vmic" says `pcm` once, "vspk" keeps what it hears."""

    def __init__(self, pcm: np.ndarray) -> None:
        import jack

        self.heard_until = 0
        self.heard = np.empty(0, dtype=np.float32)
        self.is_talking = False
        self.xruns = 0
        self._pcm = pcm
        self._mic, self._speaker = jack.Client("vmic"), jack.Client("vspk")
        self._out = self._mic.outports.register("out")
        self._in = self._speaker.inports.register("in")
        self._mic.set_process_callback(self._say)
        self._speaker.set_process_callback(self._listen)
        self._mic.set_xrun_callback(self._count)
        self._begin = 0
        self._mic.activate()
        self._speaker.activate()

    def talk(self, samples: int) -> None:
        """Say and hear `samples`, both ends from one moment of the server's clock, one fifth of a second from now."""
        # By the clock and not by what came before: a cycle that the server went on without is silence, and no jump.
        self.heard, self.heard_until = np.zeros(samples, dtype=np.float32), 0
        self._begin = self._mic.frame_time + self._mic.samplerate // 5
        self.is_talking = True

    def _say(self, samples: int) -> None:
        block = np.zeros(samples, dtype=np.float32)
        first = self._position(self._mic)
        if self.is_talking and first + samples > 0:
            positions = np.arange(first, first + samples)
            inside = (positions >= 0) & (positions < len(self._pcm))
            block[inside] = self._pcm[positions[inside]]
        self._out.get_array()[:] = block

    def _listen(self, samples: int) -> None:
        first = self._position(self._speaker)
        if self.is_talking and first + samples > 0:
            skip, room = max(0, -first), len(self.heard) - first
            block = self._in.get_array()[skip : max(skip, room)]
            self.heard[first + skip : first + skip + len(block)] = block
            self.heard_until = first + samples

    def _position(self, client: Any) -> int:
        return (client.last_frame_time - self._begin + (1 << 31)) % (1 << 32) - (1 << 31)

    def _count(self, delayed_us: float) -> None:
        self.xruns += 1

    def close(self) -> None:
        for client in (self._mic, self._speaker):
            client.deactivate()
            client.close()


def may_hurry() -> bool:
    """Whether servers can be started ahead of ordinary programs.

    They stand for a device: what they miss because the host is busy would be held against the agent.
    """
    if shutil.which("chrt") is None:
        return False
    return subprocess.run(["chrt", "-r", "10", "true"], capture_output=True, check=False).returncode == 0


def serve_user(said_path: str, heard_path: str) -> None:
    hurry(is_real_time=True)
    ends = Ends(np.load(said_path))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        samples = int(line.split()[1])
        ends.talk(samples)
        while ends.heard_until < samples:
            time.sleep(0.05)
        ends.is_talking = False
        np.save(heard_path, ends.heard)
        sys.stdout.write(f"{ends.xruns}\n")
        sys.stdout.flush()
    ends.close()


def require_jack(monkeypatch: Any) -> None:
    """Skip, saying why, where the JACK tests cannot run; else point every JACK library at the private server."""
    import pytest

    from sound_libraries import require_sounddevice

    if shutil.which("jackd") is None:
        pytest.skip("jackd is not installed; on Debian: apt-get install jackd2 libportaudio2 libjack-jackd2-0")
    pytest.importorskip("jack", reason="JACK-Client is not installed", exc_type=ImportError)
    require_sounddevice()
    # A name of its own for every test: a server that was killed leaves things behind under its name.
    monkeypatch.setenv("JACK_DEFAULT_SERVER", f"duologue{os.getpid()}-{next(_numbers)}")
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    monkeypatch.setenv("JACK_NO_AUDIO_RESERVATION", "1")


def find_delay(said: np.ndarray, heard: np.ndarray, *, limit: int) -> int:
    """Return by how many samples `heard` repeats `said` later, from the largest cross-correlation."""
    size = 1 << int(np.ceil(np.log2(len(said) + len(heard))))
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size))
    return int(np.argmax(np.fft.irfft(spectrum, size)[:limit]))


def loop_delays_ms(
    said: np.ndarray, heard: np.ndarray, recorded: np.ndarray, *, begin: int | None = None
) -> list[tuple[int, float]]:
    """Delay of each second of the agent's sound at the user's ear against the user's sound of the same frames.

    Returns (second of his recording, delay) for every second in which it can be told.

    Args:
        said: What the user said.
        heard: What he heard, on the same clock.
        recorded: Both as the agent's process had them, frame beside frame; all at 24 kHz.
        begin: Where in `recorded` the user began; None looks for his first words there.
    """
    rate_hz = 24_000
    if begin is None:
        begin = find_delay(said[: 5 * rate_hz], recorded[:, 0], limit=10 * rate_hz)
    starts = range(0, len(heard) - 2 * rate_hz, rate_hz)
    shifts: dict[int, int] = {}
    for at in starts:
        # A lost cycle of the device shortens the recording.
        near = max(0, begin + at - rate_hz // 2)
        voice = said[at : at + rate_hz]
        if np.sqrt(np.mean(voice**2)) >= 1e-3:
            shifts[at] = near - at + find_delay(voice, recorded[near : near + 2 * rate_hz, 0], limit=rate_hz)
    found = []
    for at in starts:
        # Where the user is silent his neighbouring words tell the place, if they agree.
        before, after = [t for t in shifts if t <= at][-1:], [t for t in shifts if t >= at][:1]
        beside = {shifts[t] for t in before + after}
        if len(beside) != 1:
            continue
        place = at + beside.pop()
        piece = recorded[place : place + rate_hz, 1]
        if len(piece) < rate_hz:
            continue
        window = heard[at : at + 2 * rate_hz]
        delay = find_delay(piece, window, limit=rate_hz)
        echo = window[delay : delay + len(piece)]
        likeness = float(np.dot(echo, piece) / (np.linalg.norm(echo) * np.linalg.norm(piece) + 1e-9))
        # Seconds of silence and those in which the lag was changed say nothing.
        if likeness > 0.9 and np.sqrt(np.mean(piece**2)) > 1e-3:
            found.append((at // rate_hz, 1e3 * delay / rate_hz))
    return found


if __name__ == "__main__":
    serve_user(*sys.argv[1:])
