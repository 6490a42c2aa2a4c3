"""What the codec's benchmark asks of our codec alone: loading, memory, stages, sessions, a busy neighbour."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from duologue import _native
from duologue.codec import Mimi, MimiStream, Precision
from duologue.types import FRAME_MS

LOADS = 3
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")


def ceilings() -> dict[str, float]:
    """Return what one thread reaches here: multiply-adds in registers, reading memory on huge pages."""
    gflop_s, gb_s = _native.ceilings()
    return {"gflop_s": gflop_s, "gb_s": gb_s}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def load_figures(weights: Path) -> dict[str, dict[str, float]]:
    """Time the best of three loads whose file is in the system's cache, and count the memory that stays."""
    with weights.open("rb") as file:
        while file.read(1 << 24):
            pass
    figures = {}
    for precision in PRECISIONS:
        seconds = []
        for _ in range(LOADS):
            before = resident_bytes()
            begin = time.perf_counter()
            mimi = Mimi.load(weights, precision=precision)
            seconds.append(time.perf_counter() - begin)
            kept = resident_bytes() - before
            packed = mimi.packed_bytes
            del mimi
        figures[precision] = {
            "load_s": min(seconds),
            "first_load_s": seconds[0],
            "packed_mb": packed / 1e6,
            "resident_beyond_packed_mb": (kept - packed) / 1e6,
        }
    return figures


def stage_figures(stream: MimiStream, frames: np.ndarray, ceiling: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return the best frame of every stage: milliseconds, and its share of the two ceilings."""
    best: dict[str, tuple[float, float, int]] = {}
    for frame in frames:
        stream.start_clock()
        stream.decode_step(stream.encode_step(frame))
        for name, figures in stream.stages().items():
            if figures[0] > 0 and (name not in best or figures[0] < best[name][0]):
                best[name] = figures
    return {
        name: {
            "ms": seconds * 1e3,
            "gflop_s": 2 * work / seconds / 1e9,
            "gb_s": size / seconds / 1e9,
            "gflop_share": 2 * work / seconds / 1e9 / ceiling["gflop_s"],
            "gb_share": size / seconds / 1e9 / ceiling["gb_s"],
        }
        for name, (seconds, work, size) in best.items()
    }


def sessions(mimi: Mimi, frames: np.ndarray, frame_ms: float) -> dict[str, float]:
    """Find how many streams one thread serves in both directions with 99 % of the ticks inside a frame's time."""
    count = max(1, int(FRAME_MS / frame_ms))
    while True:
        streams = [mimi.stream(threads=1) for _ in range(count)]
        ticks = np.array([tick_ms(streams, frame) for frame in frames])
        p99 = float(np.percentile(ticks, 99))
        if p99 <= FRAME_MS or count == 1:
            return {"sessions": count, "p50_ms": float(np.median(ticks)), "p99_ms": p99}
        count -= 1


def tick_ms(streams: list[MimiStream], frame: np.ndarray) -> float:
    begin = time.perf_counter()
    for stream in streams:
        stream.decode_step(stream.encode_step(frame))
    return (time.perf_counter() - begin) * 1e3


def beside_a_hog(stream: MimiStream, frames: np.ndarray) -> dict[str, float]:
    """Time frames in both directions, one every 80 ms as in a conversation, while another process never rests."""
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        times = []
        for frame in frames:
            begin = time.perf_counter()
            stream.decode_step(stream.encode_step(frame))
            times.append((time.perf_counter() - begin) * 1e3)
            time.sleep(max(0.0, FRAME_MS - times[-1]) / 1e3)
    finally:
        hog.kill()
        hog.wait()
    return {f"p{p}_ms": float(np.percentile(times, p)) for p in (50, 95, 99)}
