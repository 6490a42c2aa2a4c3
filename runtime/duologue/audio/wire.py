"""What travels between a host program and the process that holds its live conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from duologue import errors
from duologue.audio.device import DeviceSpec, StreamInfo
from duologue.audio.port import PortCounters
from duologue.config import Sampling
from duologue.errors import DuologueError
from duologue.metrics.latency import LatencySummary
from duologue.metrics.types import Event
from duologue.session import SESSION_EVENT_KINDS, Session

LIVE_EVENT_KINDS = (*SESSION_EVENT_KINDS, "frame", "device_error", "device_returned", "recording_ended")
"""Events of a live conversation: those of a session, every frame, the coming and going of the device, a failed disk."""


class LiveAgent(Protocol):
    """What a live conversation needs of an agent."""

    @property
    def note(self) -> str:
        """What a listener should know about the weights."""

    def session(self, *, seed: int) -> Session:
        """Open a conversation at 24 kHz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a live conversation runs; crosses into its process.

    Attributes:
        load_agent: Returns the agent; called in the conversation's process.
        device: Sound device.
        seed: Seed of the conversation.
        playout_ms: Time a frame may take; None measures the agent first and then follows how late its replies come.
        max_backlog_ms: User's audio that may wait before the oldest is dropped.
        max_lag_ms: Excess lag above which loud frames are cut, too.
        watchdog_ms: Silence of the driver after which the device counts as lost.
        record_path: Stereo WAV of the conversation (user, agent), or None.
        cancels_echo: Whether to take the agent's voice out of the microphone; off with headphones.
    """

    load_agent: Callable[[], LiveAgent]
    device: DeviceSpec
    seed: int = 0
    playout_ms: float | None = None
    max_backlog_ms: float = 480.0
    max_lag_ms: float = 240.0
    watchdog_ms: float = 1000.0
    record_path: str | None = None
    cancels_echo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFrame:
    """One 80 ms step as a host program sees it; the audio stays where it is played.

    Attributes:
        index: Frame number from the start of the conversation.
        text: Piece of text the agent began, "" for none.
        user_dbfs: Level of the user's frame, RMS; -inf for silence.
        agent_dbfs: Likewise for the agent's.
        stage_ms: Wall time per stage of the step, and beside it "queue" (how long the frame waited for it), "resample"
            and, with a canceller, "aec".
        is_late: Whether the step exceeded the 80 ms budget.
        lag_ms: Audio under way between microphone and loudspeaker.
        fill_ms: Agent's audio waiting for the loudspeaker.
        backlog_ms: User's audio still waiting.
    """

    index: int
    text: str
    user_dbfs: float
    agent_dbfs: float
    stage_ms: dict[str, float]
    is_late: bool
    lag_ms: float
    fill_ms: float
    backlog_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameEvent(Event):
    """The event of kind "frame".

    Attributes:
        frame: The step.
    """

    frame: LiveFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStats:
    """State and losses of a live conversation so far.

    Attributes:
        frames: Steps.
        device: What the device agreed to; None while it is lost.
        device_losses: Times the device was lost.
        playout_ms: Time a frame may take now before the loudspeaker runs dry.
        lag_ms: Audio under way now.
        drift_ppm: How much faster the loudspeaker's clock runs than the microphone's; None until it is known.
        received_ms: User's audio that found room in the ring since the device was opened.
        dropped_user_ms: User's audio that waited too long and was dropped.
        cut_agent_ms: Agent's audio left out to catch up.
        inserted_ms: Silence put in to reach the normal lag.
        concealed_ms: Loudspeaker time without a frame in time.
        lost_input_ms: User's audio that found the ring full.
        silenced_ms: Agent's audio silenced by `interrupt`.
        counters: What the driver's callback counted.
        resample: Time per frame of converting rates, both ways.
        dropped_events: Events that did not fit into the queue to the host.
        is_muted: Whether the microphone gives silence.
        echo_reduction_db: How much quieter the canceller made the microphone while the agent spoke; None without one.
    """

    frames: int
    device: StreamInfo | None
    device_losses: int
    playout_ms: float
    lag_ms: float
    drift_ppm: float | None
    received_ms: float
    dropped_user_ms: float
    cut_agent_ms: float
    inserted_ms: float
    concealed_ms: float
    lost_input_ms: float
    silenced_ms: float
    counters: PortCounters
    resample: LatencySummary
    dropped_events: int
    is_muted: bool
    echo_reduction_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The conversation runs."""

    note: str
    sampling: Sampling
    device: StreamInfo
    playout_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error in a form that every error class survives."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error; one that is not ours becomes a `DuologueError` that names its class."""
        if isinstance(error, DuologueError):
            return cls(kind=type(error).__name__, message=str(error))
        return cls(kind="DuologueError", message=f"{type(error).__name__}: {error}")

    def error(self) -> DuologueError:
        """Build the error again."""
        kind: type[DuologueError] = getattr(errors, self.kind, DuologueError)
        # Past __init__, whose arguments differ from class to class.
        error = kind.__new__(kind)
        error.args = (self.message,)
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something the host asks for."""

    number: int
    name: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a command; `value` may be a `Failure`."""

    number: int
    value: object
