"""What conversations add up to, on agents whose behaviour is known."""

from __future__ import annotations

import numpy as np
import pytest

from duologue.metrics.degenerate import always_talking, render_speech, silent
from duologue.metrics.meter import measure
from duologue.types import SAMPLE_RATE_HZ
from duologue_align.sft.outcome import WANTED, Exchange, Outcome, exchanges, figures, meets, relevance
from duologue_align.statistics import Interval

USER = [(1.0, 3.0), (8.0, 11.0), (11.6, 13.0), (20.0, 22.0)]
POLITE = [(3.4, 6.0), (9.5, 9.9), (13.4, 16.0), (22.4, 25.0)]


def outcome_of(agent: np.ndarray) -> Outcome:
    outcome = Outcome()
    user = render_speech(USER, 30.0)
    outcome.add_report(measure(user, agent, SAMPLE_RATE_HZ, user_detector="level", agent_detector="level"))
    return outcome


def test_a_polite_agent_meets_what_mute_and_talkative_ones_do_not() -> None:
    polite = figures([outcome_of(render_speech(POLITE, 30.0))] * 3)
    assert polite["answered_within_2s"].value == 1.0
    assert polite["fto_median_s"].value == pytest.approx(0.4, abs=0.1)
    assert polite["pause_takeover_rate"].value == 0.0
    spoken_min = sum(end - start for start, end in USER) / 60
    assert polite["backchannels_per_min"].value == pytest.approx(1 / spoken_min, rel=0.1)
    mute = figures([outcome_of(silent(render_speech(USER, 30.0)))])
    talkative = figures([outcome_of(always_talking(render_speech(USER, 30.0)))])
    assert (mute["answered_within_2s"].value, mute["fto_median_s"].value) == (0.0, None)
    assert meets("answered_within_2s", polite["answered_within_2s"])
    assert meets("pause_takeover_rate", polite["pause_takeover_rate"])
    assert not meets("answered_within_2s", mute["answered_within_2s"])
    assert not meets("answered_within_2s", talkative["answered_within_2s"])
    assert not meets("pause_takeover_rate", talkative["pause_takeover_rate"])


def test_rates_pool_events_and_not_conversations() -> None:
    one, two = Outcome(), Outcome()
    one.add("yield_rate_2s", 1, 1)
    two.add("yield_rate_2s", 0, 3)
    assert figures([one, two])["yield_rate_2s"].value == 0.25
    one.add("speech_wer_vs_monologue", 3, 10)
    assert figures([one, two])["speech_wer_vs_monologue"].value == 0.3


def test_only_known_figures_are_judged() -> None:
    known = Interval(value=0.9, low=0.8, high=1.0)
    assert meets("answered_within_2s", known)
    assert meets("selectivity", known) is None
    assert meets("answered_within_2s", Interval(value=None, low=None, high=None)) is None
    assert set(WANTED) <= set(figures([Outcome()]))


def test_turns_are_paired_with_what_follows_them() -> None:
    turns = [
        {"side": "user", "start_s": 0.0, "end_s": 2.0, "text": "one"},
        {"side": "agent", "start_s": 2.2, "end_s": 3.0, "text": "not this"},
        {"side": "user", "start_s": 5.0, "end_s": 7.0, "text": "two"},
        {"side": "user", "start_s": 9.0, "end_s": 10.0, "text": "three"},
    ]
    transcript = [(0.5, " early"), (1.2, " yes"), (2.5, " sir"), (6.1, " hm"), (20.0, " late")]
    assert exchanges(turns, transcript, dialogue="d") == [
        Exchange("d/0", "one", "yes sir"),
        Exchange("d/1", "two", "hm"),
        Exchange("d/2", "three", "late"),
    ]
    unanswered = exchanges(turns, transcript[:1], dialogue="d", with_unanswered=True)
    assert [exchange.reply for exchange in unanswered] == ["", "", ""]


def test_relevance_averages_over_seeds() -> None:
    basis = {"a": [1.0, 0.0], "b": [0.0, 1.0], "x": [1.0, 0.0], "y": [0.0, 1.0], "z": [0.6, 0.8]}
    found = [Exchange("t0", "a", "x"), Exchange("t1", "b", "y"), Exchange("t0", "a", "z")]
    scores = relevance(found, lambda texts: np.array([basis[text] for text in texts]))
    assert scores == pytest.approx(np.array([[0.8, 0.0], [0.4, 1.0]]))
    assert relevance([], lambda texts: np.zeros((0, 2))).shape == (0, 0)
