"""Several agents in one live conversation's process, one of them talking: how `duologue talk` switches adapters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from duologue.agent import DuplexAgent
from duologue.audio.echo import EchoAgent
from duologue.audio.wire import LiveAgent
from duologue.config import AgentConfig
from duologue.model.adapters import adapter_name
from duologue.session import Session
from duologue.types import FRAME_SAMPLES

ECHO = "echo"
"""Name of the agent that says back what it hears."""

_WARMUP_FRAMES = 5


class AgentChoice:
    """An agent that is one of several; the seed of a conversation says which.

    A live conversation is begun anew with a seed and nothing else, so the seed carries the choice: see `seed_for`.
    """

    def __init__(self, agents: Sequence[LiveAgent]) -> None:
        """Take the loaded agents; the first talks first."""
        self._agents = list(agents)
        self._index = 0

    @property
    def note(self) -> str:
        """What a listener should know about the weights of the agent that talks."""
        return self._agents[self._index].note

    def session(self, *, seed: int) -> Session:
        """Open a conversation with the agent that the seed names."""
        seed, self._index = divmod(seed, len(self._agents))
        return self._agents[self._index].session(seed=seed)


@dataclass(frozen=True, slots=True)
class AdaptedAgent:
    """An agent that always talks through one of its adapters."""

    agent: DuplexAgent
    adapter: str

    @property
    def note(self) -> str:
        """What a listener should know about the weights."""
        return self.agent.note

    def session(self, *, seed: int) -> Session:
        """Open a conversation."""
        return self.agent.session(seed=seed, adapter=self.adapter)


def choice_names(agents: Sequence[str], adapters: Sequence[str]) -> tuple[str, ...]:
    """Return what the choices of an `AgentLoader` are called: each agent, then each with one of its adapters."""
    names = []
    for agent in agents:
        names += [agent, *(f"{agent} + {adapter_name(path)}" for path in adapters if agent != ECHO)]
    return tuple(names)


def seed_for(index: int, seed: int, count: int) -> int:
    """Return the seed that makes an `AgentChoice` of `count` agents open agent `index` with `seed`."""
    return seed * count + index


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLoader:
    """Loads the agents inside the conversation's process.

    Attributes:
        names: Folders in Moshi's format, `hf://owner/name`, "echo", or None for the default agent.
        config: How they run; each of its adapters is one more choice.
    """

    names: tuple[str | None, ...]
    config: AgentConfig

    def __call__(self) -> LiveAgent:
        """Load every agent.

        Raises:
            DuologueError: What loading one of them raised.
        """
        _keep_terminal_clean()
        agents = [agent for name in self.names for agent in self._load(name)]
        for agent in agents[1:]:
            _warm_up(agent)
        return AgentChoice(agents)

    def _load(self, name: str | None) -> list[LiveAgent]:
        if name == ECHO:
            return [EchoAgent()]
        # What is recorded is what the device heard, so the process records and not the session.
        agent = DuplexAgent.load(name, replace(self.config, record=None))
        return [agent, *(AdaptedAgent(agent, adapter_name(path)) for path in self.config.adapters)]


def _keep_terminal_clean() -> None:
    # The terminal belongs to the host, for its card or its JSON lines; errors reach the host by another way.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _warm_up(agent: LiveAgent) -> None:
    silence = np.zeros(FRAME_SAMPLES, dtype=np.float32)
    with agent.session(seed=0) as session:
        for _ in range(_WARMUP_FRAMES):
            session.step(silence)
