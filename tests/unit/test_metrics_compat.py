"""Published definitions, their known defects included: a column that differs would not compare."""

from __future__ import annotations

import numpy as np
import pytest

from duologue.metrics import compat_fdb as fdb
from duologue.metrics.compat_tau import find_tau_events
from duologue.metrics.degenerate import always_talking, render_speech
from duologue.metrics.meter import measure
from duologue.metrics.types import CompatColumn, InteractivityReport


def columns(report: InteractivityReport) -> dict[str, CompatColumn]:
    return {f"{column.suite}/{column.name}": column for column in report.compat}


def test_takeover_rule_with_words() -> None:
    assert not fdb.takes_turn([], has_words=True)
    assert not fdb.takes_turn([(1.0, 1.2), (1.3, 1.9)], has_words=True)
    assert fdb.takes_turn([(1.0, 1.1), (1.2, 1.3), (1.4, 1.5), (1.6, 1.7)], has_words=True)
    assert fdb.takes_turn([(1.0, 2.0)], has_words=True)


def test_takeover_rule_without_words_is_the_duration_alone() -> None:
    assert not fdb.takes_turn([(1.0, 1.1), (1.2, 1.3), (1.4, 1.5), (1.6, 1.7)])
    assert fdb.takes_turn([(1.0, 2.0)])


def test_defect_two_backchannels_count_as_a_takeover() -> None:
    assert fdb.takes_turn([(1.0, 1.4), (5.0, 5.4)], has_words=True)


def test_defect_cutting_in_has_the_best_latency() -> None:
    assert fdb.latency_s([(2.0, 9.0)], 5.0) == 0.0
    assert fdb.latency_s([(5.4, 9.0)], 5.0) == pytest.approx(0.4)


def test_backchannel_rule() -> None:
    sample = fdb.backchannel_sample([(1.0, 1.4), (4.0, 4.5)], 20.0)
    assert (sample.takes_turn, len(sample.kept), sample.per_s) == (False, 2, 0.1)
    assert fdb.backchannel_sample([(1.0, 4.5), (6.0, 6.4)], 20.0).kept == ()
    four_words = [(1.0, 1.1), (1.1, 1.2), (1.2, 1.3), (1.3, 1.4)]
    assert fdb.backchannel_sample([(1.0, 1.4)], 20.0, four_words).takes_turn
    assert fdb.backchannel_sample([(1.0, 1.4)], 20.0, four_words[:3]).takes_turn
    assert not fdb.backchannel_sample([(1.0, 1.4)], 20.0, four_words[:2]).takes_turn


def test_defect_the_last_segment_overrides_a_takeover() -> None:
    assert not fdb.backchannel_sample([(1.0, 3.5), (6.0, 6.4)], 20.0).takes_turn


def test_jensen_shannon_distance_and_its_defect() -> None:
    truth = np.zeros(100)
    truth[[10, 50, 80]] = 1 / 3
    hits = [(2.05, 2.15), (10.05, 10.15), (16.05, 16.15)]
    misses = [(5.05, 5.15), (12.05, 12.15), (18.05, 18.15)]
    assert fdb.jensen_shannon_distance(hits, 20.0, truth) == pytest.approx(0.0, abs=1e-3)
    assert fdb.jensen_shannon_distance(misses, 20.0, truth) == pytest.approx(np.sqrt(np.log(2)), abs=1e-3)
    # Saying nothing is "further" from the truth than the farthest possible timing.
    assert fdb.jensen_shannon_distance([], 20.0, truth) == 1.0


def test_jensen_shannon_distance_equals_scipy() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(0)
    truth = rng.random(100)
    starts = np.sort(rng.random(8)) * 19
    counts = np.zeros(100)
    for start in starts:
        counts[int(start / 0.2) : int((start + 0.35) / 0.2) + 1] += 1
    ours = fdb.jensen_shannon_distance([(start, start + 0.35) for start in starts], 20.0, truth)
    p, q = counts + 1e-10, truth + 1e-10
    assert ours == pytest.approx(distance.jensenshannon(p / p.sum(), q / q.sum()), abs=1e-9)


def test_tau_voice_panel_on_a_scripted_conversation() -> None:
    # Ticks of 10 ms: a turn answered after 0.5 s, a backchannel ignored, an interruption yielded to after 0.8 s and
    # answered 0.3 s after its end, a turn that the user has to repeat, and one into which the agent cuts.
    user = [(100, 300), (600, 650), (900, 1100), (1500, 1700), (2200, 2400)]
    agent = [(350, 980), (1130, 1300), (2350, 2600)]
    tau = find_tau_events(user, agent, 4000)
    assert tau.response_latencies == [50, 30, 650]
    # The last turn ends under the agent's voice and is no turn then, so the one before it counts as answered late.
    assert tau.turns == 3
    assert (tau.interruptions, tau.yield_latencies) == (1, [80])
    assert (tau.backchannels, tau.kept_talking) == (1, 1)
    assert tau.agent_interruptions == 1


def test_tau_voice_counts_a_repeated_turn_as_unanswered() -> None:
    tau = find_tau_events([(100, 300), (900, 1100)], [(1150, 1300)], 2000)
    assert (tau.turns, tau.response_latencies) == (2, [50])


@pytest.mark.parametrize(("end", "is_yield"), [(1099, True), (1100, False)])
def test_tau_voice_yield_window_is_open_at_two_seconds(end: int, is_yield: bool) -> None:
    tau = find_tau_events([(900, 1500)], [(350, end)], 4000)
    assert (len(tau.yield_latencies) == 1) == is_yield


def test_columns_of_a_conversation() -> None:
    user = render_speech([(1, 4), (4.6, 7), (12, 18)], 30)
    agent = render_speech([(7.3, 10), (13, 13.4), (18.5, 21)], 30)
    found = columns(measure(user, agent, 24_000, user_detector="level"))
    values = {name: column.measure.value for name, column in found.items()}
    assert values["full-duplex-bench-v1/pause TOR"] == 0.0
    assert values["full-duplex-bench-v1/turn-taking TOR"] == 1.0
    # The second turn's sample begins with the mm-hm inside it: published latency 0.
    assert values["full-duplex-bench-v1/turn-taking latency"] == pytest.approx(0.15)
    assert values["full-duplex-bench-v1/backchannel TOR"] == 0.0
    assert values["full-duplex-bench-v1/backchannel frequency"] == pytest.approx(60 / 12)
    assert values["full-duplex-bench-v1/backchannel JSD"] is None
    assert values["tau-voice/L_R"] == pytest.approx((0.3 + 0.5) / 2)
    assert values["tau-voice/R_R"] == 1.0
    assert values["tau-voice/I_A"] == 0.5
    assert "ground-truth" in found["full-duplex-bench-v1/backchannel JSD"].caveat
    assert "never stops" in found["full-duplex-bench-v1/turn-taking TOR"].caveat


def test_published_rules_like_an_agent_that_never_stops() -> None:
    user = render_speech([(1, 4), (8, 11)], 20)
    found = columns(measure(user, always_talking(user), 24_000, user_detector="level"))
    assert found["full-duplex-bench-v1/turn-taking TOR"].measure.value == 1.0
    assert found["full-duplex-bench-v1/turn-taking latency"].measure.value == 0.0
    assert found["tau-voice/R_Y"].measure.value == 0.0
