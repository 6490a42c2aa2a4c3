"""duologue: an embeddable, on-device runtime for full-duplex speech models.

from duologue import DuplexAgent

agent = DuplexAgent.load()
with agent.session(seed=0, sample_rate_hz=16_000) as session:
    reply = session.feed(microphone_chunk)
    print(session.report())
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from duologue.errors import DuologueError

if TYPE_CHECKING:
    from duologue.agent import DuplexAgent, load
    from duologue.audio.devices import list_devices
    from duologue.codec import Mimi
    from duologue.config import AgentConfig
    from duologue.metrics.types import InteractivityReport
    from duologue.session import Session
    from duologue.types import FrameResult

try:
    __version__ = version("duologue")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0+unknown"
__all__ = [
    "AgentConfig",
    "DuologueError",
    "DuplexAgent",
    "FrameResult",
    "InteractivityReport",
    "Mimi",
    "Session",
    "__version__",
    "list_devices",
    "load",
]

# Each public name is imported when first used, so that `import duologue` stays light.
_HOMES = {
    "AgentConfig": "duologue.config",
    "DuplexAgent": "duologue.agent",
    "FrameResult": "duologue.types",
    "InteractivityReport": "duologue.metrics.types",
    "Mimi": "duologue.codec",
    "Session": "duologue.session",
    "list_devices": "duologue.audio.devices",
    "load": "duologue.agent",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'duologue' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
