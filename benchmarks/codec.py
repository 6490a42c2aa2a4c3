"""Time one frame of the released Mimi (random weights, 8 codebooks) in every codec there is, in one run.

    python benchmarks/codec.py [--quick] [--json PATH]

Each thread count runs in a process of its own; inside it the codecs take turns, a few frames each, so that a change of
the machine's mood meets all of them. Before every turn there is a pause, because the thread pools of OpenMP and ONNX
Runtime keep a processor busy for milliseconds after their last work, which is where the next codec's second thread
would run. Times count once every attention window is full. A load is the best of three, because memory that the system
itself has to be given first has nothing to do with the codec. Prints a card of what the machine allows, a table, the
stages of a frame, and one JSON line last.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import codec_probe
import numpy as np
from machine import cpu_name, git_hash, measured_bandwidth, versions

from duologue import _native
from duologue.codec import Mimi, MimiConfig
from duologue.codec.speechlike import speechlike
from duologue.codec.untrained import write_untrained_mimi
from duologue.types import FRAME_MS, FRAME_SAMPLES

FRAMES = 100
TURN_FRAMES = 5
PAUSE_S = 0.03
CODEBOOKS = 8
STAGES = ("encode", "decode", "both")
OURS = {"float32": "duologue", "float16": "duologue f16", "int8": "duologue int8"}


def main() -> None:
    options = parse_arguments()
    if options.child:
        print(json.dumps(time_codecs(options.child, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "mimi.safetensors"
        write_untrained_mimi(weights, seed=options.seed)
        runs = {threads: run_child(threads, weights, options) for threads in options.threads}
        bytes_per_frame = frame_bytes(weights)
    report = summarise(runs, bytes_per_frame)
    print_card(report)
    print_table(runs)
    print_stages(runs[1])
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer frames: 40 instead of 100")
    parser.add_argument("--json", type=Path, help="also write the JSON line, indented, to this file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    counts = parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="thread counts; 1 must be there"
    )
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if 1 not in options.threads or not set(options.threads) <= {1, 2}:
        raise SystemExit(f"{counts.option_strings[0]} must hold 1 and may hold 2, got {options.threads}")
    return options


# --- one process per thread count ------------------------------------------------------------------------------------


def run_child(threads: int, weights: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run this file again with every library held to `threads` threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    environment = os.environ | {name: str(threads) for name in names}
    command = [sys.executable, __file__, "--child", str(threads), "--weights", str(weights)]
    command += ["--quick"] if options.quick else []
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def open_codecs(weights: Path, threads: int) -> dict[str, Any]:
    """Open every codec that is installed, ours first."""
    codecs: dict[str, Any] = {
        OURS[precision]: Mimi.load(weights, threads=threads, precision=precision).stream()
        for precision in codec_probe.PRECISIONS
    }
    for name, opener in {"rustymimi": open_rustymimi, "onnxruntime": open_onnx, "moshi torch": open_moshi}.items():
        try:
            codecs[name] = opener(weights, threads)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return codecs


def open_rustymimi(weights: Path, threads: int) -> Any:
    from duologue.codec.reference import RustymimiCodec

    return RustymimiCodec(weights, num_codebooks=CODEBOOKS)


def open_moshi(weights: Path, threads: int) -> Any:
    import torch

    from duologue.codec.reference import MoshiCodec

    torch.set_num_threads(threads)
    return MoshiCodec(weights, num_codebooks=CODEBOOKS)


def open_onnx(weights: Path, threads: int) -> Any:
    from mimi_onnx import OnnxMimi

    return OnnxMimi(weights, weights.parent, threads=threads)


def time_codecs(threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Let the codecs take turns over the same frames; times count from the frame at which every window is full."""
    config = MimiConfig()
    full = math.ceil(config.context / config.steps_per_frame) + 3
    count = full + (40 if options.quick else FRAMES)
    # A frame more than needed: seconds of float do not make whole frames.
    pcm = speechlike((count + 1) * FRAME_MS / 1000, seed=options.seed + 5000)
    frames = pcm[: count * FRAME_SAMPLES].reshape(count, FRAME_SAMPLES)
    alone = probe_alone(threads, options, frames[:full], frames[full:])
    codecs = open_codecs(options.weights, threads)
    codes = {name: np.zeros((count, CODEBOOKS), np.int32) for name in codecs}
    audio = {name: np.zeros((count, FRAME_SAMPLES), np.float32) for name in codecs}
    times_ms = {name: np.zeros((count, 2)) for name in codecs}
    for start in range(0, count, TURN_FRAMES):
        turn = range(start, min(start + TURN_FRAMES, count))
        for name, codec in codecs.items():
            time.sleep(PAUSE_S)
            for i in turn:
                codes[name][i], times_ms[name][i, 0] = timed(lambda: codec.encode_step(frames[i]))  # noqa: B023
                # Every decoder gets our codes, so that its audio can be compared.
                audio[name][i], times_ms[name][i, 1] = timed(lambda: codec.decode_step(codes["duologue"][i]))  # noqa: B023
    result: dict[str, Any] = {"threads": threads, "frames": count - full, "isa": _native.isa()} | alone
    result["bandwidth_gb_s"] = measured_bandwidth("cpu", threads)
    result["codecs"] = {name: percentiles(times[full:]) for name, times in times_ms.items()}
    for name in set(codecs) - {"duologue"}:
        # rustymimi's window differs from the others once it is full.
        until = full - 3 if name == "rustymimi" else count
        result["codecs"][name]["code_agreement"] = float(np.mean(codes["duologue"][:until] == codes[name][:until]))
        error = np.abs(audio["duologue"][:until] - audio[name][:until]).max()
        result["codecs"][name]["decode_max_abs_error"] = float(error)
    return result


def probe_alone(threads: int, options: argparse.Namespace, filling: np.ndarray, frames: np.ndarray) -> dict[str, Any]:
    """Measure what needs no rival, before the rivals fill the memory; `filling` fills the attention window."""
    frames = frames[:40]
    mimi = Mimi.load(options.weights)
    if threads > 1:
        stream = mimi.stream(threads=threads)
        return {"beside_hog": codec_probe.beside_a_hog(stream, frames)}
    alone: dict[str, Any] = {"ceilings": codec_probe.ceilings()}
    alone["load"] = codec_probe.load_figures(options.weights)
    alone["stages"] = {}
    alone["sessions"] = {}
    for precision in codec_probe.PRECISIONS:
        mimi = Mimi.load(options.weights, precision=precision)
        stream = mimi.stream()
        for frame in filling:
            stream.decode_step(stream.encode_step(frame))
        stages = codec_probe.stage_figures(stream, frames, alone["ceilings"])
        alone["stages"][precision] = stages
        frame_ms = sum(stage["ms"] for stage in stages.values())
        alone["sessions"][precision] = codec_probe.sessions(mimi, frames, frame_ms)
    return alone


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - begin) * 1e3


def percentiles(times_ms: np.ndarray) -> dict[str, Any]:
    """Reduce times [N, 2] to per-stage figures."""
    columns = dict(zip(STAGES, (times_ms[:, 0], times_ms[:, 1], times_ms.sum(axis=1)), strict=True))
    return {stage: stage_figures(column) for stage, column in columns.items()}


def stage_figures(column: np.ndarray) -> dict[str, float]:
    figures = {f"p{p}_ms": float(np.percentile(column, p)) for p in (50, 95, 99)}
    figures["max_ms"] = float(column.max())
    figures["min_ms"] = float(column.min())
    figures["real_time_factor"] = float(column.mean() / FRAME_MS)
    figures["late_share"] = float(np.mean(column > FRAME_MS))
    return figures


# --- results ----------------------------------------------------------------------------------------------------


def frame_bytes(weights: Path) -> dict[str, int]:
    """Return the bytes of weights that one frame must read in each direction, in float32."""
    from safetensors import safe_open

    totals = {"encode": 0, "decode": 0}
    with safe_open(weights, "numpy") as file:
        for name in file.keys():  # noqa: SIM118
            size = 4 * math.prod(file.get_slice(name).get_shape())
            if name.startswith(("encoder", "downsample")) or "input_proj" in name:
                totals["encode"] += size
            elif name.startswith(("decoder", "upsample")) or "output_proj" in name:
                totals["decode"] += size
            elif name.endswith("embedding_sum") and is_used(name):
                totals["encode"] += size
    return totals


def is_used(name: str) -> bool:
    return "rvq_first" in name or int(name.split("layers.")[1].split(".")[0]) < CODEBOOKS - 1


def rival_versions() -> dict[str, str]:
    names = ("rustymimi", "onnx")
    return {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name) is not None}


def ratio(run: dict[str, Any] | None, rival: str, ours: str = "duologue") -> float | None:
    """Return how many times longer the rival takes for a frame in both directions, by medians."""
    if run is None or rival not in run["codecs"]:
        return None
    codecs = run["codecs"]
    return float(codecs[rival]["both"]["p50_ms"] / codecs[ours]["both"]["p50_ms"])


def summarise(runs: dict[int, dict[str, Any]], bytes_per_frame: dict[str, int]) -> dict[str, Any]:
    moshi = runs[1]["codecs"].get("moshi torch", {})
    onnx = runs[1]["codecs"].get("onnxruntime", {})
    return {
        "benchmark": "codec",
        "speedup_vs_rustymimi_1t": ratio(runs[1], "rustymimi"),
        "speedup_vs_onnxruntime_1t": ratio(runs[1], "onnxruntime"),
        "speedup_vs_moshi_1t": ratio(runs[1], "moshi torch"),
        "speedup_fp16_1t": ratio(runs[1], "rustymimi", OURS["float16"]),
        "speedup_int8_1t": ratio(runs[1], "rustymimi", OURS["int8"]),
        "speedup_2t": ratio(runs.get(2), "rustymimi"),
        "speedup_vs_onnxruntime_2t": ratio(runs.get(2), "onnxruntime"),
        "code_agreement_vs_moshi": moshi.get("code_agreement"),
        "decode_max_abs_error": moshi.get("decode_max_abs_error"),
        "code_agreement_fp16": runs[1]["codecs"][OURS["float16"]]["code_agreement"],
        "code_agreement_int8": runs[1]["codecs"][OURS["int8"]]["code_agreement"],
        "code_agreement_vs_onnxruntime": onnx.get("code_agreement"),
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "isa": runs[1]["isa"],
        "bytes_per_frame": bytes_per_frame,
        "bandwidth_gb_s": {str(threads): run["bandwidth_gb_s"] for threads, run in runs.items()},
        "versions": versions() | rival_versions(),
        "git": git_hash(),
        "runs": {str(threads): run for threads, run in runs.items()},
    }


def print_card(report: dict[str, Any]) -> None:
    print(f"machine    {report['machine']}, {report['cores']} cores, kernels {report['isa']}")
    for threads, bandwidth in report["bandwidth_gb_s"].items():
        print(f"memory     {bandwidth:.1f} GB/s read by {threads} thread(s) through numpy")
    ceiling = report["runs"]["1"]["ceilings"]
    print(
        f"ceilings   {ceiling['gflop_s']:.0f} GFLOP/s float32, {ceiling['gb_s']:.1f} GB/s read, one thread, huge pages"
    )
    for precision, load in report["runs"]["1"]["load"].items():
        served = report["runs"]["1"]["sessions"][precision]
        print(
            f"{precision:10} loads in {load['load_s']:.2f} s into {load['packed_mb']:.0f} MB "
            f"({load['resident_beyond_packed_mb']:+.1f} MB resident); one core serves {served['sessions']} sessions "
            f"(p99 {served['p99_ms']:.1f} ms a tick)"
        )
    if "2" in report["runs"]:
        hog = report["runs"]["2"]["beside_hog"]
        print(f"busy       2 threads beside a CPU hog: p50 {hog['p50_ms']:.1f}, p95 {hog['p95_ms']:.1f} ms a frame")
    run = report["runs"]["1"]["codecs"]["duologue"]
    for direction, count in report["bytes_per_frame"].items():
        reached = count / run[direction]["min_ms"] / 1e6
        print(f"{direction:10} {count / 1e6:.1f} MB of float32 weights per frame; best frame reads {reached:.1f} GB/s")
    print(f"budget     {FRAME_MS} ms per frame\n")


def print_table(runs: dict[int, dict[str, Any]]) -> None:
    print(f"{'codec':13} thr stage      p50     p95     p99     max   RTF  late  codes equal  max diff")
    for threads, run in runs.items():
        for name, codec in run["codecs"].items():
            for stage in STAGES:
                f = codec[stage]
                cells = f"{f['p50_ms']:7.2f} {f['p95_ms']:7.2f} {f['p99_ms']:7.2f} {f['max_ms']:7.2f}"
                line = f"{name:13} {threads:3} {stage:6} {cells} {f['real_time_factor']:5.2f} {f['late_share']:5.0%}"
                if stage == "both" and "code_agreement" in codec:
                    line += f"  {codec['code_agreement']:11.3%}  {codec['decode_max_abs_error']:.1e}"
                print(line)
    print()


def print_stages(run: dict[str, Any]) -> None:
    print(f"{'best frame of each stage':30} {'ms':>7} {'GFLOP/s':>8} {'share':>6} {'GB/s':>6} {'share':>6}")
    for precision, stages in run["stages"].items():
        for name, f in stages.items():
            shares = f"{f['gflop_s']:8.1f} {f['gflop_share']:6.0%} {f['gb_s']:6.1f} {f['gb_share']:6.0%}"
            print(f"{precision:8} {name:26} {f['ms']:7.3f} {shares}"[:79])
    print()


if __name__ == "__main__":
    main()
