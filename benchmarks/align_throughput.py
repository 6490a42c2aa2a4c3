"""How fast alignment goes: rollouts, listening and updates in frames a second, and where a step's time goes.

    python benchmarks/align_throughput.py [--quick] [--device cpu|cuda] [--shape mini|7b] [--json PATH]

Random weights: the default agent's shape on a CPU, Moshi's 7B on a GPU, made on the device. Every row converses through
the same number of frames against random user codes; the update is one optimiser step of LoRA with the frozen reference.
The floor is what the memory would allow: every weight of the talker once a frame, and the keys and values that are
read; on a CPU the arithmetic comes before it, so a second floor is that of the matrix products at the speed measured
here. Times are the best of the repetitions, on a CPU those of the process, summed over its threads.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import cpu_name, device_name, git_hash, measured_bandwidth, versions

from duologue.codec import Mimi, MimiConfig
from duologue.codec.untrained import write_untrained_mimi
from duologue.metrics.activity import make_detector
from duologue.model.config import LMConfig
from duologue.model.layout import tensor_shapes
from duologue.model.lm import LanguageModel
from duologue.types import FRAME_SAMPLES
from duologue_align.codec.settings import CodecTraining
from duologue_align.corpus.conversation import Channel
from duologue_align.rl.adapter import make_trained
from duologue_align.rl.rollout import Rollouts, roll_out
from duologue_align.rl.scenes import Scene
from duologue_align.rl.settings import AlignSettings
from duologue_align.rl.trainer import GrpoTrainer, Lesson
from duologue_align.segments.segment import Segment
from duologue_align.sft.settings import SftSettings

FRAMES = {"cpu": 188, "cuda": 375}


@dataclass(frozen=True)
class Row:
    """Speeds with so many rollouts at once, in frames a second over all rows."""

    batch: int
    dtype: str
    rollout: float
    floor: float
    update: float
    listen: float


def shape_of(name: str) -> LMConfig:
    if name == "7b":
        return LMConfig.moshi_7b()
    return SftSettings.load().lm_config(card=CodecTraining.load().model.cardinality, text_card=1024)


def make_model(config: LMConfig, device: str, dtype: torch.dtype) -> LanguageModel:
    """Make a model with random weights where it is to run."""
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return LanguageModel(config).eval()
        finally:
            torch.set_default_dtype(before)


def scenes_of(config: LMConfig, batch: int, frames: int) -> list[Scene]:
    draw, place = np.random.default_rng(0), Channel(path=Path("none.wav"))
    segment = Segment(
        id="benchmark",
        axis="turn",
        split="train",
        conversation="none",
        is_swapped=False,
        start_s=0.0,
        end_s=frames * 0.08,
        user=place,
        agent=place,
    )
    given = np.zeros((config.num_streams, 0), dtype=np.int64)
    return [
        Scene(
            segment=segment,
            given=given,
            embeddings=None,
            user=draw.integers(0, config.card, (config.user_q, frames)),
        )
        for _ in range(batch)
    ]


def timed(work: Callable[[], Any], times: int) -> tuple[float, Any]:
    """Return the least time of some repetitions and the last result."""
    # On a CPU the process's own time counts: others may be at work on the machine.
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    best, result = math.inf, None
    for _ in range(times):
        started = clock()
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, clock() - started)
    return best, result


def floor_of(config: LMConfig, batch: int, frames: int, item: int, bandwidth_gb_s: float, gflops: float) -> float:
    """Return the frames a second that memory and arithmetic allow."""
    embeddings = sum(math.prod(shape) for name, shape in tensor_shapes(config).items() if "emb" in name.split(".")[0])
    weights = sum(math.prod(shape) for shape in tensor_shapes(config).values()) - embeddings
    head_share = 1 / config.kv_repeat
    cache = 2 * config.num_layers * config.dim * head_share * min(frames, 2 * config.context) / 2 * batch
    memory_s = (weights + cache) * item / bandwidth_gb_s / 1e9
    compute_s = 2 * weights * batch / gflops / 1e9
    return batch / max(memory_s, compute_s)


def measured_gflops(config: LMConfig, batch: int, device: str, dtype: torch.dtype) -> float:
    """Return the speed of the widest matrix product of a step at this batch."""
    x = torch.randn(batch, config.dim, device=device, dtype=dtype)
    weight = torch.randn(4 * config.dim, config.dim, device=device, dtype=dtype)
    count = 20
    best, _ = timed(lambda: [torch.nn.functional.linear(x, weight) for _ in range(count)], 5)
    return count * 2 * batch * weight.numel() / best / 1e9


def measure(args: argparse.Namespace, config: LMConfig, mimi: Mimi, batch: int, dtype: str) -> Row:
    frames, device = args.frames, args.device
    kind = getattr(torch, dtype)
    settings = AlignSettings.from_dict({"run": {"dtype": dtype, "precision": dtype}, "optimiser": {"passes": 1}})
    trained = make_trained(make_model(config, device, kind), settings.adapter, dtype=kind)
    trainer = GrpoTrainer(trained, settings)
    scenes = scenes_of(config, batch, frames)
    seeds = [(0, row) for row in range(batch)]
    took, rollouts = timed(lambda: roll_out(trained.talker, scenes, seeds, settings.draws), args.times)
    learnt, _ = timed(lambda: trainer.learn(lesson_of(rollouts)), args.times)
    heard, _ = timed(lambda: listen(mimi, rollouts), 1)
    gflops = measured_gflops(config, batch, device, kind)
    item = kind.itemsize
    return Row(
        batch=batch,
        dtype=dtype,
        rollout=batch * frames / took,
        floor=floor_of(config, batch, frames, item, args.bandwidth_gb_s, gflops),
        update=batch * frames / learnt,
        listen=min(batch, 2) * frames / heard,
    )


def lesson_of(rollouts: Rollouts) -> Lesson:
    batch, device = len(rollouts.lengths), rollouts.lengths.device
    advantages = torch.linspace(-1, 1, batch, device=device) if batch > 1 else torch.ones(1, device=device)
    every = torch.ones(batch, dtype=torch.bool, device=device)
    return Lesson(rollouts=rollouts, advantages=advantages, counts=every, parts=torch.zeros_like(every).long())


def listen(mimi: Mimi, rollouts: Rollouts) -> None:
    """Decode at most two rows and find their speech, one after the other on one core."""
    for codes in rollouts.heard[:2, 1:].cpu().numpy():
        stream, detector = mimi.stream(), make_detector("level")
        pcm = [
            stream.decode_step(np.ascontiguousarray(column % mimi.cardinality, dtype=np.int32)) for column in codes.T
        ]
        assert len(detector.push(np.concatenate(pcm))) <= codes.shape[1] * FRAME_SAMPLES
        detector.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 frames, once")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=("mini", "7b"), help="default: mini on a CPU, 7b on a GPU")
    parser.add_argument("--batch", type=int, nargs="+", help="rollouts at once (default: 1 16 64, on a GPU also 128)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), nargs="+", help="arithmetic (default: by device)")
    parser.add_argument("--frames", type=int, help="frames of each rollout (default: 15 s, on a GPU 30 s)")
    parser.add_argument("--threads", type=int, default=1, help="cores of torch on a CPU (%(default)s)")
    parser.add_argument("--codec", type=Path, help="mimi.safetensors with its mimi_config.json (default: untrained)")
    parser.add_argument("--json", type=Path, help="write the last line here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    is_gpu = args.device == "cuda"
    args.frames = args.frames or (24 if args.quick else FRAMES[args.device])
    args.times = 1 if args.quick else 2
    args.bandwidth_gb_s = measured_bandwidth(args.device, args.threads)
    shape = args.shape or ("7b" if is_gpu else "mini")
    config = shape_of(shape)
    batches = args.batch or ([1, 4] if args.quick else [1, 16, 64, 128] if is_gpu else [1, 16, 64])
    dtypes = args.dtype or (["bfloat16"] if is_gpu else ["float32", "bfloat16"])
    mimi = load_codec(args.codec, config)
    print(
        f"{device_name(args.device)}, {args.threads} threads, {args.bandwidth_gb_s:.0f} GB/s; shape {shape}, "
        f"{args.frames} frames a row"
    )
    print(f"{'rows':>5s} {'type':>9s} {'rollout':>9s} {'floor':>9s} {'share':>6s} {'update':>9s} {'listen':>9s}  split")
    rows = []
    for dtype in dtypes:
        for batch in batches:
            row = measure(args, config, mimi, batch, dtype)
            rows.append(row)
            print(
                f"{row.batch:5d} {row.dtype:>9s} {row.rollout:9.0f} {row.floor:9.0f} {row.rollout / row.floor:6.1%} "
                f"{row.update:9.0f} {row.listen:9.0f}  {split(row)}",
                flush=True,
            )
    summary = {
        "shape": shape,
        "device": device_name(args.device),
        "cpu": cpu_name(),
        "threads": args.threads,
        "frames": args.frames,
        "bandwidth_gb_s": args.bandwidth_gb_s,
        "rows": [asdict(row) for row in rows],
        "git": git_hash(),
        "versions": versions(),
    }
    if args.json:
        args.json.write_text(json.dumps(summary), encoding="utf-8")
    print(json.dumps(summary))


def split(row: Row) -> str:
    """Return where a step's time goes if the three follow each other."""
    parts = {name: 1 / getattr(row, name) for name in ("rollout", "listen", "update")}
    whole = sum(parts.values())
    return ", ".join(f"{name} {spent / whole:.0%}" for name, spent in parts.items())


def load_codec(path: Path | None, config: LMConfig) -> Mimi:
    if path is not None:
        beside = path.with_name("mimi_config.json")
        shape = MimiConfig.from_file(beside) if beside.is_file() else None
        return Mimi.load(path, num_codebooks=config.dep_q, config=shape)
    import tempfile

    shape = MimiConfig() if config.card == 2048 else CodecTraining.load().model
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "mimi.safetensors"
        write_untrained_mimi(weights, shape, seed=0)
        return Mimi.load(weights, num_codebooks=config.dep_q, config=shape)


if __name__ == "__main__":
    main()
