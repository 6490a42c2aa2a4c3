"""The step benchmark runs to its end, on both of its paths, at a shape that takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("moshi")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "model_step.py"


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(SCRIPT), "--shape", "tiny", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def run(tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    done = launch("--frames", "20", "--json", str(tmp_path / "out.json"), *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    return done.stdout, report


def test_engines_over_a_file(tmp_path: Path) -> None:
    text, report = run(tmp_path)
    assert [row["engine"] for row in report["results"]] == ["onnx", "torch eager", "moshi LMGen"]
    assert report["speedup_vs_moshi"]["onnx @ 32"] > 1
    assert all(row["engine"] in text for row in report["results"])
    for row in report["results"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"]


def test_engines_with_weights_made_on_the_device(tmp_path: Path) -> None:
    _, report = run(tmp_path, "--weights", "device", "--context", "20")
    assert not [row for row in report["results"] if "error" in row]
    assert [row["engine"] for row in report["results"]] == ["torch (graph path)", "torch eager", "moshi LMGen"]
    assert {row["context"] for row in report["results"]} == {20}


def test_bad_arguments_are_refused() -> None:
    done = launch("--frames", "1")
    assert done.returncode == 2
    assert "--frames must be at least" in done.stderr
