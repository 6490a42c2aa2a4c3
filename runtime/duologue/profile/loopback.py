"""A fake duplex device whose microphone hears its own loudspeaker, for measuring the loop without sound hardware."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from duologue._native import AudioPort
from duologue.audio.device import StreamInfo
from duologue.audio.fake import FakeDevice, FakeTiming
from duologue.audio.port import SharedPort
from duologue.errors import ConfigError
from duologue.types import SAMPLE_RATE_HZ, Pcm


def loopback_device(
    port: AudioPort, *, delay_blocks: int, block_samples: int, sample_rate_hz: int = SAMPLE_RATE_HZ
) -> FakeDevice:
    """Return a device that plays into its own microphone.

    Args:
        port: Where its calls go.
        delay_blocks: Blocks between the loudspeaker and the microphone, at least 1.
        block_samples: Samples per call.
        sample_rate_hz: Rate of both directions.

    Raises:
        ConfigError: If the delay is less than one block, which no call could hear.
    """
    if delay_blocks < 1:
        raise ConfigError(f"delay_blocks = {delay_blocks}; a call hears what an earlier one played, so use 1 or more")

    played: list[Pcm] = []

    def hear(start: int, count: int) -> Pcm:
        block = start // block_samples - delay_blocks
        return played[block] if block >= 0 else np.zeros(count, dtype=np.float32)

    device = FakeDevice(port, hear, FakeTiming(), sample_rate_hz=sample_rate_hz, block_samples=block_samples)
    # The list and not the device is what `hear` knows, or the two would keep each other and the port's memory alive.
    device.heard = played
    return device


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopbackSpec:
    """Such a device in real time, as something to open.

    Attributes:
        delay_blocks: Blocks between the loudspeaker and the microphone.
        block_ms: Length of a block.
        sample_rate_hz: Rate of both directions.
    """

    delay_blocks: int = 2
    block_ms: float = 10.0
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def open(self, shared: SharedPort) -> LoopbackStream:
        """Bind to a port.

        Raises:
            ConfigError: If the delay is less than one block.
        """
        block = round(self.block_ms * self.sample_rate_hz / 1e3)
        device = loopback_device(
            shared.port, delay_blocks=self.delay_blocks, block_samples=block, sample_rate_hz=self.sample_rate_hz
        )
        return LoopbackStream(self, device)


class LoopbackStream:
    """The thread that makes the device's calls."""

    def __init__(self, spec: LoopbackSpec, device: FakeDevice) -> None:
        """Prepare; `start` starts."""
        self.info = StreamInfo(
            input_name="loop-back",
            output_name="loop-back",
            host_api="simulated",
            input_hz=spec.sample_rate_hz,
            output_hz=spec.sample_rate_hz,
            output_latency_ms=spec.delay_blocks * spec.block_ms,
        )
        self._device = device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="duologue-loop-back", daemon=True)

    def start(self) -> None:
        """Let the audio flow."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Return whether the calls go on."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(0.5)

    def _run(self) -> None:
        begun_s = time.monotonic()
        while not self._stop.wait(max(0.0, begun_s + self._device.next_call_s() - time.monotonic())):
            self._device.call()
