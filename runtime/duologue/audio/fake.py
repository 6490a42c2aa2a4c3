"""A duplex device made of arithmetic: it makes the calls a driver would make, in real or simulated time.

It drives the same native callback as PortAudio, with clocks that may be off by parts per million, jitter, stalls and
disappearance, so that everything above the driver can be tested without a sound server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duologue._native import AudioPort
from duologue.audio.device import StreamInfo
from duologue.audio.files import AudioFile
from duologue.audio.port import SharedPort
from duologue.errors import ConfigError, DeviceError
from duologue.types import Pcm

_OVERFLOW_AND_UNDERFLOW = 2 | 4

User = Callable[[int, int], Pcm]
"""What the microphone hears: samples [start, start + count) of the device's own stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeTiming:
    """How the device keeps time.

    Attributes:
        input_ppm: How much faster than nominal the microphone's clock runs.
        output_ppm: Likewise for the loudspeaker.
        is_one_clock: One call for both directions; both run at `input_ppm`.
        jitter_ms: Mean of the exponentially distributed lateness of a call.
        stalls: Spans (from_s, to_s) in which no call is made and the audio is lost, as in an xrun.
        echo_gain: Share of the loudspeaker's sound that the microphone hears.
        echo_delay_ms: How much later, on top of the block.
    """

    input_ppm: float = 0.0
    output_ppm: float = 0.0
    is_one_clock: bool = True
    jitter_ms: float = 0.0
    stalls: tuple[tuple[float, float], ...] = ()
    echo_gain: float = 0.0
    echo_delay_ms: float = 10.0


class FakeDevice:
    """Makes one driver call at a time; `simulate` or a thread decides when.

    Attributes:
        heard: Blocks that the loudspeaker played, where they are kept.
    """

    def __init__(
        self,
        port: AudioPort,
        user: User,
        timing: FakeTiming,
        *,
        sample_rate_hz: int,
        block_samples: int,
        keeps_heard: bool = True,
        seed: int = 0,
    ) -> None:
        """Configure the port for this device.

        Args:
            port: Where the calls go.
            user: Sound at the microphone.
            timing: How the clocks run.
            sample_rate_hz: Nominal rate of both directions.
            block_samples: Samples per call.
            keeps_heard: Whether to keep what was played, which grows with time.
            seed: Of the jitter.
        """
        self.heard: list[Pcm] = []
        self._port, self._user, self._timing = port, user, timing
        self._block, self._keeps_heard = block_samples, keeps_heard
        self._random = np.random.default_rng(seed)
        ppm = (timing.input_ppm, timing.input_ppm if timing.is_one_clock else timing.output_ppm)
        self._period_s = tuple(block_samples / (sample_rate_hz * (1 + value * 1e-6)) for value in ppm)
        self._blocks = [0, 0]
        self._is_flagged = [False, False]
        self._room: Pcm = np.zeros(block_samples + round(timing.echo_delay_ms * sample_rate_hz / 1e3), dtype=np.float32)
        port.configure(input_hz=sample_rate_hz, output_hz=sample_rate_hz)

    def next_call_s(self) -> float:
        """Return when the next call is due, in seconds from the start."""
        return min(self._due_s(side) for side in self._sides)

    def call(self, *, now_ns: int = 0) -> None:
        """Make the call that is due; `now_ns` 0 stamps it by the real clock."""
        side = min(self._sides, key=self._due_s)
        due_s = self._due_s(side)
        block = self._blocks[side]
        self._blocks[side] += 1
        if any(begin <= due_s < end for begin, end in self._timing.stalls):
            self._is_flagged[side] = True
            return
        flags = _OVERFLOW_AND_UNDERFLOW if self._is_flagged[side] else 0
        self._is_flagged[side] = False
        wants_input, wants_output = side == 0, side == 1 or self._timing.is_one_clock
        sound = self._user(block * self._block, self._block) if wants_input else None
        if sound is not None:
            sound = sound + self._timing.echo_gain * self._room[: self._block]
        late_ns = int(1e6 * self._random.exponential(self._timing.jitter_ms)) if self._timing.jitter_ms else 0
        stamp_ns = now_ns + late_ns if now_ns else 0
        played = self._port.drive(sound, self._block if wants_output else 0, now_ns=stamp_ns, flags=flags)
        if played is not None:
            self._room = np.concatenate([self._room, played])[self._block :]
        if played is not None and self._keeps_heard:
            self.heard.append(played)

    @property
    def _sides(self) -> tuple[int, ...]:
        return (0,) if self._timing.is_one_clock else (0, 1)

    def _due_s(self, side: int) -> float:
        return (self._blocks[side] + 1) * self._period_s[side]


def play_array(pcm: Pcm, *, is_repeated: bool = False) -> User:
    """Return a user who says `pcm` once and is silent after, or says it again and again."""

    def user(start: int, count: int) -> Pcm:
        if is_repeated and len(pcm):
            return pcm.take(np.arange(start, start + count), mode="wrap")
        block = pcm[start : start + count]
        return np.pad(block, (0, count - len(block))).astype(np.float32)

    return user


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSpec:
    """A fake device in real time, for conversations without sound hardware.

    Attributes:
        user: Recording that the microphone hears; None for silence.
        is_repeated: Whether it begins again at its end.
        sample_rate_hz: Nominal rate of both directions.
        block_ms: Length of a driver call.
        timing: How the clocks run.
        vanish_after_s: The calls stop then, as if the device was unplugged; None for never.
        away_s: How long it stays away; opening it fails meanwhile.
        heard_path: Where to save what the loudspeaker played, as float32 .npy, when the device closes.
    """

    user: str | None = None
    is_repeated: bool = False
    sample_rate_hz: int = 24_000
    block_ms: float = 20.0
    timing: FakeTiming = FakeTiming()
    vanish_after_s: float | None = None
    away_s: float = 1.0
    heard_path: str | None = None

    def open(self, shared: SharedPort) -> FakeStream:
        """Bind to a port.

        Raises:
            DeviceError: While the device is away.
            AudioError: If the recording cannot be read.
            ConfigError: If the block is shorter than a sample.
        """
        if time.monotonic() < _returns_at_s.get(self, 0.0):
            raise DeviceError("the fake device is away; wait until it returns")
        block = round(self.block_ms * self.sample_rate_hz / 1e3)
        if block < 1:
            raise ConfigError(f"block_ms = {self.block_ms} is less than one sample")
        sound = np.zeros(0, dtype=np.float32)
        if self.user is not None:
            sound = AudioFile(self.user).read(self.sample_rate_hz)
        device = FakeDevice(
            shared.port,
            play_array(sound, is_repeated=self.is_repeated),
            self.timing,
            sample_rate_hz=self.sample_rate_hz,
            block_samples=block,
            keeps_heard=self.heard_path is not None,
        )
        return FakeStream(self, device)


# When a device that vanished is there again; per process, since the spec itself is only a description.
_returns_at_s: dict[FakeSpec, float] = {}


class FakeStream:
    """The thread that makes a fake device's calls in real time."""

    def __init__(self, spec: FakeSpec, device: FakeDevice) -> None:
        """Prepare; `start` starts."""
        rate_hz = float(spec.sample_rate_hz)
        self.info = StreamInfo(
            input_name="fake",
            output_name="fake",
            host_api="none",
            input_hz=rate_hz,
            output_hz=rate_hz,
            is_one_clock=spec.timing.is_one_clock,
        )
        self._spec, self._device = spec, device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="duologue-fake-device", daemon=True)

    def start(self) -> None:
        """Let the audio flow."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Return True: like a real one, a vanished device only falls silent."""
        return True

    def close(self) -> None:
        """Stop and save what was heard."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(0.5)
        if self._spec.heard_path is not None and self._device.heard:
            np.save(self._spec.heard_path, np.concatenate(self._device.heard))

    def _run(self) -> None:
        begun_s = time.monotonic()
        vanish_s = self._spec.vanish_after_s
        has_vanished_before = self._spec in _returns_at_s
        while True:
            due_s = self._device.next_call_s()
            if vanish_s is not None and due_s > vanish_s and not has_vanished_before:
                _returns_at_s[self._spec] = time.monotonic() + self._spec.away_s
                return
            if self._stop.wait(max(0.0, begun_s + due_s - time.monotonic())):
                return
            self._device.call()
