"""Every reward component on situations small enough to work out by hand; times in seconds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from duologue.errors import ConfigError
from duologue_align.rewards import COMPONENTS, Reply, Situation, component
from duologue_align.rewards.exchange import Exchange
from duologue_align.rewards.matching import f1_score
from duologue_align.rewards.plausibility import fto_plausibility, placement_plausibility
from duologue_align.rewards.situation import Seconds, bridged_spans, frames_to_ticks, spans_to_activity
from duologue_align.segments.segment import Axis

TURN_S = (0.0, 6.0)


def situation(
    axis: Axis = "turn",
    *,
    duration_s: float = 14.0,
    user: list[Seconds] | None = None,
    reference: list[Seconds] | None = None,
    focus: Seconds = TURN_S,
) -> Situation:
    return Situation.from_spans(
        axis=axis,
        duration_s=duration_s,
        user_spans_s=[TURN_S] if user is None else user,
        reference_spans_s=[(6.2, 14.0)] if reference is None else reference,
        focus_s=focus,
    )


def earned(name: str, case: Situation, agent: list[Seconds], *, text: str | None = None, **options: Any) -> float:
    reply = Reply(activity=spans_to_activity(agent, case.ticks), text=text)
    found = COMPONENTS[name]
    return found.rule(Exchange(case, reply), found.options(**options))


@pytest.mark.parametrize(
    ("onset_s", "least", "most"),
    [
        (6.2, 1, 1),
        (5.7, 1, 1),
        (6.6, 1, 1),
        (5.4, 0.2, 0.9),
        (5.05, 0, 0.12),
        (4.5, 0, 0),
        (7.0, 0.2, 0.6),
        (8.5, 0, 0),
    ],
)
def test_response_timing_has_two_sides(onset_s: float, least: float, most: float) -> None:
    assert least <= earned("response_timing", situation(), [(onset_s, 13.0)]) <= most


def test_response_timing_wants_an_answer() -> None:
    assert earned("response_timing", situation(), []) == 0
    assert earned("response_timing", situation(), [(6.2, 7.1)]) == 0


def test_an_utterance_that_began_under_the_turn_is_no_answer_when_it_goes_on_after_it() -> None:
    choppy = [(3.0, 5.5), (6.2, 9.0)]
    assert earned("response_timing", situation(), choppy) == 0
    assert earned("continuity", situation(), choppy) == 0


def test_continuity_is_the_share_of_four_seconds() -> None:
    assert earned("continuity", situation(), [(6.2, 7.3)]) == pytest.approx(1.1 / 4)
    assert earned("continuity", situation(), [(6.2, 7.0), (7.5, 10.2)]) == 1


def test_continuity_asks_no_more_than_the_users_next_turn_leaves() -> None:
    case = situation(user=[TURN_S, (8.2, 12.0)])
    assert earned("continuity", case, [(6.2, 8.2)]) == 1


@pytest.mark.parametrize(
    ("agent", "credit"),
    [
        ([], 1.0),
        ([(2.0, 2.9)], 1.0),  # a backchannel
        ([(2.0, 3.2)], 0.4),
        ([(1.0, 4.0)], 0.0),
        ([(0.0, 14.0)], 0.0),
        ([(5.1, 14.0)], 1.0),  # an answer may begin in the turn's last second
    ],
)
def test_floor_respect(agent: list[Seconds], credit: float) -> None:
    assert earned("floor_respect", situation(), agent) == pytest.approx(credit)


def test_floor_respect_does_not_count_speech_that_the_user_interrupts() -> None:
    case = situation(user=[(0.0, 3.0), (6.0, 10.0)], focus=(6.0, 10.0))
    assert earned("floor_respect", case, [(3.2, 9.0)]) == 1
    assert earned("floor_respect", case, [(6.5, 8.5)]) == 0


@pytest.mark.parametrize(("stop_s", "credit"), [(6.3, 1.0), (6.8, 1.0), (7.4, 0.5), (9.5, 0.0)])
def test_yielding_is_stop_latency(stop_s: float, credit: float) -> None:
    case = situation("interruption", user=[(0.0, 3.0), (6.0, 10.0)], focus=(6.0, 10.0))
    assert earned("yielding", case, [(3.2, stop_s), (11.2, 14.0)]) == pytest.approx(credit, abs=0.01)


def test_an_interruption_pays_only_who_was_speaking() -> None:
    case = situation("interruption", user=[(0.0, 3.0), (6.0, 10.0)], focus=(6.0, 10.0))
    assert earned("yielding", case, [(10.2, 14.0)]) == 0
    assert earned("recovery", case, [(10.2, 14.0)]) == 0
    assert earned("recovery", case, [(3.2, 6.5), (10.2, 14.0)]) == 1
    assert earned("recovery", case, [(3.2, 14.0)]) == 0


def test_continuation_through_a_users_backchannel() -> None:
    case = situation("user_backchannel", user=[TURN_S, (9.0, 9.4)], focus=(6.2, 14.0))
    assert earned("continuation", case, [(6.2, 14.0)]) == 1
    assert earned("continuation", case, [(6.2, 11.0)]) == pytest.approx(0.5)
    assert earned("continuation", case, [(6.2, 9.3)]) == 0
    assert earned("continuation", case, [(9.5, 14.0)]) == 0
    assert math.isnan(earned("continuation", situation("hold", focus=(6.2, 14.0)), [(6.2, 14.0)]))


def test_holding_is_the_share_of_the_recorded_turn() -> None:
    case = situation("hold", focus=(6.0, 14.0))
    assert earned("holding", case, [(6.0, 9.0), (9.9, 14.0)]) == 1
    assert earned("holding", case, [(6.0, 9.2)]) == pytest.approx(0.5)


def test_silence_and_monologue_punish_the_longest() -> None:
    assert earned("silence", situation(), []) == -1
    assert earned("silence", situation(), [(6.2, 14.0)]) == 0
    assert earned("silence", situation(), [(9.5, 14.0)]) == pytest.approx(-0.5)
    assert earned("monologue", situation(), [(1.7, 14.0)]) == pytest.approx(-0.5)
    assert earned("monologue", situation(), [(1.7, 7.0), (7.3, 14.0)]) == 0


def test_backchannels() -> None:
    case = situation("backchannel", duration_s=8.0, user=[(0, 3.0), (3.4, 8.0)], reference=[(3.1, 3.5)], focus=(0, 8.0))
    good, late, lengthy = [(3.1, 3.5)], [(5.2, 5.6)], [(3.1, 4.6)]
    assert [earned("backchannel_match", case, agent) for agent in (good, late, [])] == [1, 0, 0]
    assert earned("backchannel_match", case, lengthy) == 0
    assert earned("backchannel_placement", case, good) == 1
    assert earned("backchannel_placement", case, []) == 0
    many = [(tick + 0.5, tick + 0.6) for tick in (0.0, 1.5, 3.0, 4.5)]
    assert [earned("backchannel_rate", case, agent) for agent in ([], good, many)] == [0, 1, 0.5]
    assert earned("backchannel_rate", case, [], least=0) == 1
    assert [earned("backchannel_restraint", case, agent) for agent in ([], good, many)] == [1, 1, 0.25]
    nobody = situation("pause", duration_s=8.0, user=[(0, 3.0), (3.4, 8.0)], reference=[], focus=(0, 8.0))
    assert [earned("backchannel_restraint", nobody, agent) for agent in ([], good)] == [1, 0]


def test_babble_reads_the_words() -> None:
    plain = "i think we should take the early train because the later one is always full of people"
    agent = [(6.2, 10.4)]
    assert earned("babble", situation(), agent, text=plain) == 0
    assert earned("babble", situation(), agent, text="") == -1
    assert earned("babble", situation(), agent, text="ba " * 17) < -0.8
    assert earned("babble", situation(), agent, text="word " * 90) == -1
    assert math.isnan(earned("babble", situation(), agent))


def test_the_papers_rules_and_their_holes() -> None:
    case = situation()
    assert earned("paper_pause", case, [(2.0, 3.0)]) == 0
    assert earned("paper_pause", case, [(2.0, 3.1)]) == -1
    assert earned("paper_turn_delay", case, [(6.4, 9.0)]) == pytest.approx(-0.4)
    assert earned("paper_turn_delay", case, [(6.4, 7.3)]) == pytest.approx(-8.0)
    assert earned("paper_turn_delay", case, [(0.0, 14.0)]) == pytest.approx(6.0)
    assert earned("paper_turn_delay", case, [(0.0, 14.0)], clamp_early=True) == 0
    assert earned("paper_interruption_delay", case, [(1.0, 14.0)]) == 0
    assert earned("paper_interruption_delay", case, [(6.3, 14.0)]) == pytest.approx(-0.3)
    assert earned("paper_interruption_delay", case, []) == pytest.approx(-8.0)


def test_the_papers_f1_matches_one_to_one_and_counts_takeovers() -> None:
    case = situation("backchannel", reference=[(2.0, 2.4), (4.0, 4.4)])
    assert earned("paper_backchannel_f1", case, [(2.9, 3.3)]) == pytest.approx(2 / 3)
    assert earned("paper_backchannel_f1", case, [(2.0, 2.4), (4.0, 5.5)]) == pytest.approx(0.5)
    assert earned("paper_backchannel_f1", situation("backchannel", reference=[]), []) == 1


def test_matching_is_the_largest_one_to_one() -> None:
    import numpy as np

    assert f1_score(np.array([1.0, 2.0]), np.array([0.1, 1.5]), 1.0) == 1
    assert f1_score(np.array([1.0, 1.2, 1.4]), np.array([1.1]), 1.0) == pytest.approx(0.5)


def test_plausibility_falls_on_both_sides() -> None:
    offsets = [-3.0, -0.9, -0.5, 0.1, 0.8, 1.5, 9.0]
    values = [fto_plausibility(offset, 0.8) for offset in offsets]
    assert values[0] == values[-1] == 0
    assert values[3] == 1
    assert values[:4] == sorted(values[:4])
    assert values[3:] == sorted(values[3:], reverse=True)
    assert placement_plausibility(0.1, 0.8) == 1
    assert placement_plausibility(1.9, 0.8) == 0


def test_spans_and_frames_on_the_grid() -> None:
    activity = spans_to_activity([(0.1, 0.3), (0.35, 0.5)], 60)
    assert bridged_spans(activity, 0) == [(10, 30), (35, 50)]
    assert bridged_spans(activity, 5) == [(10, 50)]
    assert bridged_spans(activity, 4) == [(10, 30), (35, 50)]
    assert bridged_spans(spans_to_activity([], 10), 0) == []
    frames = spans_to_activity([(0.0, 0.02)], 3)
    assert frames_to_ticks(frames, 30).tolist() == [True] * 16 + [False] * 14


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="focus"):
        situation(focus=(6.0, 6.0))
    with pytest.raises(ConfigError, match="axis"):
        situation("nonsense")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pad the agent"):
        Exchange(situation(), Reply(activity=spans_to_activity([], 10)))


def test_a_component_is_registered_once_and_with_options() -> None:
    with pytest.raises(ConfigError, match="registered already"):
        component(COMPONENTS["yielding"].rule)

    def careless(exchange: Exchange) -> float:
        return 0.0

    with pytest.raises(ConfigError, match="a dataclass"):
        component(careless)
