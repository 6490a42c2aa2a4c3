"""The summary of alignment runs, from kept runs whose figures are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
AXES = ("pause", "turn", "backchannel", "interruption", "hold")


def take(axis: str, conversation: int, total: float, judge: float, yielded: int) -> dict[str, Any]:
    names = ("answered_within_2s", "pause_takeover_rate", "backchannels_per_min", "selectivity")
    rates = {name: [1, 2] for name in names}
    return {
        "axis": axis,
        "conversation": f"c{conversation}",
        "total": total,
        "components": {"response_quality": judge},
        "rates": {**rates, "yield_rate_2s": [yielded, 1]},
        "fto_s": [0.2],
        "speech_share": 0.4,
    }


def write_run(folder: Path, variant: str, seed: int, gains: dict[str, float]) -> None:
    draw = np.random.default_rng(seed)
    stages: dict[str, Any] = {}
    for stage, share in (("before", 0.0), ("after", 1.0)):
        stages[stage] = [
            take(axis, number, 0.4 + share * gains.get(axis, 0.0) + 0.05 * draw.normal(), 0.5 + 0.1 * share, share > 0)
            for axis in AXES
            for number in range(20)
        ]
    figures = {name: {"turn": {"fto_s": {"value": value}}} for name, value in (("base", 1.0), ("agent", 0.5))}
    content = {"variant": variant, "seed": seed, "seconds": 1800.0, "settings": {}, "dynamic": figures, **stages}
    (folder / f"{variant}-{seed}.json").write_text(json.dumps(content))


def test_the_last_line_says_which_axes_improved(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "duologue", seed, dict.fromkeys(AXES, 0.2))
        write_run(tmp_path, "without-pause", seed, {"turn": 0.2, "backchannel": 0.2, "interruption": 0.005})
    command = [sys.executable, str(ROOT / "benchmarks" / "align.py"), "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    line = json.loads(done.stdout.splitlines()[-1])
    ours, without = line["duologue"], line["without-pause"]
    assert (ours["axes_improved"], without["axes_improved"]) == (4, 2)
    assert [ours["axes"][axis]["is_improved"] for axis in AXES] == [True] * 5
    turn = ours["axes"]["turn"]
    assert turn["before"]["high"] < 0.45 < turn["after"]["low"] < turn["after"]["value"] < turn["after"]["high"]
    assert ours["judge_delta"] == pytest.approx(0.1)
    assert (ours["yield_rate"], ours["backchannel_selectivity"], ours["hours"]) == (1.0, 0.5, 1.0)
    assert ours["dynamic"]["turn"]["fto_s"] == {"before": 1.0, "after": 0.5, "seeds": 2}
    assert "without-pause" in done.stdout


def test_without_runs_it_says_how_to_make_some(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "align.py"), "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "--run" in done.stderr
