"""Sound devices of this machine: what there is, and which one a name means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from duologue.audio.driver import ask_driver
from duologue.errors import DeviceError

Side = Literal["input", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """A sound device.

    Attributes:
        index: Number to choose it by; changes when devices come and go.
        name: Name to choose it by.
        host_api: Sound system it belongs to, such as "ALSA" or "JACK Audio Connection Kit".
        input_channels: Microphone channels; 0 if it has none.
        output_channels: Loudspeaker channels; 0 if it has none.
        default_hz: Rate it prefers.
        is_default_input: Whether it is the microphone taken when none is named.
        is_default_output: Likewise for the loudspeaker.
    """

    index: int
    name: str
    host_api: str
    input_channels: int
    output_channels: int
    default_hz: float
    is_default_input: bool = False
    is_default_output: bool = False

    def channels(self, side: Side) -> int:
        """Return the channels of one side."""
        return self.input_channels if side == "input" else self.output_channels


def list_devices() -> list[DeviceInfo]:
    """Look for devices afresh.

    Runs in a process of its own: a sound server that hangs cannot hang the caller, and a device plugged in since is
    seen.

    Raises:
        MissingExtraError: If sounddevice is not installed.
        DeviceError: If PortAudio is missing or no answer comes within 10 s.
    """
    devices: list[DeviceInfo] = ask_driver("list")
    return devices


def choose_device(
    devices: Sequence[DeviceInfo], wanted: int | str | None, side: Side, *, host_api: str | None = None
) -> DeviceInfo:
    """Return the device that `wanted` means.

    Args:
        devices: All devices.
        wanted: Index; name or unique part of it, in any case; None for the default.
        side: Whether it is to be the microphone or the loudspeaker.
        host_api: Part of the sound system's name, to look only there.

    Raises:
        DeviceError: If none or several fit.
    """
    noun = "microphone" if side == "input" else "loudspeaker"
    able = [device for device in devices if device.channels(side) > 0]
    if host_api is not None:
        able = [device for device in able if host_api.lower() in device.host_api.lower()]
        if not able:
            known = ", ".join(sorted({device.host_api for device in devices})) or "none"
            raise DeviceError(f"no {noun} in host API {host_api!r}; host APIs here: {known}")
    if not able:
        raise DeviceError(
            f"this machine has no {noun}; plug one in or start a sound server, then run: duologue devices"
        )
    if wanted is None:
        default = [device for device in able if (device.is_default_input, device.is_default_output)[side == "output"]]
        return (default or able)[0]
    if isinstance(wanted, int):
        return _by_index(able, wanted, noun)
    return _by_name(able, wanted, noun)


def _by_index(able: Sequence[DeviceInfo], index: int, noun: str) -> DeviceInfo:
    for device in able:
        if device.index == index:
            return device
    raise DeviceError(f"device {index} is no {noun} here; choose one of: {_listing(able)}")


def _by_name(able: Sequence[DeviceInfo], name: str, noun: str) -> DeviceInfo:
    exact = [device for device in able if device.name.lower() == name.lower()]
    found = exact or [device for device in able if name.lower() in device.name.lower()]
    if not found:
        raise DeviceError(f"no {noun} is called {name!r}; choose one of: {_listing(able)}")
    if len(found) > 1:
        raise DeviceError(f"{name!r} fits several: {_listing(found)}; give an index or the host API")
    return found[0]


def _listing(devices: Sequence[DeviceInfo]) -> str:
    return ", ".join(f"{device.index} {device.name!r} ({device.host_api})" for device in devices)
