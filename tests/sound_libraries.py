"""What tests of live audio need from the machine."""

from __future__ import annotations

import pytest

from duologue.audio.portaudio import import_sounddevice
from duologue.errors import DeviceError, MissingExtraError


def require_sounddevice() -> None:
    """Skip, saying why, where sounddevice or the PortAudio library that it loads is missing."""
    try:
        import_sounddevice()
    except (DeviceError, MissingExtraError) as error:
        pytest.skip(str(error))
