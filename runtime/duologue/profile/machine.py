"""What this machine is and what its memory allows: processor, instruction set, GPU, packages, bandwidth."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from duologue.errors import MissingExtraError

_PACKAGES = ("duologue", "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "moshi", "sounddevice")


def measured_bandwidth(device: str, threads: int = 1) -> float:
    """Return the memory bandwidth that a plain large read (CPU) or copy (GPU) reaches, in GB/s.

    Args:
        device: "cpu" or "cuda".
        threads: CPU threads that read together.

    Raises:
        MissingExtraError: The device is "cuda" and torch is not installed.
    """
    return gpu_bandwidth() if device == "cuda" else cpu_bandwidth(threads)


def cpu_bandwidth(threads: int) -> float:
    """Return what `threads` threads read together, in GB/s; numpy lets go of the interpreter while it reduces."""
    parts = np.array_split(np.ones(64 << 20, dtype=np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:
        best_s = min(timed(lambda: list(pool.map(np.max, parts))) for _ in range(7))
    return sum(part.nbytes for part in parts) / best_s / 1e9


def gpu_bandwidth() -> float:
    """Return what a copy inside the GPU's memory reaches, reads and writes counted, in GB/s.

    Raises:
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    source = torch.ones(1 << 28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    times_s = []
    for _ in range(10):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        times_s.append(begin.elapsed_time(end) / 1e3)
    return float(2 * source.nbytes / min(times_s) / 1e9)


def timed(work: Callable[[], Any]) -> float:
    """Return how long a call takes, in seconds."""
    begin_s = time.perf_counter()
    work()
    return time.perf_counter() - begin_s


def device_name(device: str) -> str:
    """Return the name of the processor that "cpu" or "cuda" means here.

    Raises:
        MissingExtraError: The device is "cuda" and torch is not installed.
    """
    return str(_torch().cuda.get_device_name()) if device == "cuda" else cpu_name()


def cpu_name() -> str:
    """Return the processor's own name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def vector_isa() -> str:
    """Return the widest vector instruction set that the processor reports."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    return next((name for name in ("avx512f", "avx2", "asimd") if name in flags), platform.machine())


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that timings depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise MissingExtraError("torch", "torch") from error
