"""The summary of alignment runs, from kept runs whose figures are known."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
AXES = ("pause", "turn", "backchannel", "interruption", "user_backchannel")
VOICES = ("ann", "bob", "cid", "ann", "bob", "cid", "ann", "bob")


def take(axis: str, conversation: int, total: float, judge: float, yielded: int) -> dict[str, Any]:
    names = ("answered_within_2s", "pause_takeover_rate", "backchannels_per_min")
    rates = {name: [1, 2] for name in names}
    # Whatever other sets hold beside the point does not count.
    rates["selectivity"] = [3, 4] if axis == "user_backchannel" else [0, 5]
    return {
        "axis": axis,
        "conversation": f"c{conversation}",
        "rules": total,
        "components": {"response_quality": judge},
        "rates": {**rates, "yield_rate_2s": [yielded, 1] if axis == "interruption" else [0, 7]},
        "fto_s": [0.2],
        "speech_share": 0.4,
    }


def live(share: float, backchannels_per_min: float = 2.0) -> list[dict[str, Any]]:
    sums = {
        "pause.takeover_rate": [4 - 3 * share, 5],
        "turn.answered_rate": [1 + 3 * share, 5],
        "backchannel.backchannels_per_min": [backchannels_per_min, 1.0],
        "interruption.yield_rate": [1 + share, 2],
    }
    return [{"sums": sums, "values": {"turn.fto_s": [1.0 - 0.5 * share]}} for _ in VOICES]


def write_run(folder: Path, variant: str, seed: int, gains: dict[str, float]) -> None:
    draw = np.random.default_rng(seed)
    stages: dict[str, Any] = {}
    for stage, share in (("before", 0.0), ("after", 1.0)):
        stages[stage] = [
            take(axis, number, 0.4 + share * gains.get(axis, 0.0) + 0.05 * draw.normal(), 0.5 + 0.1 * share, share > 0)
            for axis in AXES
            for number in range(20)
        ]
    dynamic = {"voices": VOICES, "before": live(0.0), "after": live(1.0)}
    identity = {"git": "abc", "arguments": {}}
    content = {"variant": variant, "seed": seed, "seconds": 1800.0, "identity": identity, "dynamic": dynamic, **stages}
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
    assert ours["judge_delta_ci"] == pytest.approx([0.1, 0.1])
    assert (ours["yield_rate"], ours["backchannel_selectivity"], ours["hours"]) == (1.0, 0.75, 1.0)
    talks = ours["dynamic"]
    assert (talks["axes_improved"], talks["conversations"]) == (3, 8)
    assert not talks["axes"]["backchannel"]["is_improved"], "it did not move"
    assert talks["axes"]["pause"]["after"]["value"] == pytest.approx(0.2)
    assert talks["figures"]["turn"]["fto_s"]["delta"]["value"] == -0.5
    assert not ours["is_reached"], "one axis did not move with simulated users"
    assert "without-pause" in done.stdout
    assert "simulated users: 3 of 4 axes better (not backchannel)" in done.stdout


@pytest.mark.parametrize(("before", "after", "is_better"), [(0.0, 3.0, True), (2.0, 9.0, False), (9.0, 5.0, True)])
def test_backchannels_are_better_where_they_come_nearer_to_peoples_rate(
    before: float, after: float, is_better: bool
) -> None:
    figures = load("align_figures")
    talks = {"voices": VOICES, "before": live(0.0, before), "after": live(0.0, after)}
    takes = [take("turn", 0, 0.2, 0.5, 1)]
    run = {"before": takes, "after": takes, "dynamic": talks, "seconds": 0.0, "identity": {"git": "a"}}
    found = figures.summarise_variant([run])["dynamic"]["axes"]["backchannel"]
    assert (found["before"]["value"], found["after"]["value"]) == (before, after)
    assert found["is_improved"] == is_better


def test_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    """All conversations of a run alike, the runs far apart: the seeds alone make the interval."""
    figures = load("align_figures")
    runs = [
        {"before": [take("turn", k, 0.2, 0.5, 1) for k in range(9)], "seconds": 0.0, "identity": {"git": "a"}}
        | {"after": [take("turn", k, 0.2 + seed / 10, 0.5, 1) for k in range(9)]}
        for seed in range(3)
    ]
    turn = figures.summarise_variant(runs)["axes"]["turn"]
    assert (turn["before"]["low"], turn["before"]["high"]) == pytest.approx((0.2, 0.2))
    assert turn["after"] == pytest.approx({"value": 0.3, "low": 0.2, "high": 0.4})
    assert not turn["is_improved"]


def test_results_made_otherwise_are_made_again(tmp_path: Path) -> None:
    bench = load("align")
    given: dict[str, Any] = {
        "model": Path("m"), "segments": Path("s"), "test_folder": "", "per_axis": 4, "judge": "similarity",
        "test_judge": "log-prob", "steps": 3, "set": [], "config": "duologue", "dynamic": 2, "seconds": 20.0,
        "contents": {"model": "1"}, "code": "abc", "any_commit": False, "work": tmp_path / "w", "results": tmp_path,
    }  # fmt: skip

    def case(**changes: Any) -> Any:
        return bench.Case(argparse.Namespace(**{**given, **changes}), "without-turn", 1)

    made = case()
    assert not made.is_kept()
    made.result.write_text(json.dumps({"identity": made.identity}))
    assert made.is_kept()
    assert case(model=Path("elsewhere"), work=tmp_path / "x").is_kept(), "places may change"
    others = [{"steps": 4}, {"test_judge": ""}, {"seconds": 30.0}, {"contents": {"model": "2"}}, {"code": "abd"}]
    assert not any(case(**change).is_kept() for change in others)
    assert case(code="abd", any_commit=True).is_kept()
    assert case(steps=4).run != made.run, "a run is not continued with other arguments"
    assert case(dynamic=60).run == made.run, "but another number of users trains nothing anew"


def load(name: str) -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def test_without_runs_it_says_how_to_make_some(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "align.py"), "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "--run" in done.stderr
