"""The hacking suite: under `duologue` no scripted agent beats the human, and each stays below on most axes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from duologue.errors import ConfigError
from duologue_align.hacking.cases import Case, draw_cases, read_timing
from duologue_align.hacking.comparison import MEAN, score_policies
from duologue_align.hacking.scripted import script_conversations
from duologue_align.hacking.verdict import Verdict, judge_policies
from duologue_align.hacking.words import Script
from duologue_align.policies import POLICIES
from duologue_align.rewards import RewardPreset
from duologue_align.segments.segment import AXES

PER_AXIS = 50
NAMED = ("silent", "always talking", "two mm-hm", "echo", "endpointer 0.5 s", "filler then stop", "babble")


@pytest.fixture(scope="module")
def scripted() -> list[Case]:
    return draw_cases(script_conversations(40 * PER_AXIS), PER_AXIS)


def judge(preset: str, cases: list[Case], script: Script | None = None) -> Verdict:
    return judge_policies(score_policies(RewardPreset.load(preset), cases, POLICIES, script))


def assert_not_fooled(verdict: Verdict) -> None:
    assert set(NAMED) <= set(verdict.differences)
    assert verdict.wins == []
    assert verdict.not_below_on_mean == []
    assert min(verdict.axes_below.values()) >= 2


def test_there_are_enough_situations_of_each_axis(scripted: list[Case]) -> None:
    for axis in AXES:
        conversations = [case.conversation for case in scripted if case.situation.axis == axis]
        assert len(conversations) == PER_AXIS
        assert len(set(conversations)) == PER_AXIS


def test_ours_is_not_fooled_by_scripted_conversations(scripted: list[Case]) -> None:
    assert_not_fooled(judge("duologue", scripted, Script()))


def test_the_papers_is_fooled(scripted: list[Case]) -> None:
    verdict = judge("paper", scripted)
    assert {"always talking: turn", "always talking: interruption", "filler then stop: interruption"} <= set(
        verdict.wins
    )
    assert verdict.differences["always talking"][MEAN].verdict == "above"


@pytest.mark.slow
def test_ours_is_not_fooled_by_recorded_conversations_held_out_from_its_design(shared_dir: Path) -> None:
    timing = shared_dir / "data" / "human_turn_timing.npz"
    assert_not_fooled(judge("duologue", draw_cases(read_timing(timing, half=1), PER_AXIS)))


def test_draws_are_reproducible() -> None:
    first, second = (draw_cases(script_conversations(4, seed=5), 2, seed=1) for _ in range(2))
    assert [case.situation.focus for case in first] == [case.situation.focus for case in second]
    other = draw_cases(script_conversations(4, seed=6), 2, seed=1)
    assert [case.situation.focus for case in first] != [case.situation.focus for case in other]


def test_a_wrong_timing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "timing.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="expected arrays"):
        list(read_timing(path))


def test_the_benchmark_ends_with_its_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "hacking.py"
    monkeypatch.syspath_prepend(script.parent)
    spec = importlib.util.spec_from_file_location("hacking_benchmark", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table: hacking -->\n<!-- end -->\nafter\n")
    monkeypatch.setattr(sys, "argv", ["hacking.py", "--per-axis", "5", "--readme", str(readme)])
    module.main()
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert found["wins_over_human_like"] == 0
    assert found["wins_over_human_like_paper"] > 0
    assert "min_axes_below_human_like" in found
    for name in POLICIES:
        assert sum(line.startswith(name) for line in lines) >= len(AXES) * 2 + 4
    written = readme.read_text()
    assert written.startswith("before\n<!-- table: hacking -->")
    assert written.endswith("<!-- end -->\nafter\n")
    assert "| always talking |" in written
