"""Presets: what they hold, what they refuse, and the cap at the recorded human."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from duologue.errors import ConfigError
from duologue.metrics.types import Event
from duologue_align.corpus.conversation import Channel
from duologue_align.rewards import COMPONENTS, Reply, RewardPreset, Situation
from duologue_align.rewards.situation import spans_to_activity
from duologue_align.segments.segment import AXES, Segment


def turn(reference_s: tuple[float, float] = (6.9, 14.0)) -> Situation:
    return Situation.from_spans(
        axis="turn",
        duration_s=14.0,
        user_spans_s=[(0.0, 6.0)],
        reference_spans_s=[reference_s],
        focus_s=(0.0, 6.0),
    )


def speaking(start_s: float, end_s: float, **known: float | str) -> Reply:
    return Reply(activity=spans_to_activity([(start_s, end_s)], 1400), **known)  # type: ignore[arg-type]


def test_the_presets_cover_their_axes_and_every_component_is_used() -> None:
    ours, papers = RewardPreset.load("duologue"), RewardPreset.load("paper")
    assert tuple(ours.axes) == AXES
    assert tuple(papers.axes) == AXES[:4]
    used = {name for preset in (ours, papers) for axis in preset.axes.values() for name in axis.weights}
    assert used == set(COMPONENTS)


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_says_its_range_and_its_source(name: str) -> None:
    told = COMPONENTS[name].rule.__doc__ or ""
    assert re.search(r"\[-?\w+, -?\w+\]", told), "a range, such as [0, 1]"
    assert re.search(r"^ +Source: \S", told, flags=re.MULTILINE)


def test_components_come_as_a_named_tuple_in_the_order_of_the_preset() -> None:
    preset = RewardPreset.load("paper")
    components = preset.score(turn(), speaking(6.5, 14.0))
    assert components._fields == ("paper_turn_delay", "response_quality")  # type: ignore[attr-defined]
    assert components[0] == pytest.approx(-0.5)
    assert math.isnan(components[1])
    assert preset.total(turn(), components) == pytest.approx(-0.5)


def test_the_judges_score_is_scaled_and_counts() -> None:
    preset = RewardPreset.load("paper")
    components = preset.score(turn(), speaking(6.5, 14.0, judge_score=1.5))
    assert components[1] == 0.75
    assert preset.total(turn(), components) == pytest.approx((-0.5 + 0.75) / 2)


def test_no_component_pays_more_than_the_recorded_human_earns() -> None:
    preset = RewardPreset.load("duologue")
    late = preset.score(turn((7.0, 14.0)), speaking(6.2, 14.0))
    human = preset.score(turn((7.0, 14.0)), speaking(7.0, 14.0))
    assert late == pytest.approx(human, nan_ok=True)
    assert human[0] < 0.6 < preset.score(turn((6.2, 14.0)), speaking(6.2, 14.0))[0]


def test_on_random_activity_nobody_beats_the_replay() -> None:
    preset, rng = RewardPreset.load("duologue"), np.random.default_rng(3)
    for axis in AXES:
        for _ in range(4):
            user, reference, agent = (np.repeat(rng.random(60) < share, 20) for share in (0.5, 0.4, 0.4))
            case = Situation(axis=axis, user=user, reference=reference, focus=(100, 900))
            human, other = preset.score_group(case, [Reply(activity=reference), Reply(activity=agent)])
            assert all(ours <= best for ours, best in zip(other, human, strict=True) if not math.isnan(best))


def test_a_group_scores_like_its_members() -> None:
    preset, replies = RewardPreset.load("duologue"), [speaking(6.2, 9.0), speaking(0.0, 14.0)]
    alone = [preset.score(turn(), reply) for reply in replies]
    for together, single in zip(preset.score_group(turn(), replies), alone, strict=True):
        assert together == pytest.approx(single, nan_ok=True)


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[turn]\ncontinuity = { weight = 3.0, target_s = 2.0 }\nsilence = { weight = 1 }\n")
    preset = RewardPreset.load(path)
    components = preset.score(turn(), speaking(6.2, 7.7))
    assert preset.name == "mine"
    assert components._asdict() == pytest.approx({"continuity": 0.75, "silence": -1.0})  # type: ignore[attr-defined]
    assert preset.total(turn(), components) == pytest.approx((3 * 0.75 - 1) / 4)
    with pytest.raises(ConfigError, match="no reward for axis 'pause'"):
        preset.score(
            Situation(axis="pause", user=turn().user, reference=turn().reference, focus=(0, 9)), speaking(0, 1)
        )


def test_a_preset_names_the_module_of_its_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duologue_align.rewards.registry.COMPONENTS", kept := dict(COMPONENTS))
    monkeypatch.setattr("duologue_align.rewards.preset.COMPONENTS", kept)
    (tmp_path / "my_shy_rewards.py").write_text(
        "from dataclasses import dataclass\n"
        "from duologue_align.rewards.registry import component\n"
        "from duologue_align.rewards.exchange import Exchange\n"
        "@dataclass(frozen=True)\n"
        "class Shyness:\n"
        "    share: float = 0.5\n"
        "@component\n"
        "def shyness(exchange: Exchange, options: Shyness) -> float:\n"
        "    return options.share\n"
    )
    path = tmp_path / "mine.toml"
    path.write_text('[preset]\nmodules = ["my_shy_rewards"]\n[turn]\nshyness = { weight = 2, share = 0.25 }\n')
    before = list(sys.path)
    try:
        for _ in range(2):
            assert RewardPreset.load(path).score(turn(), speaking(6.2, 14.0)) == (0.25,)
    finally:
        sys.modules.pop("my_shy_rewards", None)
    assert sys.path == before
    path.write_text('[preset]\nmodules = ["not_there_at_all"]\n[turn]\nsilence = { weight = 1 }\n')
    with pytest.raises(ConfigError, match=r"mine.preset.modules: cannot import 'not_there_at_all'.*beside the preset"):
        RewardPreset.load(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[trun]\nsilence = { weight = 1 }", "unknown table 'trun'"),
        ("", "rewards nothing"),
        ("[turn]\nnonsense = { weight = 1 }", "no such component"),
        ("[turn]\nsilence = { weight = 1, fre_s = 2.0 }", "unknown key 'fre_s'"),
        ("[turn]\nsilence = { weight = 1, free_s = 'long' }", "free_s is 'long'"),
        ("[turn]\nsilence = { weight = -1 }", "above 0"),
        ("[turn]\nsilence = { weight = nan }", "above 0"),
        ("[turn]\nsilence = 1.0", "weight = 1.0"),
        ("[turn]", "a line for each component"),
        ("[preset]\ncap = true\n[turn]\nsilence = { weight = 1 }", "unknown key 'cap'"),
    ],
)
def test_wrong_presets_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        RewardPreset.load(path)


def test_a_missing_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the preset"):
        RewardPreset.load(tmp_path / "none.toml")


def test_a_mined_segment_becomes_a_situation() -> None:
    channel = Channel(path=Path("call.wav"))
    spans = {"user": ((100.0, 104.0), (108.0, 112.0)), "agent": ((104.2, 108.5), (112.3, 116.0))}
    said = [Event(kind="utterance", side=side, start_s=a, end_s=b) for side, ab in spans.items() for a, b in ab]  # type: ignore[arg-type]
    segment = Segment(
        id="x",
        axis="interruption",
        split="train",
        conversation="call",
        is_swapped=False,
        start_s=99.92,
        end_s=116.0,
        user=channel,
        agent=channel,
        events=tuple(sorted(said, key=lambda event: event.start_s)),
        user_spans=spans["user"],
        agent_spans=spans["agent"],
    )
    case = Situation.from_segment(segment)
    assert case.focus == (808, 1208)
    assert case.duration_s == pytest.approx(16.08)
    components = RewardPreset.load().score(case, Reply(activity=case.reference))
    assert components._asdict()["yielding"] == 1  # type: ignore[attr-defined]
    assert components._asdict()["recovery"] == 1  # type: ignore[attr-defined]


def test_the_snippet_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[2] / "align" / "README.md").read_text(encoding="utf-8")
    (snippet,) = (
        text for text in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL) if "RewardPreset" in text
    )
    exec(compile(snippet, "README.md", "exec"), {})
    assert "TurnReward(response_timing=" in capsys.readouterr().out
