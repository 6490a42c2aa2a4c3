"""Everything the card shows, gathered from events and answers of the live conversation.

The report is built here, from the events that arrived, and not asked of the conversation each second: that would cost
the frame loop tens of milliseconds after ten minutes. It differs from the session's own report only by what the
session decides at the end of the conversation.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal

from duologue.audio.device import StreamInfo
from duologue.audio.wire import FrameEvent, LiveFrame, LiveStats
from duologue.config import Sampling
from duologue.metrics.latency import LatencyHistogram, LatencySummary
from duologue.metrics.summary import build_report
from duologue.metrics.types import EVENT_KINDS, Event, InteractivityReport, Side
from duologue.types import FRAME_RATE_HZ

Tone = Literal["", "good", "warn", "bad"]
"""Colour of a message; the words alone say it, too."""

_KEPT_FRAMES = 600
_KEPT_EVENTS = 400
_RING_FRAMES = 125
_SHOWN_S = 10.0
_METER_KINDS = frozenset(EVENT_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What does not change while the conversation runs.

    Attributes:
        agents: Names of the agents one can switch between.
        device: What the device agreed to at the beginning.
        playout_ms: Time a frame may take before the loudspeaker runs dry.
        note: What a listener should know about the first agent's weights.
        record_folder: Where the sound is recorded, or None.
        has_echo_canceller: Whether the loudspeaker's echo is taken out of the microphone.
    """

    agents: tuple[str, ...]
    device: StreamInfo
    playout_ms: float
    note: str = ""
    record_folder: str | None = None
    has_echo_canceller: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A control that was changed during the conversation, and the conversation on either side of it.

    Attributes:
        at_s: When.
        before: Report of what came before.
        since: Report of what came since.
    """

    at_s: float
    before: InteractivityReport
    since: InteractivityReport


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One moment of the conversation, for drawing.

    Attributes:
        setup: What does not change.
        agent_index: Which agent talks.
        frames: The last frames, oldest first.
        events: The meter's last events, enough for the lanes.
        transcript: The agent's text as (time in seconds, piece).
        latency: Wall time per stage.
        report: The axes so far.
        change: The last change of a control, or None.
        stats: State of the device, or None before the first answer.
        ring_low_ms: Least agent's audio that waited for the loudspeaker in the last ten seconds.
        late_frames: Frames over the 80 ms budget.
        sampling: How the agent draws its tokens now.
        is_muted: Whether the agent hears silence.
        is_recording: Whether the sound is being kept; no longer once the disk failed.
        message: What a key did or what happened in the last seconds, and its tone.
        device_error: Why there is no device now, or "".
        ended: Why the conversation is over, or "".
    """

    setup: Setup
    agent_index: int
    frames: tuple[LiveFrame, ...]
    events: tuple[Event, ...]
    transcript: tuple[tuple[float, str], ...]
    latency: dict[str, LatencySummary]
    report: InteractivityReport
    change: Change | None
    stats: LiveStats | None
    ring_low_ms: float
    late_frames: int
    sampling: Sampling
    is_muted: bool
    is_recording: bool
    message: tuple[str, Tone]
    device_error: str
    ended: str

    @property
    def time_s(self) -> float:
        """Conversation time at the end of the last frame."""
        return (self.frames[-1].index + 1) / FRAME_RATE_HZ if self.frames else 0.0


class TalkState:
    """Gathers; any thread may call any method."""

    def __init__(self, setup: Setup, sampling: Sampling) -> None:
        """Begin with an empty conversation."""
        self._lock = threading.RLock()
        self._setup = setup
        self._agent_index = 0
        self._sampling = sampling
        self._is_muted = False
        self._is_recording = setup.record_folder is not None
        self._message: tuple[str, Tone] = ("", "")
        self._said_at_s = 0.0
        self._device_error = self._ended = ""
        self._stats: LiveStats | None = None
        self._begin()

    def _begin(self) -> None:
        self._frames: deque[LiveFrame] = deque(maxlen=_KEPT_FRAMES)
        self._events: list[Event] = []
        self._transcript: list[tuple[float, str]] = []
        self._latency: dict[str, LatencyHistogram] = {}
        self._summaries: dict[str, LatencySummary] = {}
        self._late_frames = 0
        self._change_s: float | None = None
        self._change: Change | None = None
        self._report = build_report([], 0.0)

    def apply(self, event: Event) -> None:
        """Take in one event of the conversation."""
        with self._lock:
            if isinstance(event, FrameEvent):
                self._add_frame(event.frame)
            elif event.kind in _METER_KINDS:
                self._events.append(event)
            elif event.kind == "device_error":
                self._device_error = str(event.detail["message"])
            elif event.kind == "device_returned":
                self._device_error = ""
                self.say(str(event.detail["message"]), "good")
            elif event.kind == "recording_ended":
                self._is_recording = False
                self.say(str(event.detail["message"]), "bad")
            elif event.kind == "error":
                self._ended = str(event.detail["message"])

    def _add_frame(self, frame: LiveFrame) -> None:
        if self._frames and frame.index <= self._frames[-1].index:
            self._begin()
        self._frames.append(frame)
        for stage, duration_ms in frame.stage_ms.items():
            self._latency.setdefault(stage, LatencyHistogram()).add(duration_ms)
        self._late_frames += frame.is_late
        if frame.text:
            self._transcript.append((frame.index / FRAME_RATE_HZ, frame.text))

    def say(self, message: str, tone: Tone = "") -> None:
        """Show a message for ten seconds."""
        with self._lock:
            self._message = (message, tone)
            self._said_at_s = monotonic()

    def end(self, reason: str) -> None:
        """Note that the conversation is over, and why; the first reason stays."""
        with self._lock:
            self._ended = self._ended or reason

    def set_stats(self, stats: LiveStats) -> None:
        """Take in the state of the device."""
        with self._lock:
            self._stats = stats
            self._is_muted = stats.is_muted

    def set_muted(self, is_muted: bool) -> None:
        """Note that the microphone is muted or not."""
        with self._lock:
            self._is_muted = is_muted

    def set_agent(self, index: int) -> None:
        """Note which agent talks."""
        with self._lock:
            self._agent_index = index

    def set_sampling(self, sampling: Sampling) -> None:
        """Note a changed control; the axes are from now on shown before and since."""
        with self._lock:
            self._sampling = sampling
            self._change_s = self._time_s()
        self.measure()

    def measure(self) -> InteractivityReport:
        """Build the report of the events so far; takes tens of ms after ten minutes, so call it about once a second."""
        with self._lock:
            events, time_s, changed_s = list(self._events), self._time_s(), self._change_s
            summaries = {stage: histogram.summary() for stage, histogram in self._latency.items()}
            late_frames, epoch = self._late_frames, self._frames
        report = replace(build_report(events, time_s), latency=summaries, late_frames=late_frames)
        change = None
        if changed_s is not None:
            earlier = [event for event in events if event.start_s < changed_s]
            later = [event for event in events if event.start_s >= changed_s]
            before, since = build_report(earlier, changed_s), build_report(later, time_s - changed_s)
            change = Change(at_s=changed_s, before=before, since=since)
        with self._lock:
            # Unless another conversation began meanwhile.
            if epoch is self._frames:
                self._report, self._change, self._summaries = report, change, summaries
        return report

    def view(self) -> View:
        """Return this moment."""
        with self._lock:
            frames = tuple(self._frames)
            return View(
                setup=self._setup,
                agent_index=self._agent_index,
                frames=frames,
                events=tuple(self._events[-_KEPT_EVENTS:]),
                transcript=tuple(self._transcript),
                latency=self._summaries,
                report=self._report,
                change=self._change,
                stats=self._stats,
                ring_low_ms=min((frame.fill_ms for frame in frames[-_RING_FRAMES:]), default=0.0),
                late_frames=self._late_frames,
                sampling=self._sampling,
                is_muted=self._is_muted,
                is_recording=self._is_recording,
                message=self._message if monotonic() - self._said_at_s < _SHOWN_S else ("", ""),
                device_error=self._device_error,
                ended=self._ended,
            )

    @property
    def sampling(self) -> Sampling:
        """How the agent draws its tokens now."""
        return self._sampling

    @property
    def transcript(self) -> list[tuple[float, str]]:
        """The agent's text so far."""
        with self._lock:
            return list(self._transcript)

    def _time_s(self) -> float:
        return (self._frames[-1].index + 1) / FRAME_RATE_HZ if self._frames else 0.0


def speech_spans(view: View, side: Side) -> list[tuple[float, float]]:
    """Return when a side spoke, as (start_s, end_s); speech that goes on ends now."""
    spans = [(event.start_s, event.end_s) for event in view.events if event.kind == f"{side}_speech_ended"]
    last_start_s = next(
        (event.start_s for event in reversed(view.events) if event.kind == f"{side}_speech_started"), -1.0
    )
    if last_start_s > (spans[-1][0] if spans else -1.0):
        spans.append((last_start_s, view.time_s))
    return spans
