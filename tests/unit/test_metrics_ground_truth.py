"""The incremental event machine against a slow reading of the same rules over whole timelines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.metrics.events import EventMachine
from duologue.metrics.types import EVENT_KINDS, Event
from interactivity_oracle import Found, Ticks, find_events

SYMMETRIC = ("utterance", "pause", "gap", "overlap", "floor_transfer", "backchannel")
OTHER = {"user": "agent", "agent": "user", None: None}


def observe(user: Ticks, agent: Ticks, chunk: int | None = None) -> list[Event]:
    machine = EventMachine()
    step = chunk or len(user)
    for begin in range(0, len(user), step):
        machine.advance(user[begin : begin + step], agent[begin : begin + step])
    machine.finish()
    return machine.log


def as_found(event: Event) -> Found:
    ticks = [round(event.start_s * 100), round(event.end_s * 100)]
    value = None if event.value_s is None else round(event.value_s * 100)
    return (event.kind, event.side, ticks[0], -1 if event.kind == "interruption" else ticks[1], value)


def assert_same(user: Ticks, agent: Ticks) -> Counter[str]:
    mine, theirs = Counter(map(as_found, observe(user, agent))), Counter(find_events(user, agent))
    assert mine - theirs == Counter()
    assert theirs - mine == Counter()
    return Counter(found[0] for found in mine.elements())


def draw(segments: list[tuple[int, int, int, int]]) -> tuple[Ticks, Ticks]:
    """Activity of both sides from alternating silence and speech lengths."""
    sides = []
    for side in (0, 2):
        ticks = [value for segment in segments for value in [False] * segment[side] + [True] * segment[side + 1]]
        sides.append(np.array(ticks, dtype=np.bool_))
    length = max(map(len, sides)) + 900
    user, agent = (np.pad(side, (0, length - len(side))) for side in sides)
    return user, agent


# Lengths around every threshold of the rules come up far more often than a uniform draw would bring them.
LENGTHS = st.one_of(
    st.integers(1, 350),
    st.integers(1, 60),
    st.sampled_from([1, 2, 19, 20, 21, 22, 79, 80, 81, 99, 100, 101, 102, 199, 200, 201, 202, 499, 500, 501, 502]),
)
TIMELINES = st.lists(st.tuples(LENGTHS, LENGTHS, LENGTHS, LENGTHS), max_size=14).map(draw)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(TIMELINES)
def test_random_timelines_give_exactly_the_events_of_the_rules(timeline: tuple[Ticks, Ticks]) -> None:
    assert_same(*timeline)


def test_dense_random_timelines_cover_every_kind_of_event() -> None:
    rng = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for _ in range(150):
        shape = (rng.integers(2, 25), 4)
        lengths = np.where(rng.random(shape) < 0.5, rng.integers(1, 320, shape), rng.integers(1, 110, shape))
        seen += assert_same(*draw([tuple(row) for row in lengths.tolist()]))
    assert set(EVENT_KINDS) == set(seen)


def test_human_timelines_give_exactly_the_events_of_the_rules(shared_dir: Path) -> None:
    with np.load(shared_dir / "data" / "human_turn_timing.npz") as data:
        conversation, channel = data["conversation"], data["channel"]
        starts, ends = (np.rint(data[name] * 100).astype(int) for name in ("start_s", "end_s"))
    seen: Counter[str] = Counter()
    for number in np.random.default_rng(1).choice(conversation[-1], 10, replace=False):
        rows = conversation == number
        activity = np.zeros((2, ends[rows].max() + 900), dtype=np.bool_)
        for side, start, end in zip(channel[rows], starts[rows], ends[rows], strict=True):
            activity[side, start:end] = True
        seen += assert_same(activity[0], activity[1])
    assert seen["turn_answered"] > 50
    assert seen["backchannel"] > 50


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TIMELINES, st.integers(1, 50))
def test_events_do_not_depend_on_the_chunking(timeline: tuple[Ticks, Ticks], chunk: int) -> None:
    assert observe(*timeline) == observe(*timeline, chunk)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TIMELINES)
def test_swapping_the_sides_swaps_the_events(timeline: tuple[Ticks, Ticks]) -> None:
    user, agent = timeline
    straight = Counter(as_found(event) for event in observe(user, agent) if event.kind in SYMMETRIC)
    swapped = Counter(as_found(event) for event in observe(agent, user) if event.kind in SYMMETRIC)
    assert straight == Counter((kind, OTHER[side], *rest) for kind, side, *rest in swapped.elements())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TIMELINES, st.integers(1, 400))
def test_time_shifts_shift_the_events(timeline: tuple[Ticks, Ticks], shift: int) -> None:
    user, agent = timeline
    late = [as_found(event) for event in observe(np.pad(user, (shift, 0)), np.pad(agent, (shift, 0)))]
    moved = [
        (kind, side, start + shift, end if end == -1 else end + shift, value)
        for kind, side, start, end, value in map(as_found, observe(user, agent))
    ]
    assert Counter(late) == Counter(moved)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TIMELINES, st.floats(0, 1))
def test_a_restored_machine_goes_on_as_if_nothing_had_happened(timeline: tuple[Ticks, Ticks], where: float) -> None:
    user, agent = timeline
    cut = int(where * len(user))
    machine = EventMachine()
    machine.advance(user[:cut], agent[:cut])
    snapshot = machine.snapshot()
    machine.advance(agent[cut:], user[cut:])
    machine.finish()
    machine.restore(snapshot)
    machine.advance(user[cut:], agent[cut:])
    machine.finish()
    assert machine.log == observe(user, agent)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TIMELINES, st.integers(0, 3000))
def test_events_are_never_taken_back(timeline: tuple[Ticks, Ticks], cut: int) -> None:
    user, agent = timeline
    machine = EventMachine()
    early = machine.advance(user[:cut], agent[:cut])
    whole = observe(user, agent)
    assert whole[: len(early)] == early
    assert all(event.known_s is not None and event.known_s >= event.start_s for event in whole)
    assert [event.known_s for event in whole] == sorted(event.known_s for event in whole if event.known_s is not None)
