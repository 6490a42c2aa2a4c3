"""From two activity streams to events, one 10 ms tick at a time; live and offline run this same machine.

Units of speech (`duologue.metrics.timeline`): IPU, silences <= 0.2 s bridged; utterance, silences <= 1.0 s bridged.
A span is [start, end); "speaks at t" means inside an IPU at tick t.

| event | rule | side | value |
|---|---|---|---|
| `*_speech_started` | an IPU begins | speaker | - |
| `*_speech_ended` | the IPU is over: more than 0.2 s of silence; span = the IPU | speaker | - |
| `utterance` | the utterance is over: more than 1.0 s of silence; span = the utterance | speaker | - |
| `pause`, `gap`, `overlap`, `floor_transfer` | see `duologue.metrics.floor` | who speaks after | gap, FTO |
| `takeover`, `pause_kept` | silence of the user > 0.2 s and <= 1.0 s inside its utterance, in which the agent \
spoke and that utterance of the agent lasts > 1.0 s / did not | agent | - |
| `turn_answered` | a turn is a user's utterance > 1.0 s. The agent speaks at its end and its utterance began <= 1 s \
before it, or the agent speaks within 5 s of it and before the user does again | agent | offset |
| `turn_talked_over` | the agent speaks at the turn's end and its utterance began more than 1 s before it | agent | - |
| `turn_missed` | neither | agent | - |
| `answered_briefly` | the utterance of an answer lasts <= 1.0 s | agent | - |
| `backchannel` | an utterance <= 1.0 s that begins strictly inside an utterance of the other side | speaker | onset \
minus the other side's nearest IPU end within 2 s |
| `interruption` | a user's utterance > 1.0 s that begins while the agent speaks | user | - |
| `agent_yielded` | within 2.0 s of its onset an IPU of the agent ends and the agent stays silent for more than 1.0 s \
or until the interruption is over | agent | stop latency |
| `agent_held` | it did not | agent | - |
| `agent_responded` | after yielding, the agent answers the interruption as a turn (`turn_answered`) | agent | \
offset |
| `agent_stopped_for_backchannel` | a user's utterance <= 1.0 s begins while the agent speaks, and the agent's \
utterance ends within 1.0 s of that onset | agent | stop latency |
| `agent_ignored_backchannel` | it does not | agent | - |

What words would tell, timing cannot: a short "stop!" counts as a backchannel and so does a short "yes." inside
somebody's pause; measured against human labels in `duologue.metrics.bands`. The human bands are computed by these same
rules, so each number compares like with like. What the end of the recording leaves open is not counted.

Sources: IPU, utterance, pause takeover, the 1 s border of backchannels: arXiv 2606.11167 sections 3.3 and 3.4; yield
and backchannel windows: tau-voice (tau2-bench docs/interaction-metrics.md); answer window: Switchboard quantiles.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from duologue.metrics.floor import Floor
from duologue.metrics.opportunities import (
    PATIENCE,
    PLACEMENT_WITHIN,
    YIELD_WITHIN,
    Answer,
    Question,
    View,
    decide,
)
from duologue.metrics.timeline import IPU_BRIDGE, TICK_S, UTTERANCE_BRIDGE, SideTrack
from duologue.metrics.types import Event, Side

Activity = npt.NDArray[np.bool_]
"""Whether a side is active in each tick of 10 ms, shape [n]."""

_SIDES: tuple[Side, Side] = ("user", "agent")
_DECIDED_AT_THE_END = ("turn", "backchannel")


@dataclass(slots=True)
class MachineState:
    """Everything the machine remembers; plain data, grows by about 25 kB per minute of lively talk (the event log).

    Attributes:
        now: Ticks observed.
        tracks: Speech of either side.
        floor: Who holds the floor.
        agenda: Heap of ticks at which something may become certain without a change of activity.
        questions: Opportunities not yet decided.
        log: Every event so far.
    """

    now: int = 0
    tracks: dict[Side, SideTrack] = field(default_factory=lambda: {side: SideTrack() for side in _SIDES})
    floor: Floor = field(default_factory=Floor)
    agenda: list[int] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    log: list[Event] = field(default_factory=list)

    def copy(self) -> MachineState:
        """Return an independent copy."""
        return MachineState(
            now=self.now,
            tracks={side: track.copy() for side, track in self.tracks.items()},
            floor=self.floor.copy(),
            agenda=list(self.agenda),
            questions=list(self.questions),
            log=list(self.log),
        )


class EventMachine:
    """Incremental event detector; the events do not depend on how the ticks are cut into calls."""

    def __init__(self) -> None:
        self._state = MachineState()

    @property
    def now_s(self) -> float:
        """Time observed so far, in seconds."""
        return round(self._state.now * TICK_S, 2)

    @property
    def log(self) -> list[Event]:
        """Every event so far, in the order in which it became certain."""
        return self._state.log

    def snapshot(self) -> MachineState:
        """Return a copy of the state."""
        return self._state.copy()

    def restore(self, snapshot: MachineState) -> None:
        """Go back to a snapshot; the snapshot stays as it is."""
        self._state = snapshot.copy()

    def advance(self, user: Activity, agent: Activity) -> list[Event]:
        """Observe the next ticks of both sides and return the events that became certain.

        Args:
            user: Activity of the user, shape [n].
            agent: Activity of the agent, shape [n].
        """
        assert user.shape == agent.shape
        logged, begin = len(self._state.log), self._state.now
        for offset in _change_offsets(user, agent, self._state.tracks):
            self._run_agenda(begin + offset)
            self._change(begin + offset, {"user": bool(user[offset]), "agent": bool(agent[offset])})
        self._run_agenda(begin + len(user))
        self._state.now = begin + len(user)
        return self._state.log[logged:]

    def finish(self) -> list[Event]:
        """End the conversation: close what is open and decide what can be decided; return the events of that."""
        state, logged = self._state, len(self._state.log)
        for side, track in state.tracks.items():
            if track.is_active:
                track.turn_off(state.now)
            if track.ipu_start is not None:
                self._close_ipu(side, track)
            if track.utterance_start is not None:
                self._log("utterance", side, *track.close_utterance())
        state.questions = [question for question in state.questions if question[0] in _DECIDED_AT_THE_END]
        self._decide(is_over=True)
        state.questions.clear()
        state.agenda.clear()
        return state.log[logged:]

    def _run_agenda(self, until: int) -> None:
        state = self._state
        while state.agenda and state.agenda[0] <= until:
            state.now = heapq.heappop(state.agenda)
            while state.agenda and state.agenda[0] == state.now:
                heapq.heappop(state.agenda)
            self._close()
            self._decide()

    def _change(self, tick: int, active: dict[Side, bool]) -> None:
        self._state.now = tick + 1
        for side, track in self._state.tracks.items():
            if active[side] and not track.is_active:
                self._turn_on(side, track, tick)
            elif track.is_active and not active[side]:
                track.turn_off(tick)
                self._remind(tick + IPU_BRIDGE + 1, tick + UTTERANCE_BRIDGE + 1)
        self._decide()

    def _turn_on(self, side: Side, track: SideTrack, tick: int) -> None:
        begins_utterance, last_end = track.utterance_start is None, track.last_end
        if not track.turn_on(tick):
            return
        self._log(f"{side}_speech_started", side, tick, tick)
        self._state.floor.add((tick, side, True))
        if begins_utterance:
            self._remind(tick + UTTERANCE_BRIDGE + 1, tick + YIELD_WITHIN + 1)
        if side == "user":
            question: Question = ("onset", (tick,)) if begins_utterance else ("pause", (last_end, tick))
            self._state.questions.append(question)

    def _close(self) -> None:
        state = self._state
        for side, track in state.tracks.items():
            silence = 0 if track.is_active else state.now - track.last_end
            if track.ipu_start is not None and silence > IPU_BRIDGE:
                self._close_ipu(side, track)
            if track.utterance_start is not None and silence > UTTERANCE_BRIDGE:
                self._close_utterance(side, track)

    def _close_ipu(self, side: Side, track: SideTrack) -> None:
        span = track.close_ipu()
        self._log(f"{side}_speech_ended", side, *span)
        self._state.floor.add((span[1], side, False))

    def _close_utterance(self, side: Side, track: SideTrack) -> None:
        start, end = track.close_utterance()
        self._log("utterance", side, start, end)
        other = self._state.tracks["agent" if side == "user" else "user"]
        if end - start <= UTTERANCE_BRIDGE and other.utterance_at(start, self._state.now) is not None:
            self._state.questions.append(("backchannel", (int(side == "user"), start, end)))
            self._remind(start + PLACEMENT_WITHIN + 1)
        if side == "user" and end - start > UTTERANCE_BRIDGE:
            self._state.questions.append(("turn", (start, end)))
        self._remind(end + PATIENCE + 1)

    def _decide(self, *, is_over: bool = False) -> None:
        state = self._state
        user, agent = state.tracks["user"], state.tracks["agent"]
        horizon = state.now + 1 if is_over else min(user.horizon(state.now), agent.horizon(state.now))
        for kind, side, start, end, value in state.floor.settle(horizon):
            self._log(kind, side, start, end, value)
        view = View(user, agent, state.now, is_over)
        waiting: list[Question] = []
        asked, state.questions = state.questions, []
        while asked:
            question = asked.pop(0)
            decision = decide(question, view)
            if decision is None:
                waiting.append(question)
                continue
            answers, follow_ups = decision
            self._log_all(answers)
            asked[:0] = follow_ups
        state.questions = waiting

    def _log_all(self, answers: list[Answer]) -> None:
        for kind, side, start, end, value in answers:
            self._log(kind, side, start, end, value)

    def _log(self, kind: str, side: Side | None, start: int, end: int, value: int | None = None) -> None:
        event = Event(
            kind=kind,
            side=side,
            start_s=_seconds(start),
            end_s=_seconds(end),
            known_s=_seconds(self._state.now),
            value_s=None if value is None else _seconds(value),
        )
        self._state.log.append(event)

    def _remind(self, *ticks: int) -> None:
        for tick in ticks:
            if tick > self._state.now:
                heapq.heappush(self._state.agenda, tick)


def _change_offsets(user: Activity, agent: Activity, tracks: dict[Side, SideTrack]) -> list[int]:
    changes = np.zeros(len(user), dtype=np.bool_)
    for side, activity in (("user", user), ("agent", agent)):
        changes[:1] |= activity[:1] != tracks[side].is_active  # type: ignore[index]
        changes[1:] |= activity[1:] != activity[:-1]
    return [int(offset) for offset in np.flatnonzero(changes)]


def _seconds(ticks: int) -> float:
    return round(ticks * TICK_S, 2)
