"""The benchmark of agents that understand nothing: its JSON, and the README's table made of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import soundfile

from duologue.codec.speechlike import speechlike
from duologue.metrics.degenerate import DEGENERATE_AGENTS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RENDER = "import json, readme_tables; print(readme_tables.degenerate_agents_table(json.load(open({path!r}))))"


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *filter(None, sys.path)])}
    return subprocess.run(
        [sys.executable, *command], check=True, env=environment, stdout=subprocess.PIPE, text=True, timeout=120
    ).stdout


def test_the_result_says_where_it_was_measured_and_renders(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "user.wav", speechlike(8.0, seed=3), 24_000)
    path = tmp_path / "results" / "machine" / "degenerate_agents.json"
    lines = run(str(BENCHMARKS / "degenerate_agents.py"), str(tmp_path / "user.wav"), "--json", str(path)).splitlines()
    result = json.loads(path.read_text(encoding="utf-8"))
    assert json.loads(lines[-1]) == result
    assert result["benchmark"] == "degenerate_agents"
    assert result["machine"] in lines[0]
    assert result["git"]
    assert result["versions"]["numpy"]
    assert set(result["agents"]) == set(DEGENERATE_AGENTS)
    table = run("-c", RENDER.format(path=str(path)))
    assert all(f"| {name} |" in table for name in DEGENERATE_AGENTS)
    assert "takeover" in table
