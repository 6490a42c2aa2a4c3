"""The interactivity meter: both sides' audio in, events as they become certain, a report at any time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from duologue.audio.files import MAX_LEVEL
from duologue.audio.resample import resample
from duologue.errors import AudioError
from duologue.metrics.activity import Ticks, make_detector
from duologue.metrics.events import EventMachine, MachineState
from duologue.metrics.summary import build_report
from duologue.metrics.types import Event, InteractivityReport
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSnapshot:
    """Everything a meter remembers; plain data, for `InteractivityMeter.restore`.

    Attributes:
        detectors: Names of the user's and the agent's detector.
        user: State of the user's detector.
        agent: State of the agent's detector.
        machine: State of the event machine.
        waiting: Ticks of each side for which the other side's are not known yet.
    """

    detectors: tuple[str, str]
    user: object
    agent: object
    machine: MachineState
    waiting: tuple[Ticks, Ticks]


class InteractivityMeter:
    """Measure one conversation frame by frame.

    The same frames give the same events, live or from files. Memory grows by the event log alone, about 25 kB per
    minute of lively talk.
    """

    def __init__(self, *, user_detector: str = "speech", agent_detector: str = "level") -> None:
        """Start a conversation.

        Args:
            user_detector: "speech" (Silero's network, for a microphone) or "level" (loudness, for clean audio).
            agent_detector: The same for the agent, whose audio we generate.

        Raises:
            ConfigError: There is no detector of that name.
        """
        self._names = (user_detector, agent_detector)
        self._user, self._agent = make_detector(user_detector), make_detector(agent_detector)
        self._machine = EventMachine()
        self._waiting: tuple[Ticks, Ticks] = (np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.bool_))

    def push_frame(self, user_pcm: Pcm, agent_pcm: Pcm) -> list[Event]:
        """Observe one frame of both sides and return the events that became certain.

        Args:
            user_pcm: The user's frame at 24 kHz, float32, shape [1920].
            agent_pcm: The agent's frame of the same 80 ms.

        Raises:
            AudioError: A frame has another shape.
        """
        for side, pcm in (("user", user_pcm), ("agent", agent_pcm)):
            if pcm.shape != (FRAME_SAMPLES,):
                raise AudioError(f"the {side}'s frame has shape {list(pcm.shape)}; expected [{FRAME_SAMPLES}]")
        return self._observe(self._user.push(user_pcm), self._agent.push(agent_pcm))

    def report(self) -> InteractivityReport:
        """Return the report of the conversation so far, as if it ended here; the meter itself goes on."""
        ended = self._fork()
        ended._observe(ended._user.finish(), ended._agent.finish())
        ended._machine.finish()
        machine = ended._machine
        user, agent = self._names
        return build_report(machine.log, machine.now_s, user_detector=user, agent_detector=agent)

    def snapshot(self) -> MeterSnapshot:
        """Return a copy of the whole state."""
        return MeterSnapshot(
            detectors=self._names,
            user=self._user.snapshot(),
            agent=self._agent.snapshot(),
            machine=self._machine.snapshot(),
            waiting=(self._waiting[0].copy(), self._waiting[1].copy()),
        )

    def restore(self, snapshot: MeterSnapshot) -> None:
        """Go back to a snapshot; what follows is bit for bit the same.

        Raises:
            StreamError: The snapshot is of a meter with other detectors.
        """
        self._user.restore(snapshot.user)
        self._agent.restore(snapshot.agent)
        self._machine.restore(snapshot.machine)
        self._waiting = (snapshot.waiting[0].copy(), snapshot.waiting[1].copy())

    def _fork(self) -> InteractivityMeter:
        twin = InteractivityMeter(user_detector=self._names[0], agent_detector=self._names[1])
        twin.restore(self.snapshot())
        return twin

    def _observe(self, user: Ticks, agent: Ticks) -> list[Event]:
        # The detectors look ahead by different times: what only one side knows waits.
        user, agent = np.concatenate([self._waiting[0], user]), np.concatenate([self._waiting[1], agent])
        known = min(len(user), len(agent))
        self._waiting = (user[known:], agent[known:])
        return self._machine.advance(user[:known], agent[:known])


def measure(
    user_pcm: Pcm,
    agent_pcm: Pcm,
    sample_rate_hz: int,
    *,
    user_detector: str = "speech",
    agent_detector: str = "level",
    show_progress: bool = False,
) -> InteractivityReport:
    """Measure a recorded conversation: the loop over `InteractivityMeter` that a live session runs.

    Args:
        user_pcm: The user's channel, float32 in [-1, 1], shape [n].
        agent_pcm: The agent's channel; the shorter of the two is padded with silence.
        sample_rate_hz: Rate of both channels.
        user_detector: See `InteractivityMeter`.
        agent_detector: See `InteractivityMeter`.
        show_progress: Draw a progress bar on stderr.

    Raises:
        AudioError: A channel is empty, not one-dimensional, not float32, not finite or far beyond [-1, 1].
        ConfigError: The rate is out of range or there is no such detector.
    """
    meter = InteractivityMeter(user_detector=user_detector, agent_detector=agent_detector)
    user, agent = _prepare("user", user_pcm, sample_rate_hz), _prepare("agent", agent_pcm, sample_rate_hz)
    frames = -(-max(len(user), len(agent)) // FRAME_SAMPLES)
    user, agent = (np.pad(pcm, (0, frames * FRAME_SAMPLES - len(pcm))) for pcm in (user, agent))
    begins = range(0, len(user), FRAME_SAMPLES)
    for begin in tqdm(begins, unit="frame", desc="measuring", leave=False, disable=not show_progress):
        meter.push_frame(user[begin : begin + FRAME_SAMPLES], agent[begin : begin + FRAME_SAMPLES])
    return meter.report()


def _prepare(side: str, pcm: Pcm, sample_rate_hz: int) -> Pcm:
    if pcm.ndim != 1 or pcm.dtype != np.float32 or not len(pcm):
        raise AudioError(f"the {side}'s channel is {pcm.dtype} {list(pcm.shape)}; expected float32 [n], n > 0")
    if not np.isfinite(pcm).all():
        raise AudioError(f"the {side}'s channel holds NaN or infinity; decode the recording again")
    peak = float(np.abs(pcm).max())
    if peak > MAX_LEVEL:
        raise AudioError(f"the {side}'s channel reaches {peak:g}; expected [-1, 1]; divide int16 by 32768")
    return resample(pcm, sample_rate_hz, SAMPLE_RATE_HZ)
