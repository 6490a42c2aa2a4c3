"""Time one language-model step of every engine beside moshi's LMGen, in the same run.

    python benchmarks/model_step.py [--quick] [--json PATH] [--device cpu|cuda] [--shape tiny|small|7b]

On the CPU, by default, the small untrained model: ONNX Runtime, torch eager and moshi, in alternating blocks. On a GPU
the shape of Moshi 7B with random bfloat16 weights made on the device, at contexts 750 and 3000: torch with one CUDA
graph per frame, torch eager, and moshi as it comes (its own CUDA graphs, torch.compile where a C compiler and triton
are there). Our rings are filled before timing, so that a step reads the whole context, as moshi's always does.
A step counts from user codes on the host to tokens on the host.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import can_compile, cpu_name, device_name, git_hash, measured_bandwidth, vector_isa, versions

from duologue.engine.base import StepStream
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig
from duologue.model.layout import tensor_shapes
from duologue.types import FRAME_MS
from duologue.untrained import random_weights, small_config

BLOCK_FRAMES = 20
WARM_FRAMES = 12
SEED = 7


@dataclass
class Contender:
    """One engine under test.

    Attributes:
        name: What the table calls it.
        step: Runs one frame from user codes, int32 [user_q], to tokens on the host.
        item_bytes: Size of a stored weight as the engine reads it.
        times_ms: Measured steps.
    """

    name: str
    step: Callable[[np.ndarray], Any]
    item_bytes: int
    times_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """One shape at one context."""

    config: LMConfig
    device: str
    threads: int
    frames: int


def main() -> None:
    options = parse_options()
    if options.device == "cuda" and not can_compile():
        os.environ["NO_TORCH_COMPILE"] = "1"
    config = {"tiny": tiny_config, "small": small_config, "7b": LMConfig.moshi_7b}[options.shape]()
    contexts = options.context or ([750, 3000] if options.shape == "7b" else [config.context])
    limit_torch(options.threads)
    bandwidth = measured_bandwidth(options.device, options.threads)
    results: list[dict[str, Any]] = []
    for context in contexts:
        case = Case(replace(config, context=context), options.device, options.threads, options.frames)
        print_card(case, options.shape, options.weights, bandwidth)
        rows = list(run_case(case, options.weights, bandwidth))
        print_table(rows)
        results.extend(rows)
    report = summary(options, results, bandwidth)
    line = json.dumps(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(line)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer frames")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=("tiny", "small", "7b"), help="default: small on the CPU, 7b on a GPU")
    parser.add_argument("--context", type=int, action="append", help="attention window; may be given several times")
    parser.add_argument("--frames", type=int, help="timed frames per engine")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each engine")
    parser.add_argument("--weights", choices=("file", "device"), help="default: file on the CPU, device on a GPU")
    options = parser.parse_args()
    is_gpu = options.device == "cuda"
    options.shape = options.shape or ("7b" if is_gpu else "small")
    options.weights = options.weights or ("device" if is_gpu else "file")
    options.frames = options.frames or (100 if options.quick else 500)
    if options.frames < BLOCK_FRAMES or options.threads < 1:
        parser.error(f"--frames must be at least {BLOCK_FRAMES} and --threads at least 1")
    return options


def tiny_config() -> LMConfig:
    """Return a shape that runs every line of this file in seconds."""
    return replace(small_config(), dim=64, num_heads=2, num_layers=2, text_card=64, card=32, context=32)


# --- the two ways to run -------------------------------------------------------------------------------------------


def run_case(case: Case, weights: str, bandwidth: float) -> Iterator[dict[str, Any]]:
    """Yield one row of the table per engine."""
    if weights == "file":
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            checkpoint = write_checkpoint(case.config, Path(folder))
            contenders = [
                stack.enter_context(build(case, checkpoint))
                for build in (onnx_contender, torch_contender, moshi_contender)
                if is_present(build)
            ]
            alternate(contenders, case)
            for contender in contenders:
                yield row_of(contender, case, bandwidth)
        return
    # Device weights: one engine at a time, so that one copy of the model has to fit.
    for build in (graph_on_device, eager_on_device, moshi_on_device):
        if not is_present(build):
            continue
        try:
            with build(case) as contender:
                alternate([contender], case)
                row = row_of(contender, case, bandwidth)
        except Exception as error:  # a rival that fails must not lose the other rows
            row = {
                "engine": build.__name__,
                "context": case.config.context,
                "error": f"{type(error).__name__}: {error}",
            }
            print(f"{build.__name__} failed: {row['error'][:300]}", file=sys.stderr)
        release(case.device)
        yield row


def is_present(build: Callable[..., Any]) -> bool:
    if not build.__name__.startswith("moshi"):
        return True
    try:
        importlib.import_module("moshi.models.lm")
    except ImportError as error:
        print(f"moshi is left out: {error}", file=sys.stderr)
        return False
    return True


def alternate(contenders: list[Contender], case: Case) -> None:
    """Time the contenders in blocks by turns, so that a busy moment of the machine hits all alike."""
    draw = np.random.default_rng(SEED)
    codes = draw.integers(0, case.config.card, (WARM_FRAMES + case.frames, case.config.user_q), dtype=np.int32)
    for contender in contenders:
        for frame in codes[:WARM_FRAMES]:
            contender.step(frame)
    for start in range(WARM_FRAMES, len(codes), BLOCK_FRAMES):
        for contender in contenders:
            for frame in codes[start : start + BLOCK_FRAMES]:
                begin = time.perf_counter()
                contender.step(frame)
                contender.times_ms.append((time.perf_counter() - begin) * 1e3)


# --- engines over a file -------------------------------------------------------------------------------------------


def write_checkpoint(config: LMConfig, folder: Path) -> Checkpoint:
    from safetensors.numpy import save_file

    save_file(random_weights(config, seed=SEED), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return Checkpoint.open(folder)


def filled(stream: StepStream, config: LMConfig) -> StepStream:
    """Fill the ring of keys and values, so that every timed step reads the whole context."""
    limits = [config.text_card] + [config.card] * config.n_q
    stream.prefill(np.random.default_rng(SEED).integers(0, limits, (config.context, config.num_streams)))
    return stream


@contextmanager
def onnx_contender(case: Case, checkpoint: Checkpoint) -> Iterator[Contender]:
    from duologue.engine.onnx_engine import OnnxEngine

    providers = ["CUDAExecutionProvider"] if case.device == "cuda" else None
    engine = OnnxEngine.load(checkpoint, threads=case.threads, providers=providers)
    yield Contender("onnx", filled(engine.stream(seed=SEED), case.config).step, 4)


@contextmanager
def torch_contender(case: Case, checkpoint: Checkpoint) -> Iterator[Contender]:
    from duologue.engine.torch_engine import TorchEngine

    engine = TorchEngine.load(checkpoint, device=case.device)
    name = "torch CUDA graph" if case.device == "cuda" else "torch eager"
    yield Contender(name, filled(engine.stream(seed=SEED), case.config).step, 4)


@contextmanager
def moshi_contender(case: Case, checkpoint: Checkpoint) -> Iterator[Contender]:
    import torch
    from safetensors.torch import load_file

    model = empty_moshi(case.config, case.device, torch.float32)
    model.load_state_dict(load_file(checkpoint.path / "model.safetensors", device=case.device))
    with moshi_stream(model, case) as step:
        yield Contender("moshi LMGen", step, 4)


# --- engines with weights made on the device -----------------------------------------------------------------------


@contextmanager
def graph_on_device(case: Case) -> Iterator[Contender]:
    with ours_on_device(case, use_cuda_graph=True) as step:
        yield Contender("torch CUDA graph" if case.device == "cuda" else "torch (graph path)", step, 2)


@contextmanager
def eager_on_device(case: Case) -> Iterator[Contender]:
    with ours_on_device(case, use_cuda_graph=False) as step:
        yield Contender("torch eager", step, 2)


@contextmanager
def moshi_on_device(case: Case) -> Iterator[Contender]:
    import torch

    model = empty_moshi(case.config, case.device, torch.bfloat16)
    fill_random(model)
    with moshi_stream(model, case) as step:
        yield Contender("moshi LMGen", step, 2)


@contextmanager
def ours_on_device(case: Case, *, use_cuda_graph: bool) -> Iterator[Callable[[np.ndarray], Any]]:
    import torch

    from duologue.engine.torch_engine import TorchEngine
    from duologue.model.lm import LanguageModel

    with torch.device("meta"):
        model = LanguageModel(case.config).to(torch.bfloat16)
    model = model.to_empty(device=case.device)
    fill_random(model)
    engine = TorchEngine(model, use_cuda_graph=use_cuda_graph)
    yield filled(engine.stream(seed=SEED), case.config).step


def fill_random(model: Any) -> None:
    """Draw weights that keep activations of order one."""
    import torch

    torch.manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=1.0 if "emb" in name else parameter.shape[1] ** -0.5)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def empty_moshi(config: LMConfig, device: str, dtype: Any) -> Any:
    from moshi.models.lm import LMModel

    model = LMModel(device="meta", dtype=dtype, **config.to_dict()).to_empty(device=device)
    return model.eval()


@contextmanager
def moshi_stream(model: Any, case: Case) -> Iterator[Callable[[np.ndarray], Any]]:
    import torch
    from moshi.models.lm import LMGen

    generator = LMGen(model)

    def step(codes: np.ndarray) -> Any:
        given = torch.from_numpy(codes.astype(np.int64)).to(case.device)
        output = generator.step(given[None, :, None])
        return None if output is None else output.cpu().numpy()

    with torch.no_grad(), generator.streaming(1):
        yield step


def release(device: str) -> None:
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# --- what the machine allows ---------------------------------------------------------------------------------------


def limit_torch(threads: int) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


def step_bytes(config: LMConfig, item_bytes: int) -> int:
    """Return the bytes one step must read: every weight but the embedding tables, and the full ring."""
    weights = sum(
        int(np.prod(shape))
        for name, shape in tensor_shapes(config).items()
        if "emb" not in name.split(".")[0] or "low_rank" in name
    )
    head_dim = config.dim // config.num_heads
    ring = 2 * config.num_layers * (config.num_heads // config.kv_repeat) * config.context * head_dim
    return (weights + ring) * item_bytes


def print_card(case: Case, shape: str, weights: str, bandwidth: float) -> None:
    item_bytes = 4 if weights == "file" else 2
    moved = step_bytes(case.config, item_bytes)
    parameters = sum(int(np.prod(item)) for item in tensor_shapes(case.config).values())
    print(f"\nmachine           {device_name(case.device)}, {case.threads} thread(s)")
    print(f"model             {shape}: {parameters / 1e6:,.1f} M weights, context {case.config.context}")
    print(f"bytes per step    {moved / 1e6:,.1f} MB ({'f32' if item_bytes == 4 else 'bf16'} weights and full ring)")
    print(f"memory bandwidth  {bandwidth:,.1f} GB/s measured")
    print(f"floor per step    {moved / bandwidth / 1e6:.3f} ms; budget {FRAME_MS} ms\n")


# --- results -------------------------------------------------------------------------------------------------------


def row_of(contender: Contender, case: Case, bandwidth: float) -> dict[str, Any]:
    times = np.array(contender.times_ms)
    moved = step_bytes(case.config, contender.item_bytes)
    p50, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    row = {
        "engine": contender.name,
        "context": case.config.context,
        "frames": len(times),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": float(times.max()),
        "real_time_factor": float(times.mean()) / FRAME_MS,
        "late_share": float((times > FRAME_MS).mean()),
        "bytes_per_step": moved,
        "bandwidth_share": moved / (p50 * 1e-3) / (bandwidth * 1e9),
    }
    if case.device == "cuda":
        import torch

        row["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return row


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'engine':20}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}   {'RTF':>7}{'late':>7}{'of bandwidth':>14}")
    for row in rows:
        if "error" in row:
            print(f"{row['engine']:20}failed: {row['error'][:90]}")
            continue
        times = "".join(f"{row[key]:9.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms"))
        shares = f"{row['late_share']:7.1%}{row['bandwidth_share']:14.1%}"
        print(f"{row['engine']:20}{times}   {row['real_time_factor']:7.4f}{shares}")
    print("times in ms; RTF: mean step over 80 ms; late: share of steps over 80 ms\n")


def summary(options: argparse.Namespace, results: list[dict[str, Any]], bandwidth: float) -> dict[str, Any]:
    return {
        "benchmark": "model_step",
        "device": options.device,
        "shape": options.shape,
        "weights": "f32 from a file" if options.weights == "file" else "bf16 made on the device",
        "machine": device_name(options.device),
        "cpu": cpu_name(),
        "isa": vector_isa(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "is_moshi_compiled": options.device == "cuda" and "NO_TORCH_COMPILE" not in os.environ,
        "versions": versions(),
        "git": git_hash(),
        "bandwidth_gb_s": bandwidth,
        "results": results,
        "speedup_vs_moshi": speedups(results),
    }


def speedups(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return moshi's p50 over each engine's, by "engine @ context"."""
    measured = [row for row in results if "p50_ms" in row]
    rivals = {row["context"]: row["p50_ms"] for row in measured if row["engine"].startswith("moshi")}
    return {
        f"{row['engine']} @ {row['context']}": rivals[row["context"]] / row["p50_ms"]
        for row in measured
        if row["context"] in rivals and not row["engine"].startswith("moshi")
    }


if __name__ == "__main__":
    main()
