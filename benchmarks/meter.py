"""Cost of the interactivity meter per 80 ms frame, on a long conversation, stage by stage.

    python benchmarks/meter.py [USER.wav AGENT.wav] [--minutes 20] [--quick] [--json PATH]

Without recordings both sides are a synthetic voice that talks and pauses at random. The recording is repeated until the
conversation is long enough; the last minute beside the whole shows that cost does not grow. Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from time import perf_counter

import numpy as np
import soundfile

from duologue.audio.resample import resample
from duologue.metrics import InteractivityMeter
from duologue.metrics.degenerate import render_speech
from duologue.types import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm

FRAMES_PER_MINUTE = 750


def synthetic_side(seed: int, seconds: float = 120.0) -> Pcm:
    """Return a synthetic voice that alternates between speech of 0.3 to 4 s and silence of 0.2 to 4 s."""
    rng = np.random.default_rng(seed)
    borders = np.cumsum(np.column_stack([rng.uniform(0.2, 4, 200), rng.uniform(0.3, 4, 200)]).ravel())
    return render_speech([tuple(span) for span in borders.reshape(-1, 2) if span[1] < seconds], seconds)


def read_channel(path: Path) -> Pcm:
    """Return the first channel of a recording at 24 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(np.ascontiguousarray(samples[:, 0]), rate, SAMPLE_RATE_HZ)


def time_frames(user: Pcm, agent: Pcm, minutes: float, detectors: tuple[str, str]) -> np.ndarray:
    """Return the wall time of each frame in ms."""
    meter = InteractivityMeter(user_detector=detectors[0], agent_detector=detectors[1])
    frames = min(len(user), len(agent)) // FRAME_SAMPLES
    times = np.empty(int(minutes * FRAMES_PER_MINUTE))
    for index in range(len(times)):
        begin = index % frames * FRAME_SAMPLES
        started = perf_counter()
        meter.push_frame(user[begin : begin + FRAME_SAMPLES], agent[begin : begin + FRAME_SAMPLES])
        times[index] = 1e3 * (perf_counter() - started)
    return times


def summarise(times: np.ndarray) -> dict[str, float]:
    """Return quantiles in ms and the share of the frame's budget that the median takes."""
    p50, p95, p99 = np.quantile(times, [0.5, 0.95, 0.99])
    last_p50 = float(np.median(times[-FRAMES_PER_MINUTE:]))
    row = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": times.max(), "last_minute_p50_ms": last_p50}
    return {name: round(float(value), 4) for name, value in row.items()} | {"budget_share": round(p50 / FRAME_MS, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("user", type=Path, nargs="?")
    parser.add_argument("agent", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--quick", action="store_true", help="two minutes")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    args = parser.parse_args()
    if (args.user is None) != (args.agent is None):
        parser.error("give both recordings or none")
    minutes = 2.0 if args.quick else args.minutes
    user = read_channel(args.user) if args.user else synthetic_side(1)
    agent = read_channel(args.agent) if args.agent else synthetic_side(2)

    rows = {}
    for detectors in (("level", "level"), ("speech", "level"), ("speech", "speech")):
        rows["+".join(detectors)] = summarise(time_frames(user, agent, minutes, detectors))
    names = list(next(iter(rows.values())))
    print(f"{'user+agent':16s}" + "".join(f"{name:>20s}" for name in names))
    for label, row in rows.items():
        print(f"{label:16s}" + "".join(f"{value:20.4f}" for value in row.values()))
    result = {"machine": platform.machine(), "numpy": np.__version__, "minutes": minutes, "meter": rows}
    if args.json:
        args.json.write_text(json.dumps(result), encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
