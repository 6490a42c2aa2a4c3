"""The click loop over PortAudio and a JACK dummy server whose loudspeaker is wired to its microphone."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from duologue.cli import main
from duologue.profile.wakeups import GilHog
from virtual_jack import JackServer, require_jack

pytestmark = pytest.mark.audio
PERIOD_MS = 20


@pytest.fixture
def wired_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of our own, on which every PortAudio client is made to hear itself."""
    require_jack(monkeypatch)
    monkeypatch.setattr("duologue.profile.measure.GilHog", lambda: GilHog(hold_ms=5.0))
    monkeypatch.setattr("duologue.profile.host.measured_bandwidth", lambda device: 10.0)
    server = JackServer(tmp_path)
    stop = threading.Event()
    wiring = threading.Thread(target=_wire, args=(stop,))
    wiring.start()
    yield
    stop.set()
    wiring.join()
    server.stop()


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
    arguments = ["--engine", "onnx", "--seconds", "3", "--input", "system", "--output", "system"]
    assert main(["profile", *arguments, "--out", str(tmp_path)]) in (0, 4)
    report = json.loads((tmp_path / "profile.json").read_text())
    assert report["no_audio"] == ""
    audio = report["audio"]
    assert "JACK" in audio["device"]["host_api"]
    assert audio["bare_clicks"]["heard"] >= 1
    # A client wired to itself hears itself one period later.
    assert audio["bare_clicks"]["p50_ms"] - audio["bare_lag_ms"] == pytest.approx(PERIOD_MS, abs=0.1)
    assert audio["agent_clicks"]["p50_ms"] == pytest.approx(audio["loop_lag_ms"] + PERIOD_MS, abs=PERIOD_MS)
    # The agent is heard with the playout of a live conversation and not with one for the measurement.
    assert audio["loop_lag_ms"] != audio["bare_lag_ms"]
    assert audio["callbacks"][0]["gap"]["count"] > 100
