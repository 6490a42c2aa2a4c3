"""Latency over a JACK dummy server: clicks through a wire from loudspeaker to microphone, and from mouth to ear."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from duologue.cli import main
from duologue.profile.host import PressureMeter
from duologue.profile.wakeups import GilHog
from duologue.types import FRAME_MS
from duologue.untrained import write_untrained_bundle
from jack_conversation import converse, lead_in
from virtual_jack import JackServer, VirtualUser, loop_delays_ms, require_jack

pytestmark = pytest.mark.audio
PERIOD_MS = 20
MAX_OVERHEAD_MS = 25.0
BUSY_OVERHEAD_MS = 80.0
BUSY_SHARE = 0.25
"""Share of the time in which tasks waited for a core, above which the host and not we are measured."""


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
    # What the report says it adds up to is what is measured: the click loop and the agent's own delay.
    parts = report["mouth_to_ear"]
    acoustic_ms = next(part["ms"] for part in parts if part["name"] == "acoustic delay")
    assert sum(part["ms"] for part in parts) == pytest.approx(report["mouth_to_ear_ms"])
    waited = report["pressure"]["cpu_share"]
    near_ms = PERIOD_MS if waited is None or waited < BUSY_SHARE else BUSY_OVERHEAD_MS
    assert report["mouth_to_ear_ms"] == pytest.approx(audio["agent_clicks"]["p50_ms"] + acoustic_ms, abs=near_ms)
    # The agent is heard with the playout of a live conversation and not with one for the measurement.
    assert audio["loop_lag_ms"] != audio["bare_lag_ms"]
    assert audio["callbacks"][0]["gap"]["count"] > 100


def test_mouth_to_ear_is_the_design_the_computing_and_little_more(
    start_server: Callable[..., JackServer],
    seat_user: Callable[[np.ndarray], VirtualUser],
    demo_user: Path,
    tmp_path: Path,
) -> None:
    start_server(block_samples=240)
    said = lead_in(demo_user, 25)
    pressure = PressureMeter()
    # The delay shows where both speak at once: an untrained agent never stops.
    write_untrained_bundle(tmp_path / "agent")
    talk = converse(seat_user(said), said, tmp_path, agent=tmp_path / "agent")
    busy_share = pressure.read().cpu_share or 0.0
    # Once settled: what waits for the loudspeaker follows the latest reply of ten seconds.
    found = loop_delays_ms(said, talk.heard, talk.recorded, begin=talk.begin)
    delays_ms = [delay_ms for second, delay_ms in found if second >= 12]
    assert len(delays_ms) >= 2
    overhead_ms = float(np.median(delays_ms)) - FRAME_MS - talk.report.latency["total"].p50_ms
    assert 0 < overhead_ms <= (MAX_OVERHEAD_MS if busy_share < BUSY_SHARE else BUSY_OVERHEAD_MS), (
        busy_share,
        delays_ms,
    )
