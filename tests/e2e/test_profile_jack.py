"""The click loop over PortAudio and a JACK dummy server whose loudspeaker is wired to its microphone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from duologue.cli import main

pytestmark = pytest.mark.audio
PERIOD_MS = 20


@pytest.fixture
def wired_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of our own, on which every PortAudio client is made to hear itself."""
    if not (shutil.which("jackd") and shutil.which("jack_connect")):
        pytest.skip("jackd and jack_connect are not installed; on Debian: apt-get install jackd2")
    pytest.importorskip("sounddevice")
    monkeypatch.setenv("JACK_DEFAULT_SERVER", f"profile{os.getpid()}")
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    monkeypatch.setenv("JACK_NO_AUDIO_RESERVATION", "1")
    command = ["jackd", "-r", "-n", os.environ["JACK_DEFAULT_SERVER"], "-d", "dummy", "-r", "24000", "-p", "480"]
    command += ["-C", "1", "-P", "1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stop = threading.Event()
    wiring = threading.Thread(target=_wire, args=(stop,))
    try:
        for _ in range(100):
            if _ports():
                break
            time.sleep(0.1)
        else:
            pytest.fail("jackd did not start within 10 s")
        wiring.start()
        yield
    finally:
        stop.set()
        if wiring.ident is not None:
            wiring.join()
        server.terminate()
        server.wait(10)


def _ports() -> list[str]:
    done = subprocess.run(["jack_lsp"], capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def _wire(stop: threading.Event) -> None:
    while not stop.wait(0.2):
        ours = [port for port in _ports() if port.startswith("PortAudio")]
        outputs, inputs = ([port for port in ours if f":{side}_" in port] for side in ("out", "in"))
        if outputs and inputs:
            subprocess.run(["jack_connect", outputs[0], inputs[0]], capture_output=True, check=False)


@pytest.mark.usefixtures("wired_server")
def test_expected_latency_is_what_the_clicks_measure(tmp_path: Path) -> None:
    arguments = ["--engine", "onnx", "--seconds", "4", "--input", "system", "--output", "system"]
    assert main(["profile", *arguments, "--out", str(tmp_path)]) in (0, 4)
    report = json.loads((tmp_path / "profile.json").read_text())
    assert report["no_audio"] == ""
    audio = report["audio"]
    assert "JACK" in audio["device"]["host_api"]
    assert audio["bare_clicks"]["heard"] >= 2
    # A client wired to itself hears itself one period later.
    assert audio["bare_clicks"]["p50_ms"] - audio["loop_lag_ms"] == pytest.approx(PERIOD_MS, abs=0.1)
    assert audio["agent_clicks"]["min_ms"] == pytest.approx(audio["loop_lag_ms"] + PERIOD_MS, abs=PERIOD_MS)
    assert audio["callbacks"][0]["gap"]["count"] > 100
