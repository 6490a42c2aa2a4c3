from itertools import pairwise

import numpy as np
import pytest

from duologue_align.synth.check import failures, measure_facts
from duologue_align.synth.composer import Composer
from duologue_align.synth.dialogue import draw_plan
from duologue_align.synth.repertoire import written_repertoire
from duologue_align.synth.timeline import SIDES, Behaviour, DialoguePlan, Timeline
from duologue_align.synth.timing import human_timing
from duologue_align.synth.voices import TRAIN_USERS
from synth_fakes import LINES, ToneSpeaker


def _compose(seed: int, behaviour: Behaviour | None = None, *, duration_s: float = 90.0, **rates: float) -> Timeline:
    rates = {"user_backchannels_per_min": 5.0, "agent_backchannels_per_min": 5.0, "interruption_share": 0.25} | rates
    plan = DialoguePlan(duration_s=duration_s, user=TRAIN_USERS[0], behaviour=behaviour or Behaviour(), **rates)
    return Composer(
        plan,
        speaker=ToneSpeaker(),
        timing=human_timing(),
        repertoire=written_repertoire(),
        lines=LINES,
        rng=np.random.default_rng(seed),
    ).compose()


def _facts(timeline: Timeline, duration_s: float = 90.0) -> dict[str, object]:
    return {"duration_s": duration_s, "spans": {side: timeline.spans(side, duration_s) for side in SIDES}}


def _kinds(timelines: list[Timeline], kind: str) -> list[float | None]:
    return [event.value_s for timeline in timelines for event in timeline.happened if event.kind == kind]


def test_the_same_seed_gives_the_same_dialogue() -> None:
    assert _compose(5).said == _compose(5).said
    assert _compose(5).said != _compose(6).said


def test_no_side_speaks_over_itself_and_words_are_in_order() -> None:
    for seed in range(12):
        timeline = _compose(seed)
        for side in SIDES:
            spans = timeline.spans(side, 90.0)
            assert all(before[1] <= after[0] + 1e-6 for before, after in pairwise(spans)), seed
            words = timeline.words(side, 90.0)
            assert all(before.start_s < after.start_s for before, after in pairwise(words)), seed
            assert all(0 <= word.start_s < word.end_s <= 90.0 for word in words)


def test_the_agent_begins_on_frames() -> None:
    faults = Behaviour(takes_over_pauses=0.5)
    starts = [p.start_s / 0.08 for seed in range(6) for p in _compose(seed, faults).placed if p.side == "agent"]
    assert len(starts) > 30
    assert np.abs(np.array(starts) - np.round(starts)).max() < 1e-6


def test_well_behaved_dialogues_have_human_timing() -> None:
    timelines = [_compose(seed) for seed in range(40)]
    # Tones have neither short answers nor the variety of lines: the shares of time are left to the real voices.
    ignored = ("silence_share", "overlap_share", "selectivity", "answered_rate")
    summary = measure_facts(map(_facts, timelines)).summary()
    assert [line for line in failures(summary) if not line.startswith(ignored)] == []


def test_the_agent_yields_at_human_latency_and_loses_its_words() -> None:
    timelines = [_compose(seed, interruption_share=0.6) for seed in range(20)]
    latencies = [value for value in _kinds(timelines, "agent_yielded") if value is not None]
    assert len(latencies) > 20
    assert 0.1 < np.median(latencies) < 0.7
    assert max(latencies) < 1.7
    assert not _kinds(timelines, "agent_held")


def test_a_talker_holds_when_interrupted() -> None:
    talker = Behaviour(talks_over_interruptions=1.0)
    timelines = [_compose(seed, talker, interruption_share=0.6) for seed in range(10)]
    assert len(_kinds(timelines, "agent_held")) > 8
    assert not _kinds(timelines, "agent_yielded")


def test_each_fault_shows_in_the_measures() -> None:
    def measured(behaviour: Behaviour) -> dict[str, float]:
        return measure_facts(_facts(_compose(seed, behaviour, interruption_share=0.5)) for seed in range(14)).summary()

    good = measured(Behaviour())
    assert measured(Behaviour(takes_over_pauses=0.5))["takeover_rate"] > good["takeover_rate"] + 0.15
    assert measured(Behaviour(answers_late=0.75))["agent_fto_p50_s"] > good["agent_fto_p50_s"] + 0.8
    assert measured(Behaviour(misses_turns=0.35))["answered_rate"] < good["answered_rate"] - 0.1
    quiet = measured(Behaviour(skips_backchannels=1.0))["agent_backchannels_per_user_min"]
    assert quiet < 0.4 * good["agent_backchannels_per_user_min"]
    assert measured(Behaviour(talks_over_interruptions=1.0))["yield_rate"] < good["yield_rate"] - 0.15
    assert measured(Behaviour(stops_for_backchannels=1.0))["selectivity"] < good["selectivity"] - 0.25


def test_the_agent_speaks_on_through_a_backchannel() -> None:
    for seed in range(10):
        timeline = _compose(seed, user_backchannels_per_min=9.0, interruption_share=0.0)
        ends = [placed.end_s for placed in timeline.placed if placed.side == "agent"]
        for event in timeline.happened:
            if event.kind == "agent_ignored_backchannel":
                assert max(ends) > event.start_s + 1.0


def test_backchannel_rates_differ_between_people() -> None:
    rng = np.random.default_rng(0)
    plans = [
        draw_plan(60.0, "train", human_timing(), rng, talkativeness=np.full(2, share)) for share in (0.1, 0.5, 0.9)
    ]
    assert [plan.user_backchannels_per_min for plan in plans] == pytest.approx([1.3, 4.2, 8.2], abs=0.2)
    assert [plan.agent_backchannels_per_min for plan in plans] == pytest.approx([1.5, 4.2, 8.2], abs=0.2)


def test_most_agents_behave_and_every_fault_occurs() -> None:
    rng = np.random.default_rng(0)
    behaviours = [draw_plan(60.0, "test", human_timing(), rng, talkativeness=np.zeros(2)).behaviour for _ in range(600)]
    assert 0.55 < np.mean([behaviour == Behaviour() for behaviour in behaviours]) < 0.67
    assert {name for name in Behaviour.__dataclass_fields__ if any(getattr(b, name) for b in behaviours)} == set(
        Behaviour.__dataclass_fields__
    )
