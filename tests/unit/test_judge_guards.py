"""Guards find what is bad whatever a model thinks, and leave natural replies alone."""

from __future__ import annotations

import pytest

from duologue.errors import ConfigError
from duologue_align.judge.guards import Guards, echo_share, loop_share, words_of
from duologue_align.judge.judge import Answer
from duologue_align.judge.labelled import labelled_answers

USER = "I quit my job yesterday and I don't know what to do now."


@pytest.mark.parametrize("reply", ["", "  ", "...", "[silence]", "(noise) <unk>", "Um, uh...", "Mm-hm.", "Oh."])
def test_nothing_is_empty(reply: str) -> None:
    assert Guards().find(Answer(USER, reply)) == "empty"


@pytest.mark.parametrize(
    "reply",
    [
        USER,
        "i quit my job yesterday",
        "You quit your job yesterday and you don't know what to do now.",
        "so I quit my job yesterday and I don't know what to do now",
    ],
)
def test_the_users_words_are_an_echo(reply: str) -> None:
    assert Guards().find(Answer(USER, reply)) == "echo"


@pytest.mark.parametrize(
    ("reply", "finding"),
    [
        ("yeah yeah yeah yeah", "repetition"),
        ("I think so I think so I think so", "repetition"),
        ("the cat the cat the cat was the cat the cat", "repetition"),
        ("Blorf snigget wub fantle dree.", "gibberish"),
        ("asdf jkl qwer zxcv", "gibberish"),
    ],
)
def test_loops_and_no_language_are_found(reply: str, finding: str) -> None:
    assert Guards().find(Answer(USER, reply)) == finding


@pytest.mark.parametrize(
    "reply",
    [
        "Wow.",
        "Yeah.",
        "No, no, no, don't worry about it!",
        "Your job?",
        "Really? What happened at work?",
        "That takes courage, and I know it's scary, but you'll figure out what to do.",
        "Pistachio gelato.",
        "I know, I know, it's hard.",
    ],
)
def test_natural_replies_pass(reply: str) -> None:
    assert Guards().find(Answer(USER, reply)) is None


def test_no_good_labelled_reply_is_taken_and_all_echoes_and_empty_ones_are() -> None:
    found: dict[str, list[str | None]] = {}
    for item in labelled_answers():
        found.setdefault(item.label, []).append(Guards().find(item.answer))
    assert set(found["good"]) == {None} == set(found["off_topic"])
    assert set(found["echo"]) == {"echo"}
    assert set(found["empty"]) == {"empty"}
    assert {"repetition", "gibberish"} <= set(found["garbled"])


def test_shares() -> None:
    assert words_of("Don’t [noise] YOU, re-think 5 things?") == ["don't", "you", "re", "think", "5", "things"]
    assert echo_share(["a", "b", "c"], ["a", "x", "c", "y"]) == 0.5
    assert echo_share(["a"], []) == 0.0
    assert loop_share(["a", "a", "a", "a"]) == 1.0
    assert loop_share(["a", "b", "a", "b", "a", "b", "c", "d"]) == pytest.approx(6 / 8)
    assert loop_share(["one", "two", "three", "four", "five"]) == 0.0


def test_guards_switch_off() -> None:
    off = Guards(empty=False, echo=1.1, repetition=1.1, known_words=0.0)
    for reply in ("", USER, "yeah yeah yeah yeah", "asdf jkl qwer zxcv"):
        assert off.find(Answer(USER, reply)) is None


@pytest.mark.parametrize("setting", [{"echo": 0.0}, {"repetition": -1.0}, {"known_words": 1.5}])
def test_senseless_thresholds_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Guards(**setting)  # type: ignore[arg-type]
