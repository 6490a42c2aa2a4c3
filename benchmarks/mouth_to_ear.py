"""Mouth to ear over a real sound server, and what it consists of.

    python benchmarks/mouth_to_ear.py [--quick] [--agent NAME] [--json PATH]

A virtual user speaks into a JACK server with 10 ms blocks and hears the agent, which runs as in `duologue talk`:
device, conversation and program in three processes, the playout following how late the replies come. Second by second
his voice is found in the recording that the agent's process made, and the agent's voice of the same frames in what he
heard: that is the way from mouth to ear on one clock, but for the acoustic delay that the model's design adds.
Overhead is what remains without the design's delay and the computing; exit code 1 if it is above 25 ms.

Needs jackd, libportaudio2, sounddevice and JACK-Client.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from machine import cpu_name, git_hash, versions

from duologue.agent import DuplexAgent
from duologue.audio.driver import PortAudioSpec
from duologue.audio.files import AudioFile
from duologue.audio.live import open_live
from duologue.metrics.latency import LatencySummary
from duologue.types import FRAME_MS, SAMPLE_RATE_HZ
from virtual_jack import JackServer, VirtualUser, loop_delays_ms

VOICE = Path(__file__).parents[1] / "runtime" / "duologue" / "data" / "demo_user.flac"
DEVICE = PortAudioSpec(input="vmic", output="vspk", host_api="JACK")
BLOCK_MS = 10
SETTLED_S = 15
MAX_OVERHEAD_MS = 25.0
_PER_MS = SAMPLE_RATE_HZ / 1e3


def converse(agent: str | None, seconds: float, folder: Path) -> dict[str, Any]:
    said = np.resize(AudioFile(VOICE).read(SAMPLE_RATE_HZ), round(seconds * SAMPLE_RATE_HZ))
    user = VirtualUser(said, folder)
    path = folder / "conversation.wav"
    try:
        with open_live(load_agent=partial(DuplexAgent.load, agent), device=DEVICE, record_path=str(path)) as live:
            while live.stats().frames < 5:
                time.sleep(0.05)
            heard, xruns = user.converse(len(said))
            stats, report = live.stats(), live.report()
            begun_with_ms = live.playout_ms
    finally:
        user.close()
    recorded, _ = soundfile.read(path, dtype="float32")
    return {
        "seconds": seconds,
        # Pairs of (second, ms); the adaptive playout takes ten seconds to settle.
        "delays_ms": loop_delays_ms(said, heard, recorded),
        "playout_ms": {"first": begun_with_ms, "last": stats.playout_ms},
        "compute": milliseconds(report.latency["total"]),
        "resample": milliseconds(stats.resample),
        "concealed_ms": stats.concealed_ms,
        "cut_ms": stats.cut_agent_ms,
        "xruns": xruns + sum(one.flagged for one in stats.counters.callbacks),
        "scheduling": stats.device.scheduling if stats.device is not None else "",
    }


def milliseconds(summary: LatencySummary) -> dict[str, float]:
    return {name: getattr(summary, name) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="25 s instead of 55 s")
    parser.add_argument("--agent", help="as DuplexAgent.load (default: the bundled agent)")
    parser.add_argument("--json", type=Path, help="also write the last line there")
    options = parser.parse_args()
    git = git_hash()
    delay_ms = FRAME_MS * DuplexAgent.load(options.agent).engine.config.max_delay
    os.environ.update(
        JACK_DEFAULT_SERVER=f"duologue{os.getpid()}", JACK_NO_START_SERVER="1", JACK_NO_AUDIO_RESERVATION="1"
    )
    with tempfile.TemporaryDirectory() as folder:
        server = JackServer(Path(folder), block_samples=round(BLOCK_MS * _PER_MS))
        try:
            result = converse(options.agent, 25.0 if options.quick else 55.0, Path(folder))
        finally:
            server.stop()
    settled = [delay_ms for second, delay_ms in result["delays_ms"] if second >= SETTLED_S]
    loop_ms = float(np.median(settled)) if settled else float("nan")
    compute_ms = result["compute"]["p50_ms"] + result["resample"]["p50_ms"]
    result |= {
        "benchmark": "mouth_to_ear",
        "agent": options.agent or "bundled",
        "block_ms": BLOCK_MS,
        "mouth_to_ear_ms": loop_ms + delay_ms,
        "frame_ms": FRAME_MS,
        "acoustic_delay_ms": delay_ms,
        "compute_ms": compute_ms,
        "overhead_ms": loop_ms - FRAME_MS - compute_ms,
        "max_overhead_ms": MAX_OVERHEAD_MS,
        "is_met": loop_ms - FRAME_MS - compute_ms <= MAX_OVERHEAD_MS,
        "settled_seconds": len(settled),
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "git": git,
        "versions": versions(),
    }
    print(f"{cpu_name()}, load {result['load_average']:.1f}; JACK dummy 24 kHz, {BLOCK_MS} ms blocks")
    print(f"{len(settled)} seconds of agent's sound found again after the first {SETTLED_S} s\n")
    print("| mouth to ear | frame | acoustic delay | compute p50 | overhead | playout | concealed | xruns |")
    print("|---|---|---|---|---|---|---|---|")
    playout = result["playout_ms"]
    print(
        f"| {result['mouth_to_ear_ms']:.1f} | {FRAME_MS} | {delay_ms} | {compute_ms:.1f} | {result['overhead_ms']:.1f} "
        f"| {playout['first']:.0f} -> {playout['last']:.1f} | {result['concealed_ms']:.1f} | {result['xruns']} |\n"
    )
    verdict = "pass" if result["is_met"] else "FAIL"
    print(f"overhead {result['overhead_ms']:.1f} ms of at most {MAX_OVERHEAD_MS:.0f}: {verdict}\n")
    line = json.dumps(result)
    if options.json is not None:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)
    sys.exit(0 if result["is_met"] else 1)


if __name__ == "__main__":
    main()
