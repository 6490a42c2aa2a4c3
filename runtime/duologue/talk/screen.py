"""The full-screen card of `duologue talk`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widget import Widget

from duologue.audio.devices import Side
from duologue.talk import figures, words
from duologue.talk.control import TalkControl
from duologue.talk.lanes import lane_lines
from duologue.talk.state import TalkState, View

MIN_COLUMNS, MIN_ROWS = 60, 20
"""Smallest terminal in which the card can be read; 80x24 shows all of it."""

_ROOMY_COLUMNS, _ROOMY_ROWS = 112, 36
_REFRESH_S = 0.16

Draw = Callable[[View, int, int], list[Text]]
"""Draws a view into columns and rows."""


class Panel(Widget):
    """One part of the card."""

    def __init__(self, draw: Draw, *, title: str, id: str) -> None:
        """Show what `draw` draws; the title stands in the border where there is one."""
        super().__init__(id=id)
        self.border_title = title
        self._draw = draw
        self._shown = Text()

    def follow(self) -> None:
        """Draw the present moment, but only if it looks different."""
        if self.display and self._picture() != self._shown:
            self.refresh()

    def render(self) -> Text:
        """Draw the present moment."""
        self._shown = self._picture()
        return self._shown

    def _picture(self) -> Text:
        app = self.app
        assert isinstance(app, TalkApp)
        width, height = self.content_size
        lines = self._draw(app.moment, width, height)[: max(height, 0)]
        for line in lines:
            line.no_wrap = True
            line.truncate(max(width, 0))
        return Text("\n").join(lines)


class TalkApp(App[None]):
    """The card: draws the state six times a second and hands keys to the control."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; background: #0d1117; color: #e6edf3; overflow: hidden; }
    Panel { width: 1fr; height: auto; background: #0d1117; }
    #head, #message, #keys { height: 1; }
    #lanes { height: 3; }
    #transcript { height: 2; }
    #numbers { height: 1fr; layout: vertical; background: #0d1117; }
    #axes { height: 1fr; }
    #side { height: 6; layout: vertical; background: #0d1117; }
    #latency { height: 4; }
    #device { height: 2; }
    #too-small { display: none; height: 1fr; }
    .roomy Panel { border: round #30363d; border-title-color: #7d8590; padding: 0 1; }
    .roomy #head, .roomy #message, .roomy #keys { border: none; }
    .roomy #lanes { height: 8; }
    .roomy #transcript { height: 4; }
    .roomy #numbers { layout: horizontal; }
    .roomy #axes { width: 1fr; height: 100%; }
    .roomy #side { width: 45; height: 100%; }
    .roomy #latency { height: 11; }
    .roomy #device { height: 1fr; }
    .small Panel, .small #numbers { display: none; }
    .small #too-small { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "mute", "mute"),
        Binding("f", "flush", "flush"),
        Binding("r", "reset", "reset"),
        Binding("a", "agent", "next agent"),
        Binding("i", "device('input')", "next microphone"),
        Binding("o", "device('output')", "next loudspeaker"),
        Binding("plus,equals_sign", "padding(1)", "quieter"),
        Binding("minus", "padding(-1)", "more talkative"),
        Binding("greater_than_sign,full_stop", "temperature(1)", "wilder"),
        Binding("less_than_sign,comma", "temperature(-1)", "steadier"),
        Binding("q,ctrl+c,ctrl+q", "quit", "quit", priority=True),
    ]

    def __init__(self, state: TalkState, control: TalkControl, *, seconds: float | None = None) -> None:
        """Show a conversation.

        Args:
            state: What to show.
            control: What the keys move.
            seconds: Leave after this time; None stays until a key says so.
        """
        super().__init__()
        self.moment = state.view()
        self.picture = ""
        self._talk, self._control, self._seconds = state, control, seconds

    def compose(self) -> ComposeResult:
        """Lay the parts out."""
        yield Panel(lambda view, width, height: [words.head_line(view, width)], title="", id="head")
        yield Panel(lane_lines, title="who speaks", id="lanes")
        yield Panel(words.transcript_lines, title="what the agent says", id="transcript")
        with Container(id="numbers"):
            yield Panel(_axes, title="interactivity, beside people on the telephone", id="axes")
            with Container(id="side"):
                yield Panel(
                    lambda view, _, height: figures.latency_lines(view.latency, height), title="80 ms", id="latency"
                )
                yield Panel(figures.device_lines, title="device", id="device")
        yield Panel(lambda view, width, height: [words.message_line(view, width)], title="", id="message")
        yield Panel(lambda view, width, height: [words.keys_line(view, width)], title="", id="keys")
        yield Panel(_too_small, title="", id="too-small")

    def on_mount(self) -> None:
        """Start the clocks."""
        self.set_interval(_REFRESH_S, self._tick)
        if self._seconds is not None:
            self.set_timer(self._seconds, self.leave)

    def on_resize(self, event: Resize) -> None:
        """Choose the layout that fits."""
        columns, rows = event.size
        self.screen.set_class(columns >= _ROOMY_COLUMNS and rows >= _ROOMY_ROWS, "roomy")
        self.screen.set_class(columns < MIN_COLUMNS or rows < MIN_ROWS, "small")

    def action_mute(self) -> None:
        """Mute the microphone, or no more."""
        self._control.toggle_mute()

    def action_flush(self) -> None:
        """Discard what waits to be played."""
        self._control.flush()

    def action_reset(self) -> None:
        """Begin a new conversation."""
        self._control.reset()

    def action_agent(self) -> None:
        """Begin a new conversation with the next agent."""
        self._control.next_agent()

    def action_device(self, side: Side) -> None:
        """Go on with the next microphone or loudspeaker."""
        self._control.next_device(side)

    def action_padding(self, steps: int) -> None:
        """Change the padding bias."""
        self._control.change_padding(steps)

    def action_temperature(self, steps: int) -> None:
        """Change the temperatures."""
        self._control.change_temperature(steps)

    async def action_quit(self) -> None:
        """Leave."""
        self.leave()

    def leave(self) -> None:
        """Give the terminal back, keeping a picture of the last moment."""
        self.picture = _self_contained(self.export_screenshot(title="duologue talk"))
        self.exit()

    def _tick(self) -> None:
        self.moment = self._talk.view()
        for panel in self.query(Panel):
            panel.follow()


def _self_contained(svg: str) -> str:
    """Replace the fonts that the picture would fetch by those of whoever looks at it."""
    svg = re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)
    return svg.replace("font-family: Fira Code", "font-family: 'DejaVu Sans Mono', Menlo, Consolas").replace(
        "Fira Code", "monospace"
    )


def _axes(view: View, width: int, height: int) -> list[Text]:
    lines = figures.axis_lines(view.report, view.change, width, height - 1)
    controls = Text(figures.control_text(view))
    controls.truncate(max(width, 0))
    return [controls, *lines]


def _too_small(view: View, width: int, height: int) -> list[Text]:
    return [Text("duologue talk"), Text(f"needs {MIN_COLUMNS}x{MIN_ROWS}"), Text("q quits")]
