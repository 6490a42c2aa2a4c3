"""Rewards of rollouts with a judge: who is asked what, and what becomes of the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from duologue.errors import ConfigError
from duologue.metrics.types import Event
from duologue_align.corpus.conversation import Channel, Line
from duologue_align.judge.judge import Answer
from duologue_align.rewards import RewardPreset
from duologue_align.rl.grading import JUDGED, Grader
from duologue_align.rl.listener import Heard
from duologue_align.rl.settings import RewardSettings
from duologue_align.segments.segment import Segment


class Judge:
    """Likes replies that say where, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Answer] = []

    def score(self, answers: Sequence[Answer]) -> list[float]:
        self.asked += answers
        return [2.0 if "there" in answer.reply else 0.5 for answer in answers]


def segment(axis: Any = "turn") -> Segment:
    place = Channel(path=Path("none.wav"))
    utterance = Event(kind="utterance", side="user", start_s=10.0, end_s=13.0)
    return Segment(
        id="s", axis=axis, split="train", conversation="c", is_swapped=False, start_s=10.0, end_s=18.0,
        user=place, agent=place, user_spans=((10.0, 13.0),), agent_spans=((13.3, 17.9),), events=(utterance,),
        lines=(Line("user", 10.0, 13.0, "where is it"), Line("agent", 13.3, 17.9, "over there")),
    )  # fmt: skip


def heard(*words: tuple[float, str]) -> Heard:
    activity = np.zeros(800, dtype=bool)
    activity[340:760] = True
    return Heard(activity=activity, words=words, pcm=np.zeros(0, dtype=np.float32))


def test_the_judge_reads_the_users_words_and_the_answer() -> None:
    judge = Judge()
    grader = Grader(RewardPreset.load("duologue"), RewardSettings(judge="x"), judge)  # type: ignore[arg-type]
    group = [heard((0.5, " early"), (3.5, word), (4.0, " it"), (4.2, " is")) for word in (" there", " water")]
    good, bad = grader.grade(segment(), group)
    assert judge.asked == [Answer("where is it", "there it is"), Answer("where is it", "water it is")]
    assert good.components[JUDGED] > bad.components[JUDGED]
    assert good.total > bad.total
    assert good.rules == bad.rules, "the rules do not see the judge"
    apart = grader.advantages([good, bad])
    assert apart.tolist() == pytest.approx([1.0, -1.0])
    assert Grader(RewardPreset.load("duologue"), RewardSettings()).grade(segment(), group)[0].total == good.rules


def test_a_judge_is_asked_where_the_preset_wants_one() -> None:
    judge = Judge()
    grader = Grader(RewardPreset.load("duologue"), RewardSettings(judge="x"), judge)  # type: ignore[arg-type]
    (graded,) = grader.grade(segment("pause"), [heard((3.5, " yes"))])
    assert not judge.asked
    assert JUDGED not in graded.components
    silent = replace(segment(), lines=())
    (graded,) = grader.grade(silent, [heard((3.5, " yes"))])
    assert not judge.asked
    assert math.isnan(graded.components[JUDGED])
    with pytest.raises(ConfigError, match="names a judge"):
        Grader(RewardPreset.load("duologue"), RewardSettings(judge="x"))
