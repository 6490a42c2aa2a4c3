"""What `--input` and `--output` mean: a real device by index or name, or the fake one."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from duologue.audio.device import DeviceSpec
from duologue.audio.driver import PortAudioSpec
from duologue.audio.fake import FakeSpec
from duologue.errors import ConfigError

_FAKE = "fake"
_DEMO = "demo"


def device_spec(microphone: str | None, loudspeaker: str | None) -> DeviceSpec:
    """Return the device that two options describe.

    "fake" is a device made of arithmetic, for trying things without sound: its microphone hears silence, with
    "fake:demo" the bundled recorded user, with "fake:FILE" any recording, and its loudspeaker plays to nobody.

    Args:
        microphone: Index, name or unique part of it; "fake...", or None for the default.
        loudspeaker: Likewise; "fake" is implied by a fake microphone.

    Raises:
        ConfigError: If only one of them is fake, or its recording is missing.
    """
    if microphone is not None and microphone.split(":", 1)[0] == _FAKE:
        if loudspeaker not in (None, _FAKE):
            raise ConfigError(f"--input {microphone} has its own loudspeaker; leave out --output {loudspeaker}")
        return FakeSpec(user=_recording(microphone))
    if loudspeaker == _FAKE:
        raise ConfigError("--output fake needs --input fake, fake:demo or fake:FILE")
    return PortAudioSpec(input=_index_or_name(microphone), output=_index_or_name(loudspeaker))


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
