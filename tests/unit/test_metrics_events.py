"""Hand-written timelines, each rule at its borders; times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from duologue.metrics.events import EventMachine
from duologue.metrics.types import Event

Spans = list[tuple[float, float]]


def activity(spans: Spans, duration_s: float) -> npt.NDArray[np.bool_]:
    ticks = np.zeros(round(duration_s * 100), dtype=np.bool_)
    for start, end in spans:
        ticks[round(start * 100) : round(end * 100)] = True
    return ticks


def observe(user: Spans, agent: Spans, duration_s: float = 30.0) -> list[Event]:
    machine = EventMachine()
    machine.advance(activity(user, duration_s), activity(agent, duration_s))
    machine.finish()
    return machine.log


def spans_of(log: list[Event], kind: str, side: str | None = None) -> Spans:
    return [(event.start_s, event.end_s) for event in log if event.kind == kind and side in (None, event.side)]


def values_of(log: list[Event], kind: str) -> list[float | None]:
    return [event.value_s for event in log if event.kind == kind]


AXIS_KINDS = {
    *("takeover", "pause_kept", "turn_answered", "turn_missed", "turn_talked_over", "answered_briefly"),
    *("interruption", "agent_yielded", "agent_held", "agent_responded"),
    *("agent_stopped_for_backchannel", "agent_ignored_backchannel"),
}


def axis_kinds(log: list[Event]) -> list[str]:
    return sorted(event.kind for event in log if event.kind in AXIS_KINDS)


def test_silence_of_a_fifth_of_a_second_is_bridged_and_one_tick_more_is_not() -> None:
    log = observe([(1.0, 2.0), (2.2, 3.0), (3.21, 4.0)], [])
    assert spans_of(log, "user_speech_ended") == [(1.0, 3.0), (3.21, 4.0)]


def test_silence_of_a_second_stays_inside_an_utterance_and_one_tick_more_does_not() -> None:
    log = observe([(1.0, 2.0), (3.0, 4.0), (5.01, 6.0)], [])
    assert spans_of(log, "utterance") == [(1.0, 4.0), (5.01, 6.0)]
    assert spans_of(log, "pause") == [(2.0, 3.0), (4.0, 5.01)]


def test_a_start_is_told_at_once_and_an_end_after_a_fifth_of_a_second() -> None:
    machine = EventMachine()
    ticks, silence = activity([(0.5, 1.0)], 2.0), activity([], 2.0)
    told = {}
    for tick in range(len(ticks)):
        for event in machine.advance(ticks[tick : tick + 1], silence[tick : tick + 1]):
            told[event.kind] = (tick, event.known_s)
    assert told["user_speech_started"] == (50, 0.51)
    assert told["user_speech_ended"] == (120, 1.21)


def test_gap_and_overlap_are_signed_floor_transfers() -> None:
    log = observe([(1.0, 3.0), (5.5, 8.0)], [(3.4, 6.0)])
    assert values_of(log, "floor_transfer") == [0.4, -0.5]
    assert spans_of(log, "gap") == [(3.0, 3.4)]
    assert spans_of(log, "overlap") == [(5.5, 6.0)]


def test_touching_turns_transfer_the_floor_at_zero_without_gap_or_overlap() -> None:
    log = observe([(1.0, 3.0)], [(3.0, 5.0)])
    assert values_of(log, "floor_transfer") == [0.0]
    assert not spans_of(log, "gap")
    assert not spans_of(log, "overlap")


def test_overlap_inside_a_turn_transfers_nothing() -> None:
    log = observe([(1.0, 5.0)], [(2.0, 2.5)])
    assert spans_of(log, "overlap") == [(2.0, 2.5)]
    assert not spans_of(log, "floor_transfer")


@dataclass(frozen=True)
class Case:
    name: str
    user: Spans
    agent: Spans
    kinds: list[str]


YIELDED = ["agent_responded", "agent_yielded", "interruption", "turn_answered"]
HELD = ["agent_held", "interruption", "turn_talked_over"]
CASES = [
    Case("pause kept", [(1, 3), (3.8, 5)], [(5.2, 8)], ["pause_kept", "turn_answered"]),
    Case("mm-hm in a pause", [(1, 3), (3.8, 5)], [(3.2, 3.6), (5.2, 8)], ["pause_kept", "turn_answered"]),
    Case("takeover", [(1, 3), (3.8, 8)], [(3.3, 5)], ["takeover", "turn_missed"]),
    Case("takeover of just a second", [(1, 3), (3.8, 8)], [(3.3, 4.3)], ["pause_kept", "turn_missed"]),
    Case("takeover of a tick more", [(1, 3), (3.8, 8)], [(3.3, 4.31)], ["takeover", "turn_missed"]),
    Case("no pause: bridged", [(1, 3), (3.2, 5)], [(5.2, 8)], ["turn_answered"]),
    Case("answer after 5 s", [(1, 3)], [(8.0, 10)], ["turn_answered"]),
    Case("answer a tick later", [(1, 3)], [(8.01, 10)], ["turn_missed"]),
    Case("answer 1 s early", [(1, 5)], [(4.0, 8)], ["turn_answered"]),
    Case("answer a tick earlier", [(1, 5)], [(3.99, 8)], ["turn_talked_over"]),
    Case("user repeats", [(1, 3), (5, 7)], [(7.2, 9)], ["turn_answered", "turn_missed"]),
    Case("both start at once", [(1, 3), (5, 7)], [(5, 6.5)], ["turn_answered", "turn_missed"]),
    Case("short answer", [(1, 3)], [(3.3, 4.3)], ["answered_briefly", "turn_answered"]),
    Case(
        "yields", [(3, 5)], [(1, 3.5), (5.3, 7)], ["agent_responded", "agent_yielded", "interruption", "turn_answered"]
    ),
    Case("holds", [(3, 5)], [(1, 6)], HELD),
    Case("stops at 2 s", [(3, 6)], [(1, 5.0)], ["agent_yielded", "interruption", "turn_missed"]),
    Case("stops a tick later", [(3, 6)], [(1, 5.01)], ["agent_held", "interruption", "turn_missed"]),
    Case("hesitates, goes on", [(3, 6)], [(1, 3.5), (4, 7)], HELD),
    Case(
        "resumes as the user ends",
        [(3, 4.2)],
        [(1, 3.5), (4.2, 7)],
        YIELDED,
    ),
    Case(
        "resumes a tick before", [(3, 4.2)], [(1, 3.5), (4.19, 7)], ["agent_held", "interruption", "turn_talked_over"]
    ),
    Case("ignores mm-hm", [(3, 3.5)], [(1, 6)], ["agent_ignored_backchannel"]),
    Case("stops for mm-hm", [(3, 3.5)], [(1, 4.0)], ["agent_stopped_for_backchannel"]),
    Case("stops a tick too late for it", [(3, 3.5)], [(1, 4.01)], ["agent_ignored_backchannel"]),
    Case("pauses at mm-hm and goes on", [(3, 3.5)], [(1, 3.2), (4.2, 6)], ["agent_ignored_backchannel"]),
    Case("starts together", [(3, 5)], [(3, 6)], ["turn_talked_over"]),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_axis_events(case: Case) -> None:
    assert axis_kinds(observe(case.user, case.agent)) == case.kinds


def test_latencies_of_an_interruption() -> None:
    log = observe([(3.0, 5.0)], [(1.0, 3.5), (5.3, 7.0)])
    assert values_of(log, "agent_yielded") == [0.5]
    assert values_of(log, "agent_responded") == [0.3]


def test_backchannel_is_placed_by_the_nearest_end() -> None:
    log = observe([(1.0, 3.0), (3.5, 8.0)], [(3.1, 3.4)])
    assert spans_of(log, "backchannel", "agent") == [(3.1, 3.4)]
    assert values_of(log, "backchannel") == [0.1]


def test_backchannel_far_from_every_end_is_unplaced() -> None:
    log = observe([(1.0, 12.0)], [(6.0, 6.4)])
    assert values_of(log, "backchannel") == [None]


def test_short_speech_after_the_end_is_no_backchannel() -> None:
    assert not spans_of(observe([(1.0, 3.0)], [(3.1, 3.5)]), "backchannel")


def test_the_end_of_the_recording_decides_nothing_early() -> None:
    # 1.5 s after the turn nobody knows yet whether an answer would have come in time.
    assert axis_kinds(observe([(1.0, 3.0)], [], duration_s=4.5)) == []
    assert axis_kinds(observe([(1.0, 3.0)], [], duration_s=5.5)) == ["turn_missed"]


def test_speech_cut_by_the_end_is_closed_there() -> None:
    log = observe([(1.0, 3.0)], [(2.0, 3.0)], duration_s=3.0)
    assert spans_of(log, "user_speech_ended") == [(1.0, 3.0)]
    assert spans_of(log, "overlap") == [(2.0, 3.0)]
