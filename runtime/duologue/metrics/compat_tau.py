"""tau-voice's interaction panel: deterministic rules over segments of speech.

Its user turns are annotated by its simulator; here a user's segment that begins while the agent speaks and lasts at
most 1.0 s counts as a backchannel. Segments are utterances (silences up to 1.0 s bridged), since every segment of the
user counts as a turn. Source: tau2-bench docs/interaction-metrics.md and voice_interaction_metrics.py, version 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

YIELD_WITHIN, STOP_WITHIN, BACKCHANNEL_LENGTH = 200, 100, 100

Span = tuple[int, int]
"""[start, end) in ticks of 10 ms."""


@dataclass(slots=True)
class TauEvents:
    """What tau-voice counts; latencies in ticks.

    Attributes:
        response_latencies: L_R; their number over `turns` is R_R.
        turns: User turns that could be answered.
        yield_latencies: L_Y; their number over `interruptions` is R_Y.
        interruptions: User segments, no backchannels, that begin while the agent speaks.
        agent_interruptions: Agent segments that begin while the user speaks; over `turns` it is I_A.
        backchannels: User backchannels, and those during which the agent kept talking: their ratio is S_BC.
        kept_talking: See backchannels.
    """

    response_latencies: list[int] = field(default_factory=list)
    turns: int = 0
    yield_latencies: list[int] = field(default_factory=list)
    interruptions: int = 0
    agent_interruptions: int = 0
    backchannels: int = 0
    kept_talking: int = 0


def find_tau_events(user: Sequence[Span], agent: Sequence[Span], length: int) -> TauEvents:
    """Return what tau-voice would count.

    Args:
        user: The user's segments in order, in ticks.
        agent: The agent's segments.
        length: Ticks of the conversation.
    """
    events = TauEvents()
    turns: list[Span] = []
    for segment in user:
        if not _speaks(agent, segment[1], length):
            turns.append(segment)
        if not _speaks(agent, segment[0], length):
            continue
        if segment[1] - segment[0] <= BACKCHANNEL_LENGTH:
            turns = turns[:-1] if turns and turns[-1] == segment else turns
            events.backchannels += 1
            events.kept_talking += _stops_after(agent, segment[0], STOP_WITHIN, length) is None
            continue
        events.interruptions += 1
        stop = _stops_after(agent, segment[0], YIELD_WITHIN, length)
        if stop is not None:
            events.yield_latencies.append(stop)
    events.agent_interruptions = sum(_speaks(user, segment[0], length) for segment in agent)
    _count_responses(events, turns, agent)
    return events


def _count_responses(events: TauEvents, turns: list[Span], agent: Sequence[Span]) -> None:
    for index, (_, end) in enumerate(turns):
        answer = next((start for start, _ in agent if start >= end), None)
        again = next((start for start, _ in turns[index + 1 :] if start >= end), None)
        if answer is None and again is None:
            continue
        events.turns += 1
        if answer is not None and (again is None or answer <= again):
            events.response_latencies.append(answer - end)


def _speaks(segments: Sequence[Span], tick: int, length: int) -> bool:
    return tick < length and any(start <= tick < end for start, end in segments)


def _stops_after(segments: Sequence[Span], tick: int, within: int, length: int) -> int | None:
    """Return the ticks from `tick` to the first silent one if it comes within the window and the recording."""
    end = next(end for start, end in segments if start <= tick < end)
    return end - tick if end - tick < within and end < length else None
