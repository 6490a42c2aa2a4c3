"""Hold a live conversation for twenty minutes and judge that memory stays, nothing drifts and nothing gets lost.

    python benchmarks/audio_soak.py [--quick] [--minutes N] [--agent NAME] [--json PATH]

The bundled agent talks with a recorded user over the fake duplex device, in real time and in the processes of
`duologue talk`: 48 kHz both ways, a loudspeaker clock 200 ppm slower than the microphone's, and a playout that follows
how late the replies come. Exit code 1 if a limit is broken; the limits stand in the JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from machine import cpu_name, git_hash, versions

from duologue.agent import DuplexAgent
from duologue.audio.fake import FakeSpec, FakeTiming
from duologue.audio.live import LiveSession, open_live
from duologue.audio.wire import LiveFrame, LiveStats
from duologue.metrics.types import InteractivityReport
from duologue.profile.host import PressureMeter
from duologue.types import FRAME_MS

VOICE = Path(__file__).parents[1] / "runtime" / "duologue" / "data" / "demo_user.flac"
DRIFT_PPM = -200.0
TIMING = FakeTiming(input_ppm=120.0, output_ppm=120.0 + DRIFT_PPM, is_one_clock=False)
POLL_S = 10.0
SETTLED_S = 60.0
# The loop corrects two clocks smoothly below 40 ms of excess, and lets 480 ms of the user wait after a stall.
LIMITS = {
    "memory_span_mb": 5.0,
    "drift_error_ppm": 20.0,
    "excess_ms": 40.0,
    "excess_change_ms": 15.0,
    "waiting_ms": 560.0,
}


@dataclass
class Log:
    """What was seen while the conversation ran."""

    frames: int = 0
    agent_late_frames: int = 0
    polled_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    excess_ms: list[float] = field(default_factory=list)
    playout_ms: list[float] = field(default_factory=list)

    def add_frame(self, frame: LiveFrame) -> None:
        """Count a frame."""
        self.frames += 1
        self.agent_late_frames += frame.is_late

    def poll(self, live: LiveSession, now_s: float) -> None:
        """Note memory and lag."""
        stats = live.stats()
        assert live.process_id is not None
        self.polled_s.append(now_s)
        self.memory_mb.append(resident_mb(live.process_id))
        self.excess_ms.append(stats.lag_ms - FRAME_MS - stats.playout_ms)
        self.playout_ms.append(stats.playout_ms)


def resident_mb(process_id: int) -> float:
    pages = int(Path(f"/proc/{process_id}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(agent: str | None, minutes: float) -> dict[str, Any]:
    log, pressure = Log(), PressureMeter()
    device = FakeSpec(user=str(VOICE), is_repeated=True, sample_rate_hz=48_000, timing=TIMING)
    with open_live(load_agent=partial(DuplexAgent.load, agent), device=device) as live:
        live.on_frame(log.add_frame)
        begun_s = time.monotonic()
        while (now_s := time.monotonic() - begun_s) < 60 * minutes:
            time.sleep(min(POLL_S, 60 * minutes - now_s))
            log.poll(live, time.monotonic() - begun_s)
        stats, report = live.stats(), live.report()
        dropped_events = live.dropped_events + stats.dropped_events
    load = {"load_average": os.getloadavg()[0], "pressure": asdict(pressure.read())}
    return {"minutes": minutes, "dropped_events": dropped_events, **load, **figures(log, stats, report)}


def figures(log: Log, stats: LiveStats, report: InteractivityReport) -> dict[str, Any]:
    settled = np.array(log.polled_s) > min(SETTLED_S, log.polled_s[-1] / 2)
    memory_mb, excess_ms = np.array(log.memory_mb)[settled], np.array(log.excess_ms)[settled]
    # All that came in was heard by the agent, was dropped, or waits in the ring or in the unfinished frame.
    waiting_ms = stats.received_ms - FRAME_MS * stats.frames - stats.dropped_user_ms
    return {
        "frames": stats.frames,
        "frames_seen": log.frames,
        "frames_reported": report.latency["total"].count,
        "late_frames": log.agent_late_frames,
        "device_losses": stats.device_losses,
        "waiting_ms": waiting_ms,
        "memory_mb": {"first": log.memory_mb[0], "last": log.memory_mb[-1], "least": min(memory_mb)},
        "memory_span_mb": float(np.ptp(memory_mb)),
        "drift_ppm": stats.drift_ppm,
        "excess_ms": {"early": float(np.median(excess_ms[:6])), "late": float(np.median(excess_ms[-6:]))},
        "playout_ms": {"first": log.playout_ms[0], "last": log.playout_ms[-1], "most": max(log.playout_ms)},
        "compute_ms": {name: getattr(report.latency["total"], f"{name}_ms") for name in ("p50", "p95", "p99", "max")},
        "concealed_ms": stats.concealed_ms,
        "lost_input_ms": stats.lost_input_ms,
        "dropped_user_ms": stats.dropped_user_ms,
        "cut_agent_ms": stats.cut_agent_ms,
        "inserted_ms": stats.inserted_ms,
    }


def broken(result: dict[str, Any]) -> list[str]:
    """Return the limits that were broken, in words; those that need time count from two minutes on."""
    excess_ms = result["excess_ms"]
    counted = [result["frames_seen"] + result["dropped_events"], result["frames_reported"]]
    kept = {
        "the device was lost": result["device_losses"] == 0,
        "the user's audio was lost": result["lost_input_ms"] == 0,
        "the user's audio does not add up": -1 <= result["waiting_ms"] <= LIMITS["waiting_ms"],
        # The report and the last events come a moment after the counters.
        "the frames' counters differ": all(0 <= count - result["frames"] <= 25 for count in counted),
    }
    if result["minutes"] >= 2:
        drift_ppm = result["drift_ppm"]
        is_known = drift_ppm is not None and abs(drift_ppm - DRIFT_PPM) <= LIMITS["drift_error_ppm"]
        kept |= {
            "memory grew": result["memory_span_mb"] < LIMITS["memory_span_mb"],
            "the drift was not found": is_known,
            "the lag left its target": all(abs(value) <= LIMITS["excess_ms"] for value in excess_ms.values()),
            "the lag drifted": abs(excess_ms["late"] - excess_ms["early"]) <= LIMITS["excess_change_ms"],
        }
    return [words for words, is_kept in kept.items() if not is_kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--agent", help="as DuplexAgent.load (default: the bundled agent)")
    parser.add_argument("--json", type=Path, help="also write the last line there")
    options = parser.parse_args()
    minutes = 2.0 if options.quick else options.minutes
    # The code that runs is the one of now, whatever is committed meanwhile.
    git = git_hash()
    result = soak(options.agent, minutes)
    failures = broken(result)
    result = {
        "benchmark": "audio_soak",
        "command": "python benchmarks/audio_soak.py" + (f" --minutes {minutes:g}" if minutes != 20 else ""),
        **result,
        "limits": LIMITS,
        "broken": failures,
        "agent": options.agent or "bundled",
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "git": git,
        "versions": versions(),
    }
    excess_ms, memory_mb = result["excess_ms"], result["memory_mb"]
    print(f"{cpu_name()}, {minutes:g} minutes, {result['frames']} frames, load {result['load_average']:.1f}\n")
    print("| memory | its span after 1 min | drift ppm | lag over target | device lost | input lost |")
    print("|---|---|---|---|---|---|")
    drift = "-" if result["drift_ppm"] is None else f"{result['drift_ppm']:.0f}"
    print(
        f"| {memory_mb['first']:.1f} -> {memory_mb['last']:.1f} MB | {result['memory_span_mb']:.1f} MB | {drift} "
        f"| {excess_ms['early']:+.1f} -> {excess_ms['late']:+.1f} ms | {result['device_losses']} "
        f"| {result['lost_input_ms']:.0f} ms |\n"
    )
    print(f"{'failed: ' + '; '.join(failures) if failures else 'passed'}\n")
    line = json.dumps(result)
    if options.json is not None:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
