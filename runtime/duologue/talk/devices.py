"""The command `duologue devices`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duologue.audio.devices import DeviceInfo


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the sound devices of this machine.

    Raises:
        MissingExtraError: If sounddevice is not installed.
        DeviceError: If the sound system gives no answer.
    """
    from duologue.audio.devices import list_devices

    devices = list_devices()
    if options.json:
        sys.stdout.write(json.dumps([asdict(device) for device in devices], indent=2) + "\n")
    else:
        sys.stdout.write(device_table(devices))
    return 0


def device_table(devices: Sequence[DeviceInfo]) -> str:
    """Return the devices as a table, or a sentence where there is none."""
    if not devices:
        return "No sound device found; plug one in or start a server (`duologue talk --input fake:demo` needs none).\n"
    name = max(4, *(len(device.name) for device in devices))
    api = max(8, *(len(device.host_api) for device in devices))
    lines = [f"   #  {'name':<{name}}  {'host API':<{api}}   in  out     rate"]
    for device in devices:
        default = ("i" if device.is_default_input else " ") + ("o" if device.is_default_output else " ")
        lines.append(
            f"{default}{device.index:>2}  {device.name:<{name}}  {device.host_api:<{api}}  "
            f"{device.input_channels:>3}  {device.output_channels:>3}  {device.default_hz:>7.0f}"
        )
    lines.append("i, o: the microphone and the loudspeaker that are taken when none is named.")
    return "\n".join(lines) + "\n"
