"""Who talks with a simulated user: an agent's session, agents that understand nothing, and a second simulated person.

Each is opened anew for a conversation and answers frame by frame: all meet the same user under the same rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from duologue.agent import DuplexAgent
from duologue.metrics.activity import make_detector
from duologue.metrics.degenerate import ECHO_DELAY_S, render_speech
from duologue.metrics.timeline import TICK_S
from duologue.types import FRAME_RATE_HZ, FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm
from duologue_align.evaluation.person import Manners, Person
from duologue_align.evaluation.take import spoken_spans
from duologue_align.evaluation.voices import Voice
from duologue_align.policies import POLICIES, REACTION_TICKS
from duologue_align.rewards.situation import Situation

SCRIPTED = ("silent", "always talking", "two mm-hm", "mm-hm every 3 s", "babble")
"""Policies that take no notice of the user."""

REACTION_S = REACTION_TICKS * TICK_S
"""How soon the endpointer falls silent when the user speaks."""


class Talker(Protocol):
    """The agent's side of one conversation."""

    def step(self, user: Pcm, text: str = "") -> tuple[Pcm, str]:
        """Take the user's frame and return the agent's with the text begun in it.

        Args:
            user: The user's frame, 24 kHz, shape [1920].
            text: What the user begins to say in it; agents with ears of their own take no notice.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Plain:
    """A talker with nothing to close, to be built upon."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class SessionTalker:
    """An agent in a session."""

    def __init__(self, agent: DuplexAgent, seed: int) -> None:
        self._session = agent.session(seed=seed)

    def step(self, user: Pcm, text: str = "") -> tuple[Pcm, str]:
        """Run one frame."""
        result = self._session.step(user)
        return result.pcm, result.text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()


class PersonTalker(Plain):
    """A second simulated person in the agent's place."""

    def __init__(self, voice: Voice, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        self._person = Person(voice, Manners.of_agent(rng), rng)

    def step(self, user: Pcm, text: str = "") -> tuple[Pcm, str]:
        """Listen and talk."""
        return self._person.step(user, text)


class Scripted(Plain):
    """Sounds where a policy said so beforehand, whatever the user does."""

    def __init__(self, name: str, seconds: float, seed: int) -> None:
        ticks = round(seconds / TICK_S)
        nobody = np.zeros(ticks, dtype=np.bool_)
        situation = Situation(axis="hold", user=nobody, reference=nobody, focus=(0, ticks))
        spans = spoken_spans(POLICIES[name](situation, np.random.default_rng([7, seed])).activity)
        self._frames = deque(_frames(render_speech(spans, seconds)))

    def step(self, user: Pcm, text: str = "") -> tuple[Pcm, str]:
        """Return the next frame."""
        return self._frames.popleft() if self._frames else np.zeros(FRAME_SAMPLES, dtype=np.float32), ""


class Echo(Plain):
    """Repeats the user half a second later."""

    def __init__(self) -> None:
        self._kept = np.zeros(round(ECHO_DELAY_S * SAMPLE_RATE_HZ), dtype=np.float32)

    def step(self, user: Pcm, text: str = "") -> tuple[Pcm, str]:
        """Return what the user said."""
        self._kept = np.concatenate([self._kept, user])
        frame, self._kept = self._kept[:FRAME_SAMPLES], self._kept[FRAME_SAMPLES:]
        return frame, ""


class Endpointer(Plain):
    """Speaks after a fixed silence of the user and stops when the user speaks, or after a fixed time."""

    def __init__(self, delay_s: float, reply_s: float, *, stops: bool = True) -> None:
        """Set it up.

        Args:
            delay_s: Silence of the user after which it speaks.
            reply_s: Length of what it says.
            stops: Whether it falls silent when the user speaks.
        """
        self._delay_s, self._reply_s, self._stops = delay_s, reply_s, stops
        self._ear = make_detector("level")
        self._is_heard, self._silence_s, self._left_s = False, 0.0, 0.0
        self._sound = render_speech([(0.0, 1 / FRAME_RATE_HZ)], 1 / FRAME_RATE_HZ)

    def step(self, user: Pcm, text: str = "") -> tuple[Pcm, str]:
        """Wait or speak."""
        for is_active in self._ear.push(user).tolist():
            if is_active:
                self._is_heard, self._silence_s = True, 0.0
                self._left_s = min(self._left_s, REACTION_S) if self._stops else self._left_s
            else:
                self._silence_s += TICK_S
                if self._is_heard and self._silence_s >= self._delay_s:
                    self._is_heard, self._left_s = False, self._reply_s
        if self._left_s <= 0:
            return np.zeros(FRAME_SAMPLES, dtype=np.float32), ""
        self._left_s -= 1 / FRAME_RATE_HZ
        return self._sound, ""


Opener = Callable[[float, int], Talker]
"""(length of the conversation in seconds, seed) -> talker."""


def scripted_talkers() -> Mapping[str, Opener]:
    """Return the agents that understand nothing, by the names of `duologue_align.policies`."""
    talkers: dict[str, Opener] = {name: _scripted(name) for name in SCRIPTED}
    return talkers | {
        "echo": lambda seconds, seed: Echo(),
        "endpointer 0.5 s": lambda seconds, seed: Endpointer(0.5, 6.0),
        "endpointer 1.1 s": lambda seconds, seed: Endpointer(1.1, 60.0),
        "filler then stop": lambda seconds, seed: Endpointer(0.2, 1.1, stops=False),
    }


def _scripted(name: str) -> Opener:
    return lambda seconds, seed: Scripted(name, seconds, seed)


def _frames(pcm: Pcm) -> list[Pcm]:
    padded = np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))
    return list(padded.reshape(-1, FRAME_SAMPLES))
