"""Find the segments of each set in a conversation with fixed roles.

X is the user, whom a model would hear, Y the agent, whose place it would take. An utterance "holds" a span if the
span begins inside it.

| set | rule | window |
|---|---|---|
| pause | an utterance of X >= pause_min_s with a pause (0.2 to 1.0 s) inside; Y silent throughout | the utterance |
| turn | consecutive utterances X, Y, both >= turn_min_s, Y's start minus X's end in [turn_gap_min_s, turn_gap_max_s] \
| both |
| backchannel | an utterance of X >= backchannel_min_s in which Y says only utterances <= backchannel_max_s, one of \
them begun inside and >= backchannel_least_s | the utterance |
| interruption | four consecutive utterances X, Y, X, Y, all >= interruption_min_s, the third begun before the second \
ends | all four |
| user_backchannel | as backchannel with X and Y exchanged | from the turn of X before it |
| hold | as pause with X and Y exchanged | from the turn of X before it |

Utterances of both sides are ordered by their start. In the last two X may still be finishing its turn, up to 1 s.
Source: arXiv 2606.11167 section 3.3 for the first four; the last two are what they lack: does the agent talk on when
the user says "mm-hm", and when it has paused itself?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from duologue.metrics.opportunities import ANSWER_EARLIEST
from duologue.metrics.timeline import TICK_S
from duologue.metrics.types import Event, Side
from duologue_align.segments.rules import MiningRules
from duologue_align.segments.segment import Axis
from duologue_align.segments.speech import Span, Talk, overlapping

_TURN_END_OVERLAP_S = -ANSWER_EARLIEST * TICK_S
_INTERRUPTION_KINDS = ("interruption", "agent_yielded", "agent_held", "agent_responded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A segment before it has a name.

    Attributes:
        axis: The set it belongs to.
        start_s: Begin of the window.
        end_s: End of it.
        events: What makes it one: the utterances in order, then pauses, backchannels, the floor transfer, the
            interruption and what the agent made of it.
    """

    axis: Axis
    start_s: float
    end_s: float
    events: tuple[Event, ...]


def find_segments(talk: Talk, rules: MiningRules) -> list[Found]:
    """Return the segments of all sets, in order of set and time; those above longest_s are left out."""
    found = [segment for finder in _FINDERS.values() for segment in finder(talk, rules)]
    return [segment for segment in found if segment.end_s - segment.start_s <= rules.longest_s]


def find_pauses(talk: Talk, rules: MiningRules) -> list[Found]:
    """Return the segments of the set "pause"."""
    found = []
    for utterance in talk.utterances["user"]:
        pauses = talk.pauses("user", utterance)
        is_alone = not overlapping(talk.ipus["agent"], *utterance)
        if _length(utterance) >= rules.pause_min_s and pauses and is_alone:
            found.append(_found("pause", utterance, [_utterance("user", utterance), *_pauses("user", pauses)]))
    return found


def find_turns(talk: Talk, rules: MiningRules) -> list[Found]:
    """Return the segments of the set "turn"."""
    found = []
    for (first, user), (second, agent) in pairwise(_in_order(talk, rules)):
        if (first, second) != ("user", "agent") or min(_length(user), _length(agent)) < rules.turn_min_s:
            continue
        gap_s = round(agent[0] - user[1], 2)
        if rules.turn_gap_min_s <= gap_s <= rules.turn_gap_max_s:
            events = [_utterance("user", user), _utterance("agent", agent), _transfer("agent", user, agent)]
            found.append(_found("turn", (user[0], max(user[1], agent[1])), events))
    return found


def find_backchannels(talk: Talk, rules: MiningRules) -> list[Found]:
    """Return the segments of the set "backchannel"."""
    found = []
    for utterance in talk.utterances["user"]:
        others = overlapping(talk.utterances["agent"], *utterance)
        inside = _audible([other for other in others if other[0] > utterance[0]], rules)
        are_short = all(_length(other) <= rules.backchannel_max_s for other in others)
        if _length(utterance) >= rules.backchannel_min_s and inside and are_short:
            events = [_utterance("user", utterance), *_backchannels("agent", inside)]
            found.append(_found("backchannel", utterance, events))
    return found


def find_interruptions(talk: Talk, rules: MiningRules) -> list[Found]:
    """Return the segments of the set "interruption"."""
    order = _in_order(talk, rules)
    found = []
    for four in zip(order, order[1:], order[2:], order[3:], strict=False):
        sides, spans = [side for side, _ in four], [span for _, span in four]
        if sides != ["user", "agent", "user", "agent"] or min(map(_length, spans)) < rules.interruption_min_s:
            continue
        if spans[2][0] < spans[1][1]:
            window = (spans[0][0], max(span[1] for span in spans))
            at_s = spans[2][0]
            measured = [event for event in talk.events if event.kind in _INTERRUPTION_KINDS and event.start_s >= at_s]
            own = [event for event in measured if event.start_s <= spans[2][1]]
            events = [*(_utterance(side, span) for side, span in four), *own]
            found.append(_found("interruption", window, events))
    return found


def find_user_backchannels(talk: Talk, rules: MiningRules) -> list[Found]:
    """Return the segments of the set "user_backchannel"."""
    found = []
    for utterance in talk.utterances["agent"]:
        begun = [other for other in overlapping(talk.utterances["user"], *utterance) if other[0] > utterance[0]]
        inside = _audible(begun, rules)
        are_short = all(_length(other) <= rules.backchannel_max_s for other in inside)
        is_long = _length(utterance) >= rules.user_backchannel_min_s
        if is_long and inside and are_short and _ends_before(talk, utterance):
            events = [_utterance("agent", utterance), *_backchannels("user", inside)]
            found.append(_with_lead("user_backchannel", talk, utterance, events, rules))
    return found


def find_holds(talk: Talk, rules: MiningRules) -> list[Found]:
    """Return the segments of the set "hold"."""
    found = []
    for utterance in talk.utterances["agent"]:
        pauses = talk.pauses("agent", utterance)
        begun_inside = [other for other in overlapping(talk.ipus["user"], *utterance) if other[0] > utterance[0]]
        is_long = _length(utterance) >= rules.hold_min_s
        if is_long and pauses and not begun_inside and _ends_before(talk, utterance):
            events = [_utterance("agent", utterance), *_pauses("agent", pauses)]
            found.append(_with_lead("hold", talk, utterance, events, rules))
    return found


_FINDERS: dict[Axis, Callable[[Talk, MiningRules], list[Found]]] = {
    "pause": find_pauses,
    "turn": find_turns,
    "backchannel": find_backchannels,
    "interruption": find_interruptions,
    "user_backchannel": find_user_backchannels,
    "hold": find_holds,
}


def _in_order(talk: Talk, rules: MiningRules) -> list[tuple[Side, Span]]:
    sides: tuple[Side, Side] = ("user", "agent")
    order = [(span[0], side, span) for side in sides for span in talk.utterances[side]]
    if rules.skip_backchannels:
        order = [item for item in order if _length(item[2]) > rules.backchannel_max_s]
    return [(side, span) for _, side, span in sorted(order, key=lambda item: (item[0], item[1]))]


def _audible(spans: Sequence[Span], rules: MiningRules) -> list[Span]:
    return [span for span in spans if _length(span) >= rules.backchannel_least_s]


def _ends_before(talk: Talk, utterance: Span) -> bool:
    """Tell whether what the user was saying when the agent began is over within the overlap of an answer."""
    running = [other for other in overlapping(talk.utterances["user"], *utterance) if other[0] <= utterance[0]]
    return all(other[1] - utterance[0] <= _TURN_END_OVERLAP_S + 1e-9 for other in running)


def _with_lead(axis: Axis, talk: Talk, utterance: Span, events: Sequence[Event], rules: MiningRules) -> Found:
    before = [span for span in talk.utterances["user"] if span[0] <= utterance[0]]
    lead = before[-1] if before else None
    is_answer = (
        lead is not None
        and _length(lead) > rules.backchannel_max_s
        and utterance[0] - lead[1] <= rules.lead_gap_max_s + 1e-9
    )
    if lead is None or not is_answer:
        return _found(axis, utterance, events)
    return _found(axis, (lead[0], utterance[1]), [_utterance("user", lead), *events])


def _found(axis: Axis, window: Span, events: Sequence[Event]) -> Found:
    return Found(axis=axis, start_s=window[0], end_s=window[1], events=tuple(events))


def _length(span: Span) -> float:
    return round(span[1] - span[0], 2)


def _utterance(side: Side, span: Span) -> Event:
    return Event(kind="utterance", side=side, start_s=span[0], end_s=span[1])


def _pauses(side: Side, spans: Sequence[Span]) -> list[Event]:
    return [Event(kind="pause", side=side, start_s=start_s, end_s=end_s) for start_s, end_s in spans]


def _backchannels(side: Side, spans: Sequence[Span]) -> list[Event]:
    return [Event(kind="backchannel", side=side, start_s=start_s, end_s=end_s) for start_s, end_s in spans]


def _transfer(side: Side, before: Span, after: Span) -> Event:
    offset_s = round(after[0] - before[1], 2)
    start_s, end_s = min(before[1], after[0]), max(before[1], after[0])
    return Event(kind="floor_transfer", side=side, start_s=start_s, end_s=end_s, value_s=offset_s)
