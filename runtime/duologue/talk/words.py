"""The sentences of the card: what runs, what is being recorded, what the agent says, what a key did."""

from __future__ import annotations

import textwrap

from rich.text import Text

from duologue.metrics.rows import clock
from duologue.talk.lanes import STYLES
from duologue.talk.state import View

KEYS = (
    ("q", "quit"),
    ("m", "mute"),
    ("f", "flush"),
    ("r", "reset"),
    ("a", "next agent"),
    ("+ −", "padding"),
    ("> <", "temperature"),
    ("i o", "mic, speaker"),
)
"""What the last line of the card offers; the first ones fit the narrowest terminal."""

_HINT_S = 8.0


def head_line(view: View, width: int) -> Text:
    """Say how long the conversation lasts, with whom and through which device, and whether it is muted or recorded."""
    line = Text(f"duologue talk  {clock(view.time_s)}  ", style="bold")
    if view.is_recording:
        line.append("RECORDING", style=f"bold {STYLES['bad']} reverse")
    elif view.setup.record_folder is not None:
        line.append("RECORDING FAILED", style=f"bold {STYLES['bad']}")
    else:
        line.append("not recording", style=STYLES["dim"])
    if view.is_muted:
        line.append("  MUTED", style=f"bold {STYLES['warn']}")
    if view.ended:
        line.append("  OVER", style=f"bold {STYLES['bad']}")
    elif view.device_error:
        line.append("  DEVICE LOST", style=f"bold {STYLES['bad']}")
    about = f"{view.setup.agents[view.agent_index]} · {_device(view)}"
    room = width - len(line) - 2
    if room > 8:
        line.append(_shortened(about, room).rjust(room + 2), style=STYLES["dim"])
    line.truncate(width)
    return line


def transcript_lines(view: View, width: int, height: int) -> list[Text]:
    """Draw the end of what the agent said."""
    words = "".join(piece for _, piece in view.transcript[-40 * height :]).strip()
    if not words:
        return [Text("the agent's words will stand here", style=STYLES["dim"])]
    lines = textwrap.wrap(words, max(8, width - 6))[-height:]
    return [
        Text("agent " if i == 0 else "      ", STYLES["agent"]).append(line, "default") for i, line in enumerate(lines)
    ]


def message_line(view: View, width: int) -> Text:
    """Say the most pressing thing: the end, a lost device, what a key did, or a hint."""
    if view.ended:
        return _cut(Text(f"{view.ended}; press q to save the report", style=STYLES["bad"]), width)
    if view.device_error:
        return _cut(Text(view.device_error, style=STYLES["bad"]), width)
    message, tone = view.message
    if message:
        return _cut(Text(message, style=STYLES[tone] if tone else "default"), width)
    return _cut(Text(_hint(view), style=STYLES["dim"]), width)


def keys_line(view: View, width: int) -> Text:
    """List the keys."""
    keys = [(key, what) for key, what in KEYS if key != "a" or len(view.setup.agents) > 1]
    line = Text()
    for key, what in keys:
        line.append(f" {key} ", style="bold reverse").append(f" {what}  ")
    if len(line) > width:
        line = Text(" ").join(Text.assemble((key.replace(" ", ""), "bold reverse"), f" {what}") for key, what in keys)
    return _cut(line, width)


def _hint(view: View) -> str:
    if view.setup.note and int(view.time_s // _HINT_S) % 2:
        return view.setup.note
    if view.is_recording:
        return f"This conversation is being recorded into {view.setup.record_folder}."
    if not view.setup.has_echo_canceller:
        return "Wear headphones: echo cancellation is off, or the agent hears itself (--aec for loudspeakers)."
    return "Echo cancellation is on; it takes 2 to 5 dB from you while both talk. With headphones, leave it off."


def _device(view: View) -> str:
    device = view.stats.device if view.stats is not None and view.stats.device is not None else view.setup.device
    name = (
        device.input_name if device.input_name == device.output_name else f"{device.input_name} / {device.output_name}"
    )
    rates = {device.input_hz, device.output_hz}
    return f"{name} · {' / '.join(f'{rate_hz / 1e3:g}' for rate_hz in sorted(rates))} kHz"


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line
