"""What only a checkout has, for the cards and JSON lines of the benchmarks; the rest is `duologue.profile.machine`."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

from duologue.profile.machine import cpu_name, device_name, measured_bandwidth, vector_isa, versions

__all__ = ["can_compile", "cpu_name", "device_name", "git_hash", "measured_bandwidth", "vector_isa", "versions"]


def can_compile() -> bool:
    """Return whether torch.compile can work on a GPU here: triton and a C compiler."""
    has_compiler = any(shutil.which(name) for name in ("gcc", "cc", "clang"))
    return has_compiler and importlib.util.find_spec("triton") is not None


def git_hash() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
