"""The settings of alignment, the draw of segments, and what a wrong file is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("torch")

import rl_case
from duologue.config import Sampling
from duologue.errors import ConfigError
from duologue.metrics.types import Event
from duologue_align.rewards import RewardPreset
from duologue_align.rl.grading import Graded, Grader
from duologue_align.rl.sampler import Sampler, is_usable
from duologue_align.rl.settings import PRESETS, AlignSettings, DataSettings, RewardSettings, changed_fields
from lm_cases import MOSHI_LIKE


def test_the_presets_load_and_the_paper_is_the_paper() -> None:
    paper = AlignSettings.load("paper")
    assert set(PRESETS) == {"duologue", "paper"}
    assert (paper.run.completions, paper.run.groups, paper.optimiser.learning_rate) == (16, 32, 2e-7)
    assert (paper.objective.clip_low, paper.objective.clip_high, paper.objective.kl) == (0.2, 0.2, 0.01)
    assert (paper.adapter.rank, paper.optimiser.passes, paper.data.silence_s) == (0, 16, 3.0)
    assert AlignSettings.load("duologue").reward.preset == "duologue"


def test_changes_and_their_names() -> None:
    settings = AlignSettings.load("duologue", ["run.steps=7", "model=a/b", "data.segments=mined"])
    assert (settings.run.steps, settings.model, settings.data.segments) == (7, "a/b", "mined")
    before = json.loads(json.dumps(AlignSettings.load("duologue").to_dict()))
    assert changed_fields(before, settings.to_dict()) == ["model", "data.segments", "run.steps"]


def test_rollouts_are_drawn_as_the_model_asks_where_nothing_else_is_said() -> None:
    own = Sampling(temperature_text=1.0, top_k_audio=100)
    assert AlignSettings.load("duologue").sampled_as(own).draws == own
    assert AlignSettings.load("duologue", ["sampling.temperature_text=0.5"]).sampled_as(own).draws == replace(
        own, temperature_text=0.5
    )
    assert AlignSettings.load("paper").sampled_as(own).draws == Sampling(), "the paper's own"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("objective.kl=-1", "objective.kl is -1"),
        ("reward.normalise=mean", "use judge or components or total"),
        ("adapter.depth=true", "objective.audio"),
        ("run.completions=7", "divide by optimiser.passes"),
        ("sampling.temperature_text=0", "greedy"),
        ("reward.axis_shares={paus = 1}", "'paus'"),
        ("reward.axis_weights={pause = -1}", "0 or more"),
        ("run.groop=1", "groop"),
    ],
)
def test_what_a_wrong_setting_is_told(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AlignSettings.load("duologue", [change])


def test_axes_without_a_share_are_left_out() -> None:
    preset = RewardPreset.load("paper")
    grader = Grader(preset, RewardSettings(axis_shares={"pause": 0, "turn": 3.0}))
    assert grader.axes == {"turn": 3.0, "backchannel": 1.0, "interruption": 1.0}
    with pytest.raises(ConfigError, match="leaves no axis"):
        _ = Grader(preset, RewardSettings(axis_shares=dict.fromkeys(preset.axes, 0))).axes


def test_the_judge_has_an_advantage_of_its_own() -> None:
    preset = RewardPreset.load("paper")
    group = [
        Graded(
            axis="turn",
            components={"paper_turn_delay": delay, "response_quality": mark},
            total=delay + mark,
            rules=delay,
        )
        for delay, mark in ((-1.0, 0.0), (-2.0, 1.0), (-9.0, 0.5))
    ]
    found = {
        name: Grader(preset, RewardSettings(normalise=name, axis_weights={"turn": 2.0})).advantages(group)
        for name in ("judge", "components", "total")
    }
    delays, marks = [3.0, 2.0, -5.0], [-0.5, 0.5, 0.0]
    z = [
        2.0 * (d / (sum(x * x for x in delays) / 3) ** 0.5 + m / (sum(x * x for x in marks) / 3) ** 0.5)
        for d, m in zip(delays, marks, strict=True)
    ]
    assert found["judge"].tolist() == pytest.approx(z)
    assert found["components"].tolist() == pytest.approx(z)
    assert found["total"].tolist() != pytest.approx(z, abs=0.1)


def test_groups_depend_on_the_seed_and_their_place_alone() -> None:
    segments = [replace(rl_case.scene(MOSHI_LIKE, frames=9, window=9, seed=i).segment) for i in range(20)]
    pool = {"turn": segments[:15], "pause": segments[15:]}
    data = DataSettings(context_s=8.0)
    sampler = Sampler(pool, {"turn": 1.0, "pause": 3.0}, data, steps=10, seed=4)  # type: ignore[arg-type]
    other = Sampler(pool, {"turn": 1.0, "pause": 3.0}, data, steps=10, seed=4)  # type: ignore[arg-type]
    groups = [sampler.group(step, place) for step in range(10) for place in range(20)]
    assert other.group(7, 3) == sampler.group(7, 3)
    paused = sum(group.segment in segments[15:] for group in groups)
    assert 120 < paused < 180
    assert len({group.seed for group in groups}) == 200
    assert all(group.context_frames == 0 for group in groups), "the codes begin with the window"


def test_interruptions_that_nobody_yielded_to_teach_nothing() -> None:
    plain = rl_case.scene(MOSHI_LIKE, frames=9, window=9, axis="interruption").segment
    kinds = ("agent_yielded", "agent_responded")
    good = replace(plain, events=tuple(Event(kind=kind, side="agent", start_s=0.1, end_s=0.2) for kind in kinds))
    assert is_usable(good, DataSettings())
    assert not is_usable(plain, DataSettings())
    assert is_usable(plain, DataSettings(answered_interruptions=False))
    assert not is_usable(good, DataSettings(longest_s=0.5))
