"""What the machine allows and what it is, for the cards and JSON lines of the benchmarks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np


def can_compile() -> bool:
    """Return whether torch.compile can work on a GPU here: triton and a C compiler."""
    has_compiler = any(shutil.which(name) for name in ("gcc", "cc", "clang"))
    return has_compiler and importlib.util.find_spec("triton") is not None


def measured_bandwidth(device: str, threads: int = 1) -> float:
    """Return the memory bandwidth that a plain large read (CPU) or copy (GPU) reaches, in GB/s."""
    return gpu_bandwidth() if device == "cuda" else cpu_bandwidth(threads)


def cpu_bandwidth(threads: int) -> float:
    """Return what `threads` threads read together; numpy lets go of the interpreter while it reduces."""
    parts = np.array_split(np.ones(64 << 20, dtype=np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:
        best = min(timed(lambda: list(pool.map(np.max, parts))) for _ in range(7))
    return sum(part.nbytes for part in parts) / best / 1e9


def gpu_bandwidth() -> float:
    import torch

    source = torch.ones(1 << 28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return 2 * source.nbytes / min(times) / 1e9


def timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def device_name(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return cpu_name()


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def vector_isa() -> str:
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    return next((name for name in ("avx512f", "avx2", "asimd") if name in flags), platform.machine())


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("duologue", "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "moshi"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_hash() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
