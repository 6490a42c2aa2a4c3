"""Agreement: areas under the curve by hand, intervals, guards counted apart, the labelled set and files like it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from duologue.errors import ConfigError
from duologue_align.judge.agreement import area_under_curve, measure
from duologue_align.judge.judge import Answer
from duologue_align.judge.labelled import LABELS, LabelledAnswer, labelled_answers
from duologue_align.judge.panel import JudgePanel, Seat
from judge_cases import LengthJudge


def panel() -> JudgePanel:
    return JudgePanel({"length": (Seat(mean=40.0, deviation=20.0), LengthJudge())})


def test_the_area_by_hand() -> None:
    assert area_under_curve([3, 2], [1, 2]) == 0.875
    assert area_under_curve([1], [2]) == 0.0
    assert area_under_curve([1], []) is None


def test_the_labelled_set_is_what_it_says() -> None:
    items = labelled_answers()
    counts = Counter(item.label for item in items)
    assert 150 <= len(items) <= 200
    assert set(counts) == set(LABELS)
    assert min(counts.values()) >= 20
    assert len({item.answer.user for item in items}) == counts["good"] >= 40
    assert (
        len({item.answer.reply for item in items if item.label in ("good", "off_topic", "garbled")})
        == 3 * counts["good"]
    )


def test_a_judge_that_knows_nothing_is_at_chance_and_guards_are_counted_apart() -> None:
    agreement = measure("length", panel(), labelled_answers(), draws=200)
    off_topic = agreement.by_contrast["off_topic"]
    assert off_topic.low is not None
    assert off_topic.high is not None
    assert off_topic.low < 0.75
    assert agreement.by_contrast["echo"].value == agreement.by_contrast["empty"].value == 1.0
    assert agreement.by_contrast_unguarded["echo"].value != 1.0
    assert agreement.guarded_good == 0.0
    assert agreement.is_licensed
    assert agreement.is_local
    parts = [agreement.by_contrast[label].value for label in LABELS[1:]]
    assert agreement.figure == pytest.approx(sum(value for value in parts if value is not None) / 4)
    assert json.loads(json.dumps(agreement.to_dict()))["judges"][0]["can"] == ["similarity"]


def test_a_judge_that_knows_all_is_perfect() -> None:
    items = [
        LabelledAnswer(answer=Answer(f"What is {n}?", reply), label=label)  # type: ignore[arg-type]
        for n in range(8)
        for label, reply in (("good", "This is the long and right one."), ("off_topic", "Another thing."))
    ]
    agreement = measure("length", panel(), items, draws=100)
    interval = agreement.by_contrast["off_topic"]
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    assert agreement.paired == {"off_topic": 1.0, "garbled": None, "echo": None, "empty": None}
    assert agreement.by_contrast["garbled"].value is None
    assert agreement.figure == 1.0


def test_labels_of_one_kind_say_nothing() -> None:
    items = [LabelledAnswer(answer=Answer("Hello.", "Hi."), label="good")]
    with pytest.raises(ConfigError, match="both kinds"):
        measure("length", panel(), items)


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "write"), ('{"user": "a"}', "write"), ('{"user": 1, "replies": {}}', "must be text"),
     ('{"user": "a", "replies": {"nice": "b"}}', "unknown label 'nice'")],
)  # fmt: skip
def test_wrong_lines_are_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(f'{{"user": "a", "replies": {{"good": "b"}}}}\n{line}\n')
    with pytest.raises(ConfigError, match=said) as caught:
        labelled_answers(path)
    assert "labels.jsonl:2" in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read labelled answers"):
        labelled_answers(tmp_path / "none.jsonl")
