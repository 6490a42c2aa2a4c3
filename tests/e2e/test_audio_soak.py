"""A live conversation for twenty minutes (or DUOLOGUE_SOAK_MINUTES): nothing grows, drifts or gets lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "audio_soak.py"
MINUTES = float(os.environ.get("DUOLOGUE_SOAK_MINUTES", "20"))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_and_lag_stay_constant(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    command = [sys.executable, str(SCRIPT), "--minutes", str(MINUTES), "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES + 120, check=False)
    assert path.is_file(), done.stderr
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["broken"] == []
    assert result["device_losses"] == 0
    assert result["frames"] > 60 * MINUTES * 12.5 * 0.99
    assert done.returncode == 0
