"""Judges together: standardised, weighted, penalised, guarded; settings in strict TOML."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from duologue.errors import ConfigError
from duologue_align.judge.judge import Answer, Traits, language_model_abilities, require
from duologue_align.judge.panel import BEST, PRESETS, JudgePanel, PanelSettings, Seat
from duologue_align.rewards import Reply, RewardPreset, Situation
from judge_cases import LengthJudge, completion, fake_server

USER = "We went to the lake on Sunday."


def panel_of(*seats: Seat) -> JudgePanel:
    return JudgePanel({f"judge{number}": (seat, LengthJudge()) for number, seat in enumerate(seats)})


def test_a_reply_like_the_human_ones_is_in_the_middle() -> None:
    panel = panel_of(Seat(mean=24.0, deviation=8.0))
    verdict, better = panel.judge(
        [Answer(USER, "Was the water cold then?"), Answer(USER, "Was the water cold then, by the way?")]
    )
    assert verdict.score == 1.0
    assert verdict.numbers == {"judge0": 24.0}
    assert better.score == pytest.approx(2 / (1 + math.exp(-12 / 8)))


def test_weights_count_in_deviations() -> None:
    panel = panel_of(Seat(weight=3.0, mean=0.0, deviation=1.0), Seat(weight=1.0, mean=10.0, deviation=2.0))
    assert panel.combine({"judge0": 1.0, "judge1": 6.0}) == pytest.approx(2 / (1 + math.exp(-(3 - 2) / 4)))
    assert panel.combine({"judge0": 1.0, "judge1": math.nan}) == pytest.approx(2 / (1 + math.exp(-1)))
    assert math.isnan(panel.combine({"judge0": math.nan, "judge1": math.nan}))


def test_no_judge_outshouts_the_rest() -> None:
    panel = panel_of(Seat(), Seat())
    assert panel.combine({"judge0": 1e9, "judge1": -4.0}) == 1.0


def test_a_penalty_gives_no_credit() -> None:
    panel = panel_of(Seat(), Seat(weight=2.0, penalty_below=-1.0))
    assert panel.combine({"judge0": 0.0, "judge1": 3.0}) == panel.combine({"judge0": 0.0, "judge1": -1.0}) == 1.0
    assert panel.combine({"judge0": 0.0, "judge1": -2.0}) == pytest.approx(2 / (1 + math.exp(2.0)))
    assert math.isnan(panel.combine({"judge0": math.nan, "judge1": 0.0}))


def test_what_a_guard_finds_is_worth_nothing_and_shown_to_nobody() -> None:
    judge = LengthJudge()
    panel = JudgePanel({"length": (Seat(), judge)})
    replies = ["", USER, "Which lake was it?", "no no no no no"]
    verdicts = panel.judge([Answer(USER, reply) for reply in replies])
    assert [verdict.found for verdict in verdicts] == ["empty", "echo", None, "repetition"]
    assert [verdict.score for verdict in verdicts if verdict.found] == [0.0, 0.0, 0.0]
    assert judge.seen == [Answer(USER, "Which lake was it?")]
    assert panel.judge([]) == []


def test_its_score_is_what_the_reward_expects() -> None:
    situation = Situation.from_spans(
        axis="turn", duration_s=8.0, user_spans_s=[(0.0, 4.0)], reference_spans_s=[(4.2, 8.0)], focus_s=(0.0, 4.0)
    )
    score = panel_of(Seat(mean=0.0, deviation=1.0)).score([Answer(USER, "Which lake was it?")])[0]
    assert score == pytest.approx(BEST, abs=0.05)
    reply = Reply(activity=np.zeros(800, dtype=np.bool_), judge_score=score)
    components = RewardPreset.load("paper").score(situation, reply)
    assert components.response_quality == pytest.approx(score / BEST)  # type: ignore[attr-defined]
    unjudged = RewardPreset.load("paper").score(situation, Reply(activity=reply.activity, judge_score=math.nan))
    assert math.isnan(unjudged.response_quality)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_read(name: str) -> None:
    assert PanelSettings.load(name).seats


def test_the_default_hears_three_judges() -> None:
    assert list(PanelSettings.load().seats) == ["log_prob_difference", "fluency", "similarity"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no judge in it gives credit"),
        ("[fluency]\npenalty_below = 0.0", "no judge in it gives credit"),
        ("[rating]\nweigth = 1.0", "unknown key 'weigth'"),
        ("[oracle]\nweight = 1.0", "unknown key 'oracle'"),
        ("[similarity]\nweight = 0.0", "must be above 0"),
        ("[similarity]\ndeviation = 0.0", "must be above 0"),
        ("[similarity]\nweight = 'much'", "must be a float"),
        ("[guards]\necho = 0.0\n[similarity]", "echo is 0.0"),
        ("[rating.endpoint.patience]\ntries = 0", "tries at least 1"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "panel.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        PanelSettings.load(path)


def test_an_empty_panel_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one judge"):
        JudgePanel({})


def test_a_file_with_an_endpoint_and_a_cache_works(tmp_path: Path) -> None:
    with fake_server(then=completion("2")) as server:
        path = tmp_path / "panel.toml"
        path.write_text(
            f'[rating]\nmean = 1.0\ndeviation = 0.5\ncache = "{tmp_path}/scores.sqlite"\n'
            f'[rating.endpoint]\nurl = "{server.url}"\nmodel = "m-7b"\n'
            f"[rating.endpoint.scale]\nlowest = 0\nhighest = 2\n"
        )
        answers = [Answer(USER, "Which lake was it?")]
        first = JudgePanel.load(path).score(answers)
        assert first == JudgePanel.load(path).score(answers) == [pytest.approx(2 / (1 + math.exp(-2)))]
        assert len(server.requests) == 1


def test_a_judge_is_asked_only_for_what_it_can() -> None:
    small = language_model_abilities(1.35e8)
    assert small == {"log_prob_difference", "fluency"}
    assert "rating" in language_model_abilities(1.5e9)
    traits = Traits(name="small", gives="rating", can=small, batch=1, cost="compute", parameters=1.35e8)
    with pytest.raises(ConfigError, match=r"small \(0\.135 B parameters\).*fluency or log_prob_difference.*force"):
        require(traits, force=False)
    require(traits, force=True)
