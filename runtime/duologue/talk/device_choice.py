"""What `--input` and `--output` mean: a real device by index or name, or the fake one; and which one comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from duologue.audio.device import DeviceSpec
from duologue.audio.devices import DeviceInfo, Side
from duologue.audio.driver import PortAudioSpec
from duologue.audio.fake import FakeSpec
from duologue.errors import ConfigError, DeviceError

_FAKE = "fake"
_DEMO = "demo"
# Under JACK every program is a device, the one that is talking included.
_OURSELVES = "PortAudio"


def device_spec(microphone: str | None, loudspeaker: str | None, host_api: str | None = None) -> DeviceSpec:
    """Return the device that two options describe.

    "fake" is a device made of arithmetic, for trying things without sound: its microphone hears silence, with
    "fake:demo" the bundled recorded user, with "fake:FILE" any recording, and its loudspeaker plays to nobody.

    Args:
        microphone: Index, name or unique part of it; "fake...", or None for the default.
        loudspeaker: Likewise; "fake" is implied by a fake microphone.
        host_api: Part of the sound system's name, to look only there.

    Raises:
        ConfigError: If only one of them is fake, or its recording is missing.
    """
    if microphone is not None and microphone.split(":", 1)[0] == _FAKE:
        if loudspeaker not in (None, _FAKE):
            raise ConfigError(f"--input {microphone} has its own loudspeaker; leave out --output {loudspeaker}")
        return FakeSpec(user=_recording(microphone))
    if loudspeaker == _FAKE:
        raise ConfigError("--output fake needs --input fake, fake:demo or fake:FILE")
    return PortAudioSpec(input=_index_or_name(microphone), output=_index_or_name(loudspeaker), host_api=host_api)


def next_device(
    device: DeviceSpec, side: Side, name: str, list_devices: Callable[[], Sequence[DeviceInfo]]
) -> DeviceSpec:
    """Return the same pair with the next microphone or loudspeaker that this machine has.

    Args:
        device: The pair now.
        side: What to replace.
        name: What is there now.
        list_devices: Looks for devices, afresh.

    Raises:
        ConfigError: If the device is the fake one.
        DeviceError: If there is no other.
    """
    if not isinstance(device, PortAudioSpec):
        raise ConfigError("the fake device has no other to switch to; start without --input fake")
    host_api = (device.host_api or "").lower()
    able = [one for one in list_devices() if one.channels(side) > 0 and host_api in one.host_api.lower()]
    able = [one for one in able if one.name != _OURSELVES]
    now = _place(able, device.input if side == "input" else device.output, name, side)
    if not able or (now is not None and len(able) == 1):
        raise DeviceError(f"this machine has no other {'microphone' if side == 'input' else 'loudspeaker'}")
    chosen = able[(now + 1) % len(able)] if now is not None else able[0]
    # A name outlasts the coming and going of devices, an index does not.
    is_alone = [one.name for one in able].count(chosen.name) == 1
    wanted = chosen.name if is_alone else chosen.index
    return replace(device, input=wanted) if side == "input" else replace(device, output=wanted)


def _place(able: Sequence[DeviceInfo], wanted: int | str | None, name: str, side: Side) -> int | None:
    """Return where the device at hand stands; of several of its name, by its index or because it is the default."""
    places = [place for place, one in enumerate(able) if one.name == name]
    for place in places:
        one = able[place]
        is_default = one.is_default_input if side == "input" else one.is_default_output
        if one.index == wanted or (wanted is None and is_default):
            return place
    return places[0] if places else None


def _recording(microphone: str) -> str | None:
    _, _, name = microphone.partition(":")
    if not name:
        return None
    if name == _DEMO:
        return str(files("duologue") / "data" / "demo_user.flac")
    if not Path(name).is_file():
        raise ConfigError(f"{name}: no such recording; use fake, fake:demo or fake:FILE")
    return name


def _index_or_name(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text
