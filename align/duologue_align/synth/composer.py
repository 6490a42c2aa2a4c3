"""Compose a dialogue turn by turn: what is said, who speaks when, and how the other side behaves meanwhile.

The floor passes at offsets drawn from the human ones; turns hold human pauses; both sides backchannel; the user
interrupts and the agent yields after a human latency. A `Behaviour` makes the agent depart from that on purpose.

The agent begins to sound on frames of the codec, as the model that learns from it must: what it says has then the same
codes every time.
"""

from __future__ import annotations

import numpy as np

from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ
from duologue_align.synth.chat import UserText
from duologue_align.synth.phrasing import phrase
from duologue_align.synth.pieces import Piece, Sentence, Speaker
from duologue_align.synth.repertoire import Repertoire, split_sentences
from duologue_align.synth.timeline import DialoguePlan, Said, Side, Timeline
from duologue_align.synth.timing import HumanTiming
from duologue_align.synth.voices import AGENT

Layout = list[tuple[float, Piece]]

CLOSING_S = 10.0
"""With less than this left the dialogue ends."""
ON_TOPIC_SHARE = 0.75
"""Share of the user's turns drawn from lines on a subject the agent knows."""
WRITTEN_SHARE = 0.22
"""Share of those that are written lines of `topics.json` rather than typed chat."""
SHORT_TURN_WORDS = 4
"""A user's turn of so few words lasts about a second or less."""
LATCH_S = (0.06, 0.17)
"""Silence between two sentences of one IPU."""
LONGEST_PAUSE_S = 1.0
"""Human pauses above this are not drawn: a longer silence ends an utterance, and with it the turn."""
PLACEMENT_YIELD = {"agent": 1.8, "user": 3.2}
"""Backchannels of a side are drawn this much more often than wanted: those that find no room are dropped."""
GOES_ON_S = {"agent": 1.3, "user": 1.2}
"""From its onset to the end of the other side's turn; the agent is to be heard speaking on after the user's."""


class Composer:
    """Composes one dialogue; made anew for each."""

    def __init__(
        self,
        plan: DialoguePlan,
        *,
        speaker: Speaker,
        timing: HumanTiming,
        repertoire: Repertoire,
        lines: UserText,
        rng: np.random.Generator,
    ) -> None:
        self._plan = plan
        self._speaker = speaker
        self._timing = timing
        self._repertoire = repertoire
        self._lines = lines
        self._rng = rng
        self._timeline = Timeline()
        self._used: set[str] = set()
        self._topic: str | None = None
        self._next_line: str | None = None

    def compose(self) -> Timeline:
        """Return the finished dialogue; it may run a little past the planned duration and is cut there."""
        now_s = self._open()
        while now_s < self._plan.duration_s - CLOSING_S:
            now_s = self._exchange(now_s)
        if self._rng.random() < 0.6:
            self._close(now_s)
        return self._timeline

    def _open(self) -> float:
        start_s = float(self._rng.uniform(0.3, 1.5))
        if self._rng.random() < 0.5:
            opener = self._repertoire.stock("agent_openers", self._rng, self._used)
            return self._agent_turn(start_s, [opener], "opener")
        opener = self._repertoire.stock("user_openers", self._rng, self._used)
        end_s = self._user_turn(start_s, opener, "opener")
        return self._answer(opener, end_s)

    def _close(self, now_s: float) -> None:
        closing = self._repertoire.stock("user_closings", self._rng, self._used)
        end_s = self._user_turn(self._user_start(now_s), closing, "closing")
        last = self._repertoire.stock("agent_closings", self._rng, self._used)
        self._agent_turn(self._agent_start(end_s), [last], "closing", may_be_interrupted=False)

    def _exchange(self, now_s: float) -> float:
        text, source = self._user_line()
        # A word or two laid over the agent's end would pass for a backchannel.
        earliest_s = 0.02 if len(text.split()) <= SHORT_TURN_WORDS else -1.0
        start_s = self._user_start(now_s, earliest_s)
        if self._rng.random() < 0.03:
            start_s = self._silence_of_the_user(now_s)
        end_s = self._user_turn(start_s, text, source)
        if self._errs(self._plan.behaviour.misses_turns):
            self._timeline.note("turn_missed", "agent", end_s, end_s)
            return end_s + float(self._rng.uniform(1.5, 4.0))
        return self._answer(text, end_s)

    def _silence_of_the_user(self, now_s: float) -> float:
        # The user is slow; in some of these silences the agent asks, so that it learns both to wait and to ask.
        if self._rng.random() < 0.4:
            reprompt = self._repertoire.stock("agent_reprompts", self._rng, self._used)
            asked_s = now_s + float(self._rng.uniform(4.5, 7.0))
            return self._user_start(self._agent_turn(asked_s, [reprompt], "reprompt", may_be_interrupted=False))
        return now_s + float(self._rng.uniform(2.5, 6.0))

    def _user_line(self) -> tuple[str, str]:
        if self._next_line is not None:
            line, self._next_line = self._next_line, None
            return line, "template"
        if self._topic is None or self._rng.random() < 0.35:
            topics = sorted(self._repertoire.topics)
            self._topic = topics[int(self._rng.integers(len(topics)))]
        if self._rng.random() > ON_TOPIC_SHARE:
            return self._lines.draw(self._rng, topic=None).text, "chat"
        written = [line for line in self._repertoire.topics[self._topic]["user"] if line not in self._used]
        if written and self._rng.random() < WRITTEN_SHARE:
            line = written[int(self._rng.integers(len(written)))]
            self._used.add(line)
            return line, "template"
        return self._lines.draw(self._rng, topic=self._topic).text, "chat"

    def _answer(self, heard: str, end_s: float) -> float:
        reply = self._repertoire.reply(heard, self._rng, last_topic=self._topic, used=self._used)
        self._topic = reply.topic or self._topic
        return self._agent_turn(self._agent_start(end_s), list(reply.sentences), reply.reason)

    def _agent_start(self, end_s: float) -> float:
        if self._errs(self._plan.behaviour.answers_late):
            offset_s = float(self._rng.uniform(1.5, 4.0))
        else:
            offset_s = self._timing.draw("turn_fto_s", self._rng, low=-0.9, high=1.6)
        return self._start("agent", "user", end_s, offset_s)

    def _user_start(self, end_s: float, earliest_s: float = -1.0) -> float:
        offset_s = self._timing.draw("turn_fto_s", self._rng, low=earliest_s, high=2.0)
        return self._start("user", "agent", end_s, offset_s)

    def _start(self, side: Side, other: Side, end_s: float, offset_s: float) -> float:
        last = max(
            (placed for placed in self._timeline.placed if placed.side == other), key=lambda p: p.end_s, default=None
        )
        if last is not None and offset_s < 0 and abs(last.end_s - end_s) < 0.01:
            offset_s = max(offset_s, -0.6 * last.piece.duration_s)
        start_s = self._timeline.free_from(side, max(0.1, end_s + offset_s))
        if side == "agent":
            start_s = _on_frame(start_s)
        self._timeline.note("floor_transfer", side, min(start_s, end_s), max(start_s, end_s), start_s - end_s)
        return start_s

    def _user_turn(self, start_s: float, text: str, source: str, *, kind: str = "turn") -> float:
        fillers = self._repertoire.manners["user_fillers"]
        planned = phrase(split_sentences(text), self._timing, self._rng, fillers=fillers)
        layout = self._lay_out("user", start_s, planned)
        self._put("user", layout, kind, source)
        self._react_to_user(layout)
        return _end(layout, start_s)

    def _lay_out(self, side: Side, start_s: float, planned: list[tuple[Sentence, bool]]) -> Layout:
        voice = self._plan.user if side == "user" else AGENT
        layout: Layout = []
        now_s = start_s
        for sentence, pauses in planned:
            for index, piece in enumerate(self._speaker.speak(voice, sentence)):
                if index > 0:
                    now_s += self._pause()
                if side == "agent":
                    now_s = _on_frame(now_s)
                layout.append((now_s, piece))
                now_s += piece.duration_s
            now_s += self._pause() if pauses else float(self._rng.uniform(*LATCH_S))
        return layout

    def _pause(self) -> float:
        return self._timing.draw("pause_s", self._rng, low=0.21, high=LONGEST_PAUSE_S)

    def _put(self, side: Side, layout: Layout, kind: str, reason: str) -> None:
        for start_s, piece in layout:
            self._timeline.add(side, start_s, piece, kind)
        if layout:
            text = " ".join(piece.text for _, piece in layout)
            self._timeline.said.append(Said(side, layout[0][0], _end(layout, 0.0), text, reason))

    def _react_to_user(self, layout: Layout) -> None:
        behaviour = self._plan.behaviour
        for before_s, after_s in _pauses(layout):
            self._timeline.note("pause", "user", before_s, after_s, after_s - before_s)
            if after_s - before_s >= 0.35 and self._errs(behaviour.takes_over_pauses):
                self._take_over(before_s)
        per_min = self._plan.agent_backchannels_per_min * (1.0 - behaviour.skips_backchannels)
        self._backchannel("agent", layout, per_min)

    def _take_over(self, pause_s: float) -> None:
        start_s = _on_frame(pause_s + float(self._rng.uniform(0.15, 0.3)))
        reply = self._repertoire.stock("statement", self._rng, self._used)
        layout = self._lay_out("agent", start_s, phrase([reply], self._timing, self._rng, is_fluent=True))
        if layout and self._timeline.is_free("agent", start_s, _end(layout, start_s), 0.5):
            self._put("agent", layout, "takeover", "takeover")
            self._timeline.note("takeover", "agent", start_s, _end(layout, start_s), start_s - pause_s)

    def _backchannel(self, side: Side, layout: Layout, per_min: float) -> list[float]:
        """Backchannel a turn of the other side; return the onsets."""
        speech_min = sum(piece.duration_s for _, piece in layout) / 60
        count = int(self._rng.poisson(per_min * speech_min * PLACEMENT_YIELD[side]))
        onsets = [self._backchannel_once(side, layout) for _ in range(count)]
        return sorted(onset for onset in onsets if onset is not None)

    def _backchannel_once(self, side: Side, layout: Layout) -> float | None:
        token = self._repertoire.backchannel(self._rng)
        pieces = self._speaker.speak(self._plan.user if side == "user" else AGENT, Sentence(words=tuple(token.split())))
        start_s, end_s = layout[0][0], _end(layout, 0.0)
        ends = [start + piece.duration_s for start, piece in layout]
        near = ends[int(self._rng.integers(len(ends)))]
        for _ in range(6):
            onset_s = near + self._timing.draw("backchannel_offset_s", self._rng)
            if side == "agent":
                onset_s = _on_frame(onset_s)
            until_s = onset_s + sum(piece.duration_s for piece in pieces)
            fits = start_s + 0.5 <= onset_s <= end_s - GOES_ON_S[side] and until_s <= end_s - 0.1
            if fits and pieces and self._timeline.is_free(side, onset_s, until_s, 1.2):
                self._timeline.add(side, onset_s, pieces[0], "backchannel")
                self._timeline.note("backchannel", side, onset_s, onset_s + pieces[0].duration_s, onset_s - near)
                return onset_s
        return None

    def _agent_turn(
        self, start_s: float, sentences: list[str], reason: str, *, may_be_interrupted: bool = True
    ) -> float:
        layout = self._lay_out("agent", start_s, phrase(sentences, self._timing, self._rng, is_fluent=True))
        if not layout:
            return start_s
        length_s = _end(layout, start_s) - start_s
        fits = _end(layout, start_s) < self._plan.duration_s - CLOSING_S
        is_long_enough = may_be_interrupted and fits and length_s > 1.8
        # The longer the turn, the likelier; two seconds stand for the usual turn.
        if is_long_enough and self._rng.random() < min(0.8, self._plan.interruption_share * length_s / 2.0):
            return self._interrupted_turn(layout, reason)
        onsets = self._backchannel("user", layout, self._plan.user_backchannels_per_min)
        return self._after_backchannels(layout, onsets, reason)

    def _after_backchannels(self, layout: Layout, onsets: list[float], reason: str) -> float:
        for onset_s in onsets:
            if self._errs(self._plan.behaviour.stops_for_backchannels):
                stop_s = onset_s + float(self._rng.uniform(0.2, 0.8))
                stopped, _ = _stop(layout, stop_s)
                self._put("agent", stopped, "turn", reason)
                self._timeline.note("agent_stopped_for_backchannel", "agent", onset_s, stop_s, stop_s - onset_s)
                return max(_end(stopped, stop_s), onset_s + 0.8) + float(self._rng.uniform(0.5, 1.5))
            self._timeline.note("agent_ignored_backchannel", "agent", onset_s, onset_s)
        self._put("agent", layout, "turn", reason)
        return _end(layout, 0.0)

    def _interrupted_turn(self, layout: Layout, reason: str) -> float:
        depth_s = self._timing.draw(
            "interruption_depth_s", self._rng, low=0.5, high=_end(layout, 0.0) - layout[0][0] - 0.7
        )
        onset_s = _into_speech(layout, layout[0][0] + depth_s)
        latency_s = self._timing.draw("yield_s", self._rng, low=0.16, high=1.5)
        text, source = self._interrupting_line()
        stopped, stop_s = _stop(layout, onset_s + latency_s)
        holds = self._errs(self._plan.behaviour.talks_over_interruptions)
        if holds:
            stopped, stop_s = layout, _end(layout, 0.0)
        self._put("agent", stopped, "turn", reason)
        end_s = self._user_turn(onset_s, text, source, kind="interruption")
        self._timeline.note("interruption", "user", onset_s, end_s, onset_s - layout[0][0])
        kind = "agent_held" if holds else "agent_yielded"
        self._timeline.note(kind, "agent", onset_s, stop_s, stop_s - onset_s)
        return self._answer(text, max(end_s, stop_s))

    def _errs(self, share: float) -> bool:
        return bool(share) and self._rng.random() < share

    def _interrupting_line(self) -> tuple[str, str]:
        if self._rng.random() < 0.45:
            return self._lines.draw(self._rng, topic=self._topic).text, "chat"
        text = self._repertoire.stock("user_interruptions", self._rng, self._used)
        if "ask you" in text or "question" in text or "help me" in text:
            topics = sorted(self._repertoire.topics)
            asked = self._repertoire.topics[topics[int(self._rng.integers(len(topics)))]]["user"]
            questions = [line for line in asked if line.endswith("?")] or asked
            self._next_line = questions[int(self._rng.integers(len(questions)))]
        return text, "template"


def _on_frame(at_s: float) -> float:
    """Return the nearest beginning of a frame, at most 40 ms away: less than the shortest latch."""
    frame_s = FRAME_SAMPLES / SAMPLE_RATE_HZ
    return round(at_s / frame_s) * frame_s


def _end(layout: Layout, otherwise_s: float) -> float:
    return layout[-1][0] + layout[-1][1].duration_s if layout else otherwise_s


def _pauses(layout: Layout) -> list[tuple[float, float]]:
    ends = [start_s + piece.duration_s for start_s, piece in layout]
    spans = zip(ends, (start_s for start_s, _ in layout[1:]), strict=False)
    return [(end_s, start_s) for end_s, start_s in spans if start_s - end_s > 0.2]


def _into_speech(layout: Layout, at_s: float) -> float:
    """Return the time nearest to `at_s` from which the speaker goes on for a while."""
    for start_s, piece in layout:
        end_s = start_s + piece.duration_s - 0.3
        if at_s < end_s:
            return max(at_s, start_s + 0.15)
    return layout[-1][0] + 0.5 * layout[-1][1].duration_s


def _stop(layout: Layout, at_s: float) -> tuple[Layout, float]:
    """Cut a turn at the word end nearest to `at_s` (within 0.12 s, else in mid-word); return it and when it ends."""
    stopped: Layout = []
    for start_s, piece in layout:
        if start_s >= at_s:
            break
        if start_s + piece.duration_s > at_s:
            ends = [start_s + word.end_s for word in piece.words]
            nearest = min(ends, key=lambda end_s: abs(end_s - at_s), default=at_s)
            piece = piece.cut((nearest if abs(nearest - at_s) <= 0.12 else at_s) - start_s)
        stopped.append((start_s, piece))
    return stopped, _end(stopped, at_s)
