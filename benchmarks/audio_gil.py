"""Hold the interpreter's lock and count what a conversation loses, with three ways to run the audio.

    python benchmarks/audio_gil.py [--quick] [--loads LOAD ...] [--ways WAY ...] [--json PATH]

A virtual user clicks twice a second over a JACK server with 20 ms blocks; an echo agent says the clicks back in frames
of 80 ms. The program meanwhile does nothing, or sorts a list in a loop, which holds the lock for 75 ms a time on a core
of its own. The three ways, in the same run:

    python callback   sounddevice with a Python callback, frames echoed by a thread of the program (the rival)
    native callback   our driver process and rings, frames echoed by a thread of the program
    own process       `open_live`: the native callback, and the whole frame loop outside the program

A cell takes a minute. All cells of a table come from one run of one commit; every row tells how busy the host was.
Needs jackd, libportaudio2, sounddevice and JACK-Client.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from machine import cpu_name, git_hash, versions

from duologue.audio.driver import PortAudioSpec
from duologue.audio.echo import EchoAgent
from duologue.audio.live import open_live
from duologue.audio.loop import DuplexLoop, LoopSettings
from duologue.audio.port import SharedPort, read_counters
from duologue.profile.host import PressureMeter
from duologue.profile.wakeups import values_that_take
from duologue.types import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ
from virtual_jack import JackServer, VirtualUser

PLAYOUT_MS = 80.0
HOLD_MS = 75.0
BLOCK_SAMPLES = 480
CLICK_EVERY = SAMPLE_RATE_HZ // 2
DEVICE = PortAudioSpec(input="vmic", output="vspk", host_api="JACK")


@dataclass
class Losses:
    """What one way counted itself: audio missing at the loudspeaker, audio of the user lost, blocks flagged."""

    starved_ms: float = 0.0
    lost_ms: float = 0.0
    flagged: int = 0


@dataclass
class Row:
    """One way under one load."""

    way: str
    load: str
    seconds: float
    clicks_heard: int
    clicks_said: int
    delay_ms_p50: float | None
    starved_ms: float
    lost_ms: float
    flagged_blocks: int
    hold_ms_p50: float
    longest_hold_ms: float
    load_average: float
    waiting_share: float | None


@contextmanager
def python_callback() -> Iterator[Callable[[], Losses]]:
    """The rival: the callback takes a lock and copies; a thread turns input into frames of output."""
    import sounddevice

    losses = Losses()
    heard: collections.deque[np.ndarray] = collections.deque()
    waiting = np.zeros(round((FRAME_MS + PLAYOUT_MS) / 1e3 * SAMPLE_RATE_HZ), dtype=np.float32)
    lock, stop = threading.Lock(), threading.Event()

    def callback(indata: Any, outdata: Any, frames: int, _: Any, status: Any) -> None:
        nonlocal waiting
        losses.flagged += bool(status)
        heard.append(indata[:, 0].copy())
        with lock:
            ready, waiting = waiting[:frames], waiting[frames:]
        outdata[: len(ready), 0] = ready
        outdata[len(ready) :, 0] = 0
        losses.starved_ms += 1e3 * (frames - len(ready)) / SAMPLE_RATE_HZ

    def echo() -> None:
        nonlocal waiting
        pending = np.empty(0, dtype=np.float32)
        while not stop.wait(0.001):
            while heard:
                pending = np.concatenate([pending, heard.popleft()])
            while len(pending) >= FRAME_SAMPLES:
                with lock:
                    waiting = np.concatenate([waiting, pending[:FRAME_SAMPLES]])
                pending = pending[FRAME_SAMPLES:]

    thread = threading.Thread(target=echo, daemon=True)
    stream = sounddevice.Stream(
        device=("vmic", "vspk"), samplerate=SAMPLE_RATE_HZ, channels=1, dtype="float32", blocksize=0, callback=callback
    )
    with stream:
        thread.start()
        # A block flagged as overflowed and underflowed is one the server went on without.
        yield lambda: Losses(losses.starved_ms, losses.flagged * 1e3 * BLOCK_SAMPLES / SAMPLE_RATE_HZ, losses.flagged)
        stop.set()
        thread.join()


@contextmanager
def native_callback() -> Iterator[Callable[[], Losses]]:
    shared = SharedPort()
    device = DEVICE.open(shared)
    session = EchoAgent().session()
    loop = DuplexLoop(shared.port, session.step, LoopSettings(playout_ms=PLAYOUT_MS), is_one_clock=True)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            if shared.port.wait_input(loop.samples_to_wait_for, 0.05) >= loop.samples_to_wait_for:
                loop.pump(limit=8)

    def losses() -> Losses:
        counters = read_counters(shared.port)
        lost = counters.lost_input_samples + loop.counters.dropped_user
        flagged = sum(one.flagged for one in counters.callbacks)
        scale = 1e3 / SAMPLE_RATE_HZ
        return Losses(counters.concealed_output_samples * scale, lost * scale, flagged)

    thread = threading.Thread(target=run, daemon=True)
    device.start()
    thread.start()
    yield losses
    stop.set()
    thread.join()
    device.close()
    session.close()
    shared.close()


@contextmanager
def own_process() -> Iterator[Callable[[], Losses]]:
    with open_live(load_agent=EchoAgent, device=DEVICE, playout_ms=PLAYOUT_MS) as live:

        def losses() -> Losses:
            stats = live.stats()
            flagged = sum(one.flagged for one in stats.counters.callbacks)
            return Losses(stats.concealed_ms, stats.lost_input_ms + stats.dropped_user_ms, flagged)

        yield losses


def idle() -> None:
    time.sleep(0.05)


def sort() -> None:
    sorted(numbers_to_sort())


@cache
def numbers_to_sort() -> list[float]:
    return values_that_take(HOLD_MS)


WAYS = {"python callback": python_callback, "native callback": native_callback, "own process": own_process}
LOADS: dict[str, Callable[[], None]] = {"idle": idle, "sort": sort}


def measure(way: str, load: str, seconds: float, folder: Path) -> Row:
    said = np.zeros(round(seconds * SAMPLE_RATE_HZ), dtype=np.float32)
    said[CLICK_EVERY // 2 :: CLICK_EVERY] = 1.0
    clicks = np.flatnonzero(said)
    user = VirtualUser(said, folder)
    # Measures how long a sort takes before anything depends on time.
    LOADS[load]()
    holds_ms: list[float] = []
    heard: list[np.ndarray] = []
    try:
        with WAYS[way]() as losses:
            time.sleep(1.0)
            before, pressure = losses(), PressureMeter()
            listener = threading.Thread(target=lambda: heard.append(user.converse(len(said) + SAMPLE_RATE_HZ)[0]))
            listener.start()
            while listener.is_alive():
                begun = time.perf_counter()
                LOADS[load]()
                holds_ms.append(1e3 * (time.perf_counter() - begun))
            after, waiting_share = losses(), pressure.read().cpu_share
    finally:
        user.close()
    delays_ms = find_clicks(clicks, heard[0])
    return Row(
        way=way,
        load=load,
        seconds=seconds,
        clicks_heard=len(delays_ms),
        clicks_said=len(clicks),
        delay_ms_p50=float(np.median(delays_ms)) if delays_ms else None,
        starved_ms=after.starved_ms - before.starved_ms,
        lost_ms=after.lost_ms - before.lost_ms,
        flagged_blocks=after.flagged - before.flagged,
        hold_ms_p50=float(np.median(holds_ms)) if load != "idle" else 0.0,
        longest_hold_ms=max(holds_ms) if load != "idle" else 0.0,
        load_average=os.getloadavg()[0],
        waiting_share=waiting_share,
    )


def run_cell(way: str, load: str, seconds: float) -> Row:
    os.environ.update(
        JACK_DEFAULT_SERVER=f"duologue{os.getpid()}", JACK_NO_START_SERVER="1", JACK_NO_AUDIO_RESERVATION="1"
    )
    with tempfile.TemporaryDirectory() as folder:
        server = JackServer(Path(folder), block_samples=BLOCK_SAMPLES)
        try:
            return measure(way, load, seconds, Path(folder))
        finally:
            server.stop()


def find_clicks(clicks: np.ndarray, heard: np.ndarray) -> list[float]:
    """Delay of every click heard whole before the next one was said."""
    delays_ms = []
    for click in clicks:
        window = heard[click : click + CLICK_EVERY]
        found = np.flatnonzero(window > 0.9)
        if len(found):
            delays_ms.append(1e3 * float(found[0]) / SAMPLE_RATE_HZ)
    return delays_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 s per cell instead of 60 s")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS), help="only these")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="only these")
    parser.add_argument("--json", type=Path, help="also write the last line there")
    parser.add_argument("--cell", nargs=2, metavar=("WAY", "LOAD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = 5.0 if options.quick else 60.0
    if options.cell:
        print(json.dumps(asdict(run_cell(*options.cell, seconds))), flush=True)
        # PortAudio's exit handler aborts when the server it was connected to is gone.
        os._exit(0)
    git = git_hash()
    print(f"{cpu_name()}, {os.cpu_count()} cores; JACK dummy 24 kHz, 20 ms blocks, echo agent")
    print(f"expected delay {FRAME_MS + PLAYOUT_MS:.0f} ms (frame + playout); {seconds:.0f} s per cell\n")
    print(
        "| program | way | clicks heard | delay p50 ms | starved ms | user lost ms | flagged | hold p50, max | load |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for load in options.loads:
        for way in options.ways:
            # A process each: PortAudio does not recover from a server that went away.
            command = [sys.executable, __file__, "--cell", way, load, *(["--quick"] if options.quick else [])]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not done.stdout.strip():
                reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
                sys.exit(f"{way}, {load}: died with exit code {done.returncode} ({reason})")
            row = Row(**json.loads(done.stdout.splitlines()[-1]))
            rows.append(row)
            delay = "-" if row.delay_ms_p50 is None else f"{row.delay_ms_p50:.1f}"
            print(
                f"| {load} | {way} | {row.clicks_heard}/{row.clicks_said} | {delay} "
                f"| {row.starved_ms:.0f} | {row.lost_ms:.0f} | {row.flagged_blocks} "
                f"| {row.hold_ms_p50:.0f}, {row.longest_hold_ms:.0f} | {row.load_average:.1f} |",
                flush=True,
            )
    line = json.dumps(
        {
            "benchmark": "audio_gil",
            "machine": cpu_name(),
            "cores": os.cpu_count(),
            "git": git,
            "versions": versions(),
            "rows": [asdict(row) for row in rows],
        }
    )
    if options.json is not None:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
