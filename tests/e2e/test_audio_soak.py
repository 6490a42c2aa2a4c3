"""A live conversation for twenty minutes (or DUOLOGUE_SOAK_MINUTES): nothing grows and nothing drifts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from duologue.audio.echo import EchoAgent
from duologue.audio.fake import FakeSpec, FakeTiming
from duologue.audio.live import open_live
from duologue.audio.wire import LiveFrame

pytestmark = pytest.mark.slow

MINUTES = float(os.environ.get("DUOLOGUE_SOAK_MINUTES", "20"))


def _resident_mb(process_id: int) -> float:
    pages = int(Path(f"/proc/{process_id}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_and_lag_stay_constant() -> None:
    timing = FakeTiming(input_ppm=120.0, output_ppm=-80.0, is_one_clock=False)
    lags_ms: list[float] = []

    def note(frame: LiveFrame) -> None:
        lags_ms.append(frame.lag_ms)

    memory_mb = []
    with open_live(
        load_agent=EchoAgent, device=FakeSpec(sample_rate_hz=48_000, timing=timing), playout_ms=80.0
    ) as live:
        live.on_frame(note)
        assert live.process_id is not None
        ends_s = time.monotonic() + 60 * MINUTES
        while time.monotonic() < ends_s:
            time.sleep(min(10.0, 6.0 * MINUTES))
            memory_mb.append(_resident_mb(live.process_id))
        stats, report = live.stats(), live.report()
        assert live.dropped_events == stats.dropped_events == 0
    settled_mb = memory_mb[len(memory_mb) // 20 + 1 :]
    assert max(settled_mb) - min(settled_mb) < 5
    # The report was asked for after the counters.
    assert 0 <= report.latency["total"].count - stats.frames <= 25
    # Whoever starves the device's thread for a second of real time makes it count as lost until it is opened again.
    lost_ms = stats.dropped_user_ms + stats.lost_input_ms + 2_500 * stats.device_losses
    assert stats.frames >= 60 * MINUTES * 12.5 - 3 - lost_ms / 80
    assert stats.drift_ppm == pytest.approx(-200, abs=20) or MINUTES < 1
    tail_ms = sorted(lags_ms[-100:])
    assert tail_ms[50] == pytest.approx(160, abs=10 + stats.concealed_ms)
