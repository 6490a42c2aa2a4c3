"""The numbers of the card as terminal text: axes beside people, stage latencies, the device and its losses."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from duologue.metrics.latency import LatencySummary
from duologue.metrics.rows import Row, axis_rows, clock
from duologue.metrics.types import InteractivityReport
from duologue.talk.lanes import STYLES
from duologue.talk.state import Change, View
from duologue.types import FRAME_MS

STAGES = ("total", "encode", "model", "decode", "metrics", "resample")
"""Stages in the order of the table; "total" is the sum of the next four and of detokenising, which takes
microseconds; "resample" comes on top."""
_FURTHER = ("queue", "aec")
"""Shown where they were measured: how long a frame waited for its step, and the echo canceller."""

_NAMES = {
    "takeover rate": "pauses taken over",
    "offset to the agent": "offset to the agent",
    "answered within 2 s": "answered within 2 s",
    "missed turns": "missed turns",
    "talked over": "turns talked over",
    "brief answers": "brief answers",
    "offset to the user": "offset to the user",
    "per min of user speech": "backchannels",
    "placement": "backchannel placement",
    "unplaced": "unplaced backchannels",
    "yield rate": "yields to interruptions",
    "stop latency": "stop latency",
    "response latency": "response latency",
    "talks through backchannels": "talks through mm-hm",
}
_CHIEF = {
    "takeover rate",
    "offset to the agent",
    "missed turns",
    "per min of user speech",
    "yield rate",
    "stop latency",
    "response latency",
    "talks through backchannels",
}
_RARE = {"concealed", "mic lost", "cut", "device lost"}
_LABEL, _VALUE, _COUNT, _BAND, _VERDICT = 24, 9, 5, 26, 7
_VERDICT_STYLES = {"inside": STYLES["good"], "below": STYLES["warn"], "above": STYLES["warn"], "": ""}


# The axes


def axis_lines(report: InteractivityReport, change: Change | None, width: int, height: int) -> list[Text]:
    """Draw the four axes and selectivity beside people.

    Args:
        report: The axes.
        change: The last change of a control; then every axis also stands before and since it.
        width: Columns; a narrow table leaves out the human band, then the count.
        height: Rows; too few for all numbers leave the chief ones, enough part the axes.
    """
    now = axis_rows(report)
    parts = (axis_rows(change.before), axis_rows(change.since)) if change is not None else ()
    is_short, is_parted = height < 1 + len(_NAMES), height >= len(_NAMES) + len(now)
    columns = _Columns(width, has_change=change is not None)
    lines = [columns.head(change)]
    for axis, rows in now.items():
        if is_parted and len(lines) > 1:
            lines.append(Text())
        for index, row in enumerate(rows):
            if not is_short or row.label in _CHIEF:
                lines.append(columns.line(row, [part[axis][index] for part in parts], _NAMES[row.label]))
    return lines


class _Columns:
    """Which columns fit."""

    def __init__(self, width: int, *, has_change: bool) -> None:
        width -= _LABEL + _VALUE + _VERDICT
        self.has_change = has_change
        width -= 2 * (_VALUE + 1) if has_change else 0
        self.has_band = width >= _BAND
        width -= _BAND if self.has_band else 0
        self.has_count = width >= _COUNT

    def head(self, change: Change | None) -> Text:
        text = "axis".ljust(_LABEL) + "value".rjust(_VALUE) + ("n".rjust(_COUNT) if self.has_count else "")
        if change is not None:
            text += " " + f"<{clock(change.at_s)}".rjust(_VALUE) + " " + "since".rjust(_VALUE)
        text += ("  people: median (range)"[:_BAND]).ljust(_BAND) if self.has_band else ""
        return Text(text, style=STYLES["dim"])

    def line(self, row: Row, beside: Sequence[Row], label: str) -> Text:
        line = Text(label[:_LABEL].ljust(_LABEL))
        line.append(row.value_text.rjust(_VALUE), style="bold")
        if self.has_count:
            line.append(str(row.count).rjust(_COUNT), style=STYLES["dim"])
        for part in beside:
            line.append(" " + part.value_text.rjust(_VALUE), style=STYLES["dim"] if part is beside[0] else "bold")
        if self.has_band:
            line.append(f"  {row.band_text}"[:_BAND].ljust(_BAND), style=STYLES["dim"])
        line.append(row.verdict.rjust(_VERDICT), style=_VERDICT_STYLES[row.verdict])
        return line


def control_text(view: View) -> str:
    """Return the controls of the agent's manner in words."""
    sampling = view.sampling
    return (
        f"padding bias {sampling.padding_bias:+g}  "
        f"temperature {sampling.temperature_text:g} text, {sampling.temperature_audio:g} audio"
    )


# Time


def latency_lines(latency: dict[str, LatencySummary], height: int) -> list[Text]:
    """Draw the wall time of every stage; where rows are few one column a stage, else one row a stage."""
    stages = _shown(latency)
    if height < 1 + len(stages):
        return _latency_across(latency, stages)
    lines = [
        Text("stage, ms".ljust(9) + "".join(name.rjust(8) for name in ("p50", "p95", "p99", "max")), STYLES["dim"])
    ]
    for stage in stages:
        found = latency.get(stage)
        line = Text(stage.ljust(9))
        for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms"):
            line.append_text(_time_cell(None if found is None else getattr(found, name)))
        lines.append(line)
    return lines


def _shown(latency: dict[str, LatencySummary]) -> list[str]:
    return [*STAGES, *(stage for stage in _FURTHER if stage in latency)]


def _latency_across(latency: dict[str, LatencySummary], stages: list[str]) -> list[Text]:
    lines = [Text("ms".ljust(4) + "".join(stage.rjust(9) for stage in stages), style=STYLES["dim"])]
    for name in ("p50", "p95", "p99"):
        line = Text(name.ljust(4))
        for stage in stages:
            found = latency.get(stage)
            line.append(" ")
            line.append_text(_time_cell(None if found is None else getattr(found, f"{name}_ms")))
        lines.append(line)
    return lines


def _time_cell(time_ms: float | None) -> Text:
    if time_ms is None:
        return Text("-".rjust(8))
    return Text(f"{time_ms:.2f}".rjust(8), style=STYLES["bad"] if time_ms > FRAME_MS else "")


# The device


def device_facts(view: View) -> list[tuple[str, str, bool]]:
    """Return (name, value, whether it is a loss) of everything the device and the rings tell."""
    frame = view.frames[-1] if view.frames else None
    facts = [("ring", f"{frame.fill_ms:.0f} ms, low {view.ring_low_ms:.0f}" if frame else "-", False)]
    facts.append(("lag", f"{frame.lag_ms:.0f} ms" if frame else "-", False))
    count = frame.index + 1 if frame else 0
    facts.append(("late frames", f"{view.late_frames} of {count}", view.late_frames > 0))
    if view.stats is None:
        return facts
    stats = view.stats
    drift = "measuring" if stats.drift_ppm is None else f"{stats.drift_ppm:+.0f} ppm"
    late_calls = sum(one.late for one in stats.counters.callbacks)
    xruns = sum(one.flagged for one in stats.counters.callbacks)
    if stats.echo_reduction_db is not None:
        facts.append(("echo", f"{-stats.echo_reduction_db:+.0f} dB", False))
    return [
        *facts,
        ("drift", drift, False),
        ("xruns", f"{xruns}, late {late_calls}", xruns + late_calls > 0),
        ("concealed", f"{stats.concealed_ms:.0f} ms", stats.concealed_ms > 0),
        (
            "mic lost",
            f"{stats.dropped_user_ms + stats.lost_input_ms:.0f} ms",
            stats.dropped_user_ms + stats.lost_input_ms > 0,
        ),
        ("cut", f"{stats.cut_agent_ms:.0f} ms", stats.cut_agent_ms > 0),
        ("device lost", f"{stats.device_losses}×", stats.device_losses > 0),
    ]


def device_lines(view: View, width: int, height: int) -> list[Text]:
    """Draw the facts: one to a row where there are rows for it, else running on, without losses that did not occur."""
    facts = device_facts(view)
    if height >= len(facts):
        return [_fact(name.ljust(13), value, is_loss) for name, value, is_loss in facts]
    lines: list[Text] = [Text()]
    for name, value, is_loss in facts:
        if name in _RARE and not is_loss:
            continue
        piece = _fact(f"{name} ", value, is_loss)
        if lines[-1] and len(lines[-1]) + 3 + len(piece) > width:
            lines.append(Text())
        if lines[-1]:
            lines[-1].append(" · ", style=STYLES["dim"])
        lines[-1].append_text(piece)
    return lines


def _fact(name: str, value: str, is_loss: bool) -> Text:
    line = Text(name, style=STYLES["dim"])
    line.append(value, style=STYLES["warn"] if is_loss else "default")
    return line
