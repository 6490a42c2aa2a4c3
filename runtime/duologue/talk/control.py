"""The hand on a live conversation: what each key does, the regular questions, and the orderly end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from duologue.audio.device import DeviceSpec
from duologue.audio.devices import Side, list_devices
from duologue.audio.live import LiveSession
from duologue.errors import ConfigError, DuologueError, StreamError
from duologue.metrics.types import InteractivityReport
from duologue.talk.choice import seed_for
from duologue.talk.device_choice import next_device
from duologue.talk.state import TalkState

PADDING_STEP = 0.5
"""Change of the padding bias by one key press."""
TEMPERATURE_STEP = 0.1
"""Change of both temperatures by one key press."""

_POLL_S = 1.0
_FINAL_REPORT_S = 0.7
_SETTLE_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One conversation between two resets.

    Attributes:
        agent: Name of the agent.
        report: What was measured.
        transcript: The agent's text as (time in seconds, piece).
        first_frame: Frame of the recording at which it begins.
    """

    agent: str
    report: InteractivityReport
    transcript: list[tuple[float, str]]
    first_frame: int


class TalkControl:
    """Steers a live conversation without ever making the caller wait."""

    def __init__(
        self, live: LiveSession, state: TalkState, *, agents: Sequence[str], device: DeviceSpec, seed: int = 0
    ) -> None:
        """Watch the conversation from now on.

        Args:
            live: The conversation.
            state: Where events and answers are gathered.
            agents: Names of the agents that the conversation's `AgentChoice` holds, in its order.
            device: What the conversation was opened with.
            seed: Seed of the conversation.
        """
        self._live, self._state = live, state
        self._agents, self._device, self._seed = list(agents), device, seed
        self._agent_index = 0
        self._first_frame = 0
        self._takes: list[Take] = []
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        live.on("*", state.apply)
        self._poller = threading.Thread(target=self._poll, name="duologue-talk-poll", daemon=True)
        self._poller.start()

    # Keys; each returns at once and tells the outcome through the state

    def toggle_mute(self) -> None:
        """Give the agent silence instead of the microphone, or the microphone again."""
        self._start(self._toggle_mute)

    def flush(self) -> None:
        """Silence the agent's audio that waits to be played."""
        self._start(self._flush)

    def reset(self) -> None:
        """Begin a new conversation with the same agent; the one so far is kept for the end."""
        self._start(lambda: self._begin_anew(self._agent_index), is_slow=True)

    def next_agent(self) -> None:
        """Begin a new conversation with the next agent."""
        if len(self._agents) < 2:
            self._state.say("one agent only: give --adapter, or --agent several times, to switch", "warn")
            return
        self._start(lambda: self._begin_anew((self._agent_index + 1) % len(self._agents)), is_slow=True)

    def next_device(self, side: Side) -> None:
        """Go on with the next microphone ("input") or loudspeaker ("output"); the conversation keeps its memory."""
        self._start(lambda: self._next_device(side), is_slow=True)

    def change_padding(self, steps: int) -> None:
        """Make the agent quieter (steps above 0) or more talkative."""
        self._start(lambda: self._change_padding(steps), is_slow=True)

    def change_temperature(self, steps: int) -> None:
        """Make the agent's choice of tokens wilder (steps above 0) or steadier."""
        self._start(lambda: self._change_temperature(steps), is_slow=True)

    def finish(self) -> list[Take]:
        """End the conversation, within about a second, and return every take, the last one last."""
        self._stop.set()
        # A reset under way would move the take's borders.
        has_settled = self._one_at_a_time.acquire(timeout=_SETTLE_S)
        report = self._final_report()
        name = self._agents[self._agent_index]
        self._live.close()
        last = Take(agent=name, report=report, transcript=self._state.transcript, first_frame=self._first_frame)
        if has_settled:
            self._one_at_a_time.release()
        return [*self._takes, last]

    @property
    def is_over(self) -> bool:
        """Whether the conversation ended by itself."""
        return not self._live.is_running

    def _start(self, action: Callable[[], None], *, is_slow: bool = False) -> None:
        # Mute and flush must not queue behind a reset that waits for a device.
        def run() -> None:
            try:
                if not is_slow:
                    action()
                    return
                with self._one_at_a_time:
                    action()
            except DuologueError as error:
                self._state.say(str(error), "bad")

        threading.Thread(target=run, name="duologue-talk-key", daemon=True).start()

    def _toggle_mute(self) -> None:
        is_muted = not self._state.view().is_muted
        self._live.mute(is_muted)
        self._state.set_muted(is_muted)
        self._state.say("muted: the agent hears silence" if is_muted else "the agent hears you again")

    def _flush(self) -> None:
        self._state.say(f"flushed: {self._live.interrupt():.0f} ms of the agent's audio discarded")

    def _begin_anew(self, index: int) -> None:
        report = self._live.report()
        name, transcript = self._agents[self._agent_index], self._state.transcript
        next_first = self._live.reset(seed=seed_for(index, self._seed, len(self._agents)))
        self._live.set_sampling(**_values(self._state))
        if report.duration_s > 0:
            take = Take(agent=name, report=report, transcript=transcript, first_frame=self._first_frame)
            self._takes.append(take)
        self._agent_index, self._first_frame = index, next_first
        self._state.set_agent(index)
        self._state.say(f"a new conversation with {self._agents[index]}", "good")

    def _next_device(self, side: Side) -> None:
        now = self._live.stats().device or self._live.device
        name = now.input_name if side == "input" else now.output_name
        device = next_device(self._device, side, name, list_devices)
        info = self._live.switch_device(device)
        self._device = device
        self._state.say(f"now through {info.input_name} and {info.output_name}", "good")

    def _change_padding(self, steps: int) -> None:
        sampling = self._state.sampling
        bias = round(sampling.padding_bias + steps * PADDING_STEP, 3)
        self._live.set_sampling(padding_bias=bias)
        self._state.set_sampling(replace(sampling, padding_bias=bias))
        self._state.say(f"padding bias {bias:+g}: the agent talks {'less' if steps > 0 else 'more'}")

    def _change_temperature(self, steps: int) -> None:
        sampling = self._state.sampling
        step = steps * TEMPERATURE_STEP
        changed = {
            name: max(0.0, round(getattr(sampling, name) + step, 3))
            for name in ("temperature_text", "temperature_audio")
        }
        self._live.set_sampling(**changed)
        self._state.set_sampling(replace(sampling, **changed))
        self._state.say("temperature of text {temperature_text:g}, of audio {temperature_audio:g}".format(**changed))

    def _poll(self) -> None:
        while not self._stop.wait(_POLL_S):
            self._state.measure()
            try:
                self._state.set_stats(self._live.stats())
            except StreamError as error:
                if not self._live.is_running and not self._stop.is_set():
                    self._state.end(str(error))

    def _final_report(self) -> InteractivityReport:
        answer: list[InteractivityReport] = []

        def ask() -> None:
            try:
                answer.append(self._live.report())
            except (StreamError, ConfigError) as error:
                self._state.say(str(error), "bad")

        thread = threading.Thread(target=ask, name="duologue-talk-report", daemon=True)
        thread.start()
        thread.join(_FINAL_REPORT_S)
        # A conversation that hangs or died is reported by what it told before.
        return answer[0] if answer else self._state.measure()


def _values(state: TalkState) -> dict[str, float]:
    sampling = state.sampling
    return {name: getattr(sampling, name) for name in ("temperature_text", "temperature_audio", "padding_bias")}
