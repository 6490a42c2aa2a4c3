"""A situation and a reply read by the event rules of the runtime: the one thing that every reward looks at.

Rewards and reports share `duologue.metrics.events`, so what is trained is what is measured.
"""

from __future__ import annotations

from functools import cached_property

from duologue.errors import ConfigError
from duologue.metrics.events import Activity, EventMachine
from duologue.metrics.opportunities import ANSWER_EARLIEST
from duologue.metrics.timeline import TICK_S, UTTERANCE_BRIDGE, Span
from duologue.metrics.types import Event, Side
from duologue_align.rewards.situation import Reply, Situation


class Exchange:
    """What happened between the recorded user and the agent.

    Attributes:
        situation: The recorded situation.
        reply: What the agent did.
    """

    def __init__(self, situation: Situation, reply: Reply, reference: Exchange | None = None) -> None:
        """Pair a situation with a reply.

        Args:
            situation: The recorded situation.
            reply: What the agent did.
            reference: The recorded agent's exchange, if it is at hand already.

        Raises:
            ConfigError: The reply is not as long as the situation.
        """
        if reply.activity.shape != situation.user.shape:
            raise ConfigError(
                f"the reply has {reply.activity.shape} ticks but the situation {situation.user.shape}; "
                "cut or pad the agent's activity to the window"
            )
        self.situation = situation
        self.reply = reply
        self._reference = reference

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Every event of the window, the end of the window closing what is open."""
        return find_events(self.situation.user, self.reply.activity)

    @cached_property
    def reference(self) -> Exchange:
        """The same situation with the recorded agent's activity as the reply."""
        return self._reference or Exchange(self.situation, Reply(activity=self.situation.reference))

    @cached_property
    def agent_ipus(self) -> tuple[Span, ...]:
        """The agent's speech, silences of at most 0.2 s bridged, in ticks."""
        return spans_of(self.events, "agent_speech_ended", "agent")

    @cached_property
    def agent_utterances(self) -> tuple[Span, ...]:
        """The agent's speech, silences of at most 1.0 s bridged, in ticks."""
        return spans_of(self.events, "utterance", "agent")

    @cached_property
    def agent_turns(self) -> tuple[Span, ...]:
        """The agent's utterances longer than 1.0 s: those that are no backchannels."""
        return tuple(span for span in self.agent_utterances if span[1] - span[0] > UTTERANCE_BRIDGE)

    @cached_property
    def agent_brief(self) -> tuple[Span, ...]:
        """The agent's utterances of at most 1.0 s."""
        return tuple(span for span in self.agent_utterances if span[1] - span[0] <= UTTERANCE_BRIDGE)

    @cached_property
    def user_utterances(self) -> tuple[Span, ...]:
        """The user's speech, silences of at most 1.0 s bridged, in ticks."""
        return spans_of(self.events, "utterance", "user")

    def answer_to(self, turn_end: int) -> Span | None:
        """Return the agent's utterance that answers the user's turn ending at `turn_end`, in ticks.

        None if the turn was missed or talked over (the utterance began more than 1 s before the turn's end), or if the
        utterance is no longer than a backchannel.
        """
        for event in self.events:
            if event.kind != "turn_answered" or event.value_s is None:
                continue
            end, onset = span_of(event) if event.value_s >= 0 else span_of(event)[::-1]
            if end == turn_end:
                # The onset may be that of a later IPU in an utterance that began under the turn.
                found = next((span for span in self.agent_turns if span[0] <= onset < span[1]), None)
                return found if found and found[0] >= turn_end + ANSWER_EARLIEST else None
        return None

    def event_at(self, onset: int, *kinds: str) -> Event | None:
        """Return the first event of one of the kinds that starts at tick `onset`, or None."""
        return next((event for event in self.events if event.kind in kinds and span_of(event)[0] == onset), None)

    def speech_ticks(self, start: int, end: int) -> int:
        """Return how many ticks of [start, end) lie inside the agent's IPUs."""
        return overlap_ticks(self.agent_ipus, start, end)


def find_events(user: Activity, agent: Activity) -> tuple[Event, ...]:
    """Return every event of two activities of one length, shape [ticks]."""
    machine = EventMachine()
    machine.advance(user, agent)
    machine.finish()
    return tuple(machine.log)


def span_of(event: Event) -> Span:
    """Return the span of an event in ticks."""
    return round(event.start_s / TICK_S), round(event.end_s / TICK_S)


def spans_of(events: tuple[Event, ...], kind: str, side: Side) -> tuple[Span, ...]:
    """Return the spans of a side's events of one kind, in ticks, in order of time."""
    return tuple(sorted(span_of(event) for event in events if event.kind == kind and event.side == side))


def overlap_ticks(spans: tuple[Span, ...], start: int, end: int) -> int:
    """Return how many ticks of [start, end) the spans cover; the spans do not overlap each other."""
    return sum(max(0, min(end, stop) - max(start, begin)) for begin, stop in spans)
