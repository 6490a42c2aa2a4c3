"""Each set by its rule, at its borders."""

import math

import pytest

from duologue.errors import ConfigError
from duologue_align.segments.rules import MiningRules
from duologue_align.segments.segment import Axis
from duologue_align.segments.sets import Found, find_segments
from duologue_align.segments.speech import analyse
from mine_cases import AGENT, USER, Spans, activity

PAPER = MiningRules()


def _find(axis: Axis, user: Spans, agent: Spans, rules: MiningRules = PAPER) -> list[Found]:
    return [found for found in find_segments(analyse(activity(user, agent)), rules) if found.axis == axis]


def _windows(found: list[Found]) -> list[tuple[float, float]]:
    return [(segment.start_s, segment.end_s) for segment in found]


def test_pause_needs_length_a_pause_and_a_silent_agent() -> None:
    spoken = [(2.0, 4.0), (4.3, 6.0)]
    (found,) = _find("pause", spoken, [])
    assert (found.start_s, found.end_s) == (2.0, 6.0)
    assert [(e.kind, e.side, e.start_s, e.end_s) for e in found.events] == [
        ("utterance", "user", 2.0, 6.0),
        ("pause", "user", 4.0, 4.3),
    ]
    assert not _find("pause", [(2.0, 4.0), (4.3, 5.99)], [])
    assert not _find("pause", [(2.0, 6.0)], [])
    assert not _find("pause", [(2.0, 4.0), (4.2, 6.0)], []), "0.2 s is bridged, it is no pause"
    assert not _find("pause", spoken, [(4.05, 4.3)]), "the agent speaks in the pause"
    assert not _find("pause", spoken, [(1.0, 2.1)]), "the agent is still speaking"
    assert _find("pause", spoken, [(1.0, 2.0), (6.0, 9.0)]), "touching is not speaking"
    assert _find("pause", [(2.0, 4.0), (5.0, 6.0)], []), "a pause lasts up to 1.0 s"
    assert not _find("pause", [(2.0, 4.0), (5.01, 9.0)], []), "after a longer silence it is another utterance"


@pytest.mark.parametrize(("gap_s", "is_found"), [(0.4, True), (0.41, False), (-1.0, True), (-1.01, False)])
def test_turn_gap(gap_s: float, is_found: bool) -> None:
    found = _find("turn", [(1.0, 6.0)], [(round(6.0 + gap_s, 2), 12.0)])
    assert bool(found) is is_found
    for segment in found:
        assert (segment.start_s, segment.end_s) == (1.0, 12.0)
        assert segment.events[-1].kind == "floor_transfer"
        assert segment.events[-1].value_s == gap_s


def test_turn_in_the_papers_letter_has_no_lower_bound() -> None:
    letter = MiningRules(turn_gap_min_s=-math.inf)
    assert _find("turn", [(1.0, 9.0)], [(3.0, 12.0)], letter)
    assert not _find("turn", [(1.0, 9.0)], [(3.0, 12.0)])


def test_turn_needs_two_long_consecutive_utterances() -> None:
    assert not _find("turn", [(1.0, 5.99)], [(6.0, 12.0)])
    assert not _find("turn", [(1.0, 6.0)], [(6.2, 11.19)])
    assert not _find("turn", [(6.2, 12.0)], [(1.0, 6.0)]), "the agent speaks first"
    between = [(3.0, 3.5), (6.2, 12.0)]
    assert not _find("turn", [(1.0, 6.0)], between), "a backchannel of the agent is an utterance"
    assert _find("turn", [(1.0, 6.0)], between, MiningRules(skip_backchannels=True))


def test_backchannel_needs_short_speech_only() -> None:
    (found,) = _find("backchannel", [(1.0, 7.0)], [(2.0, 2.4), (5.0, 6.0)])
    assert [(e.kind, e.side, e.start_s) for e in found.events] == [
        ("utterance", "user", 1.0),
        ("backchannel", "agent", 2.0),
        ("backchannel", "agent", 5.0),
    ]
    assert _windows([found]) == [(1.0, 7.0)]
    assert not _find("backchannel", [(1.0, 7.0)], [(2.0, 2.4), (5.0, 6.01)])
    assert not _find("backchannel", [(1.0, 5.99)], [(2.0, 2.4)])
    assert not _find("backchannel", [(1.0, 7.0)], [])
    assert not _find("backchannel", [(1.0, 7.0)], [(0.5, 1.2)]), "it began before the utterance"
    assert not _find("backchannel", [(1.0, 7.0)], [(2.0, 2.14)]), "a click"
    (beside,) = _find("backchannel", [(1.0, 7.0)], [(2.0, 2.14), (4.0, 4.4)])
    assert [event.start_s for event in beside.events if event.kind == "backchannel"] == [4.0]


def test_interruption_is_four_utterances_of_which_the_third_begins_early() -> None:
    user, agent = [(1.0, 4.0), (8.0, 12.0)], [(4.2, 9.0), (12.3, 15.3)]
    (found,) = _find("interruption", user, agent)
    assert _windows([found]) == [(1.0, 15.3)]
    kinds = [event.kind for event in found.events]
    assert kinds[:4] == ["utterance"] * 4
    assert kinds[4:] == ["interruption", "agent_yielded", "agent_responded"]
    (stopped,) = [event for event in found.events if event.kind == "agent_yielded"]
    assert stopped.value_s == 1.0
    assert not _find("interruption", [(1.0, 4.0), (9.0, 12.0)], agent), "it begins when the other has ended"
    assert not _find("interruption", [(1.0, 3.99), (8.0, 12.0)], agent)
    assert not _find("interruption", user, [(4.2, 9.0), (12.3, 15.29)])


def test_user_backchannel_begins_with_the_turn_that_was_answered() -> None:
    (found,) = _find("user_backchannel", [(1.0, 4.0), (7.0, 7.5)], [(4.3, 10.0)])
    assert _windows([found]) == [(1.0, 10.0)]
    assert [(e.kind, e.side) for e in found.events] == [
        ("utterance", "user"),
        ("utterance", "agent"),
        ("backchannel", "user"),
    ]
    (late,) = _find("user_backchannel", [(1.0, 4.0), (9.0, 9.5)], [(6.01, 12.0)])
    assert _windows([late]) == [(6.01, 12.0)], "after more than 2 s it is no answer"
    assert not _find("user_backchannel", [(1.0, 4.0), (7.0, 8.2)], [(4.3, 10.0)]), "an interruption"
    assert not _find("user_backchannel", [(1.0, 5.31), (7.0, 7.5)], [(4.3, 10.0)]), "it talks over the user"
    assert _find("user_backchannel", [(1.0, 5.3), (7.0, 7.5)], [(4.3, 10.0)])


def test_hold_needs_a_pause_of_the_agent_and_a_silent_user() -> None:
    (found,) = _find("hold", [(1.0, 4.0)], [(4.3, 7.0), (7.5, 10.0)])
    assert _windows([found]) == [(1.0, 10.0)]
    assert [(e.kind, e.side, e.start_s) for e in found.events][1:] == [
        ("utterance", "agent", 4.3),
        ("pause", "agent", 7.0),
    ]
    assert not _find("hold", [(1.0, 4.0)], [(4.3, 10.0)])
    assert not _find("hold", [(1.0, 4.0), (7.1, 7.3)], [(4.3, 7.0), (7.5, 10.0)])


def test_swapping_the_roles_mirrors_pause_and_hold() -> None:
    rules = MiningRules(hold_min_s=4.0)
    given, swapped = activity(USER, AGENT), activity(USER, AGENT).swapped()
    pauses = [s for s in find_segments(analyse(swapped), rules) if s.axis == "pause"]
    holds = [s for s in find_segments(analyse(given), rules) if s.axis == "hold"]
    assert [s.events[0].start_s for s in pauses] == [s.events[-2].start_s for s in holds] == [30.0]


def test_longest_window() -> None:
    assert _find("turn", [(1.0, 6.0)], [(6.2, 12.0)], MiningRules(longest_s=11.0))
    assert not _find("turn", [(1.0, 6.0)], [(6.2, 12.0)], MiningRules(longest_s=10.9))


def test_the_preset_is_the_defaults_and_can_be_changed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert MiningRules.load() == PAPER
    assert MiningRules.load(None, ["turn_min_s=2", "mining.detector=level"]) == MiningRules(
        turn_min_s=2.0, detector="level"
    )
    path = tmp_path / "rules.toml"
    path.write_text("[mining]\nhold_min_s = 3\nturn_gap_min_s = -inf\n")
    assert MiningRules.load(path) == MiningRules(hold_min_s=3.0, turn_gap_min_s=-math.inf)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("turn_mins=1", "unknown key 'turn_mins'"),
        ("mines.turn_min_s=1", r"unknown table \[mines\]"),
        ("turn_min_s=-1", "give 0 or more"),
        ("turn_min_s=nan", "not a number"),
        ("turn_gap_min_s=2.0", "no turn could qualify"),
        ("backchannel_least_s=1.5", "nothing could be a backchannel"),
        ("detector=ears", "use speech or level"),
        ("test_share=0.95", "more than 1 together"),
        ("both_roles=1", "must be a bool"),
        ("context_s=inf", "finite"),
    ],
)
def test_rules_refuse(change: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        MiningRules.load(None, [change])
