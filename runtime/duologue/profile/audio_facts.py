"""What was measured of a sound device; any way of measuring fills the same fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from duologue.audio.device import StreamInfo
from duologue.profile.timing import Timing
from duologue.types import FrameResult, Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickFacts:
    """Clicks sent by the loudspeaker and found again at the microphone.

    Attributes:
        sent: Clicks with time enough to come back.
        heard: Clicks found.
        p50_ms: Median time from the reply's frame to the click in the user's stream, the loop's own lag included.
        min_ms: Least.
        max_ms: Most.
    """

    sent: int
    heard: int
    p50_ms: float
    min_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFacts:
    """One driver thread.

    Attributes:
        calls: Callbacks.
        late: More than two periods after the one before.
        xruns: Callbacks by the loss that the driver reported.
        gap: Time between callbacks.
        body: Time inside them.
    """

    calls: int
    late: int
    xruns: dict[str, int]
    gap: Timing
    body: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioMoment:
    """The rings when a frame was done.

    Attributes:
        at_s: When, by the monotonic clock.
        lag_ms: Audio under way between microphone and loudspeaker.
        fill_ms: Agent's audio waiting for the loudspeaker.
        backlog_ms: User's audio waiting.
    """

    at_s: float
    lag_ms: float
    fill_ms: float
    backlog_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverCall:
    """One callback.

    Attributes:
        thread: Driver thread, 0 or 1.
        at_s: When it began, by the monotonic clock.
        body_ms: Time inside it.
        xruns: Losses that the driver reported with it.
    """

    thread: int
    at_s: float
    body_ms: float
    xruns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFacts:
    """A sound device under an audio loop, once alone and once with the agent.

    Attributes:
        device: What it agreed to, the latencies it claims included.
        bare_lag_ms: Lag that the loop held with nothing to compute: one frame and a fixed playout.
        loop_lag_ms: Lag that it held with the agent once settled: one frame and the playout of `duologue talk`, which
            follows how late the replies come.
        bare_clicks: Clicks through the device with nothing to compute; None if none came back.
        agent_clicks: Clicks with the agent's work in the loop; None if none came back.
        callbacks: One entry per driver thread, of the run with the agent, as all that follows.
        slack_min_ms: Agent's audio still waiting for the loudspeaker when the next frame of it came: the least.
        slack_p50_ms: The median of the same.
        backlog_ms: User's audio waiting when a frame was done.
        queue: How long a frame waited, once complete, before its step began.
        resample: Time per frame of converting rates, both ways.
        aec: Time per frame of cancelling echo; None without a canceller.
        moments: The rings, frame by frame.
        calls: The callbacks, one by one.
        lost_input_ms: User's audio that found the ring full.
        concealed_ms: Agent's audio that was missing and faded to silence.
        concealed_events: How often.
        dropped_ms: User's audio skipped to keep the lag bounded.
        cut_ms: Agent's audio cut likewise.
        inserted_ms: Silence inserted.
        drift_ppm: How much faster the loudspeaker's clock runs than the microphone's; None before 10 s.
    """

    device: StreamInfo
    bare_lag_ms: float
    loop_lag_ms: float
    bare_clicks: ClickFacts | None
    agent_clicks: ClickFacts | None
    callbacks: tuple[CallbackFacts, ...]
    slack_min_ms: float
    slack_p50_ms: float
    backlog_ms: Timing
    queue: Timing
    resample: Timing
    aec: Timing | None
    moments: tuple[AudioMoment, ...]
    calls: tuple[DriverCall, ...]
    lost_input_ms: float
    concealed_ms: float
    concealed_events: int
    dropped_ms: float
    cut_ms: float
    inserted_ms: float
    drift_ppm: float | None

    @property
    def measured_device_ms(self) -> float | None:
        """Loudspeaker to microphone without the loop's lag; None if no click came back."""
        return self.bare_clicks.p50_ms - self.bare_lag_ms if self.bare_clicks else None

    @property
    def reported_device_ms(self) -> float:
        """What the driver claims for both directions."""
        return self.device.input_latency_ms + self.device.output_latency_ms

    @property
    def block_ms(self) -> float:
        """Median time between callbacks, exact to a bin of the port's histogram (9 %); 0 without any."""
        return max((callback.gap.p50_ms for callback in self.callbacks), default=0.0)


class AudioProbe(Protocol):
    """Measures a sound device; what `duologue profile` needs of whoever drives one."""

    def measure(self, step: Step, seconds: float) -> AudioFacts:
        """Run the device bare and then with a conversation.

        Args:
            step: One frame of the conversation.
            seconds: Length of each of the two runs; the second one settles before, as long again but 10 s at most.

        Raises:
            DeviceError: There is no device, or it fails or falls silent.
            MissingExtraError: The sound package is not installed.
        """


class Step(Protocol):
    """One frame of a conversation."""

    def __call__(self, frame: Pcm) -> FrameResult:
        """Advance by the user's frame, shape [1920]."""
