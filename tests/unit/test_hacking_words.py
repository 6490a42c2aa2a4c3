"""Words of the scripted agents: what each says, and what a judge and the penalty for babble make of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from duologue_align.hacking.cases import draw_cases
from duologue_align.hacking.comparison import score_policies
from duologue_align.hacking.scripted import script_conversations
from duologue_align.hacking.verdict import judge_policies
from duologue_align.hacking.words import Script
from duologue_align.judge.judge import Answer
from duologue_align.judge.labelled import labelled_answers
from duologue_align.policies import POLICIES
from duologue_align.rewards import Reply, RewardPreset, Situation

LABELLED = labelled_answers()
GOOD = {(item.answer.user, item.answer.reply) for item in LABELLED if item.label == "good"}


class Knows:
    """A judge that knows the good replies by heart and is asked about nothing twice."""

    def __init__(self) -> None:
        self.asked: set[Answer] = set()

    def score(self, answers: Sequence[Answer]) -> list[float]:
        assert not self.asked & set(answers)
        self.asked |= set(answers)
        return [2.0 if (answer.user, answer.reply) in GOOD else 0.2 for answer in answers]


def turn() -> Situation:
    return Situation.from_spans(
        axis="turn", duration_s=30.0, user_spans_s=[(0.0, 10.0)], reference_spans_s=[(10.3, 29.0)], focus_s=(0.0, 10.0)
    )


def spoken(policy: str, number: int = 3) -> Reply:
    reply = POLICIES[policy](turn(), np.random.default_rng(0))
    return Script(Knows()).speak(policy, turn(), reply, number)


@pytest.mark.parametrize(
    ("policy", "label", "is_penalised"),
    [
        ("human-like", "good", False),
        ("endpointer 0.5 s", "off_topic", False),
        ("always talking", "off_topic", False),
        ("babble", "garbled", True),
    ],
)
def test_talkers_say_their_kind_of_words_at_the_speed_of_people(policy: str, label: str, is_penalised: bool) -> None:
    users = list(dict.fromkeys(item.answer.user for item in LABELLED))
    said = next(item.answer.reply for item in LABELLED if item.answer.user == users[3] and item.label == label)
    reply = spoken(policy)
    assert reply.text is not None
    assert reply.text.startswith(said)
    assert len(reply.text.split()) == pytest.approx(3 * reply.activity.sum() / 100, rel=0.15)
    assert reply.judge_score == (2.0 if label == "good" else 0.2)
    components = RewardPreset.load("duologue").score(turn(), reply)._asdict()  # type: ignore[attr-defined]
    assert (components["babble"] < 0) == is_penalised


def test_the_others_say_little() -> None:
    assert spoken("silent").text == ""
    assert spoken("two mm-hm").text == "mm-hm mm-hm"
    assert spoken("filler then stop").text == "well, um"
    user = list(dict.fromkeys(item.answer.user for item in LABELLED))[3]
    echoed = spoken("echo").text
    assert echoed is not None
    assert echoed.startswith(user)


def test_with_a_judge_the_human_still_wins_and_every_policy_is_scored() -> None:
    cases = draw_cases(script_conversations(400), 8)
    scores = score_policies(RewardPreset.load("duologue"), cases, POLICIES, Script(Knows()))
    for axis, by_policy in scores.components.items():
        names = list(scores.preset.axes[axis].weights)  # type: ignore[index]
        for policy, rows in by_policy.items():
            found = dict(zip(names, np.array(rows).T, strict=True))
            assert not np.isnan(found["babble"]).any(), (policy, axis)
            if "response_quality" in found:
                assert not np.isnan(found["response_quality"]).any()
                assert found["response_quality"].mean() == pytest.approx(0.1) or policy.startswith("human")
    assert judge_policies(scores).wins == []
