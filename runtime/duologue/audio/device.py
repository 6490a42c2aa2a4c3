"""What a conversation needs of a sound device, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from duologue.audio.port import SharedPort


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """What a device agreed to.

    Attributes:
        input_name: Microphone.
        output_name: Loudspeaker.
        host_api: Sound system, such as "JACK Audio Connection Kit".
        input_hz: Rate of the microphone.
        output_hz: Rate of the loudspeaker.
        input_latency_ms: What the driver claims; a hint only, 0 when it claims nothing plausible.
        output_latency_ms: Likewise.
        is_one_clock: Whether one stream carries both directions.
        scheduling: What the system granted the driver's threads, such as "real-time 10"; "" where none was asked for.
    """

    input_name: str
    output_name: str
    host_api: str
    input_hz: float
    output_hz: float
    input_latency_ms: float = 0.0
    output_latency_ms: float = 0.0
    is_one_clock: bool = True
    scheduling: str = ""


class OpenDevice(Protocol):
    """A device that is bound to a port."""

    info: StreamInfo

    def start(self) -> None:
        """Let the audio flow. Raises: DeviceError."""

    def is_alive(self) -> bool:
        """Return whether whatever drives the callbacks still runs; silence is judged by the port's stamps."""

    def close(self) -> None:
        """Stop within half a second, whatever state the sound server is in."""


class DeviceSpec(Protocol):
    """A device one can open, again and again; crosses process borders by pickling."""

    def open(self, shared: SharedPort) -> OpenDevice:
        """Open without starting and configure the port for the device's rates.

        Raises:
            DeviceError: If there is no such device or it does not open.
        """
