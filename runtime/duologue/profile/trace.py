"""The measured frames in the trace event format of Chrome and Perfetto: a track per stage, late frames, rings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from duologue.metrics.types import Event
from duologue.profile.audio_facts import AudioFacts
from duologue.profile.engines import MeasuredEngine
from duologue.profile.frames import FrameTime, Pacing
from duologue.types import FRAME_MS, FRAME_RATE_HZ

_FRAME_TRACK = 0
_MARKED = ("interruption", "agent_yielded", "takeover", "turn_missed", "backchannel")
_PACING_WORDS: dict[Pacing, str] = {"real_time": "in real time", "back_to_back": "back to back"}


def render_trace(engines: Sequence[MeasuredEngine], audio: AudioFacts | None = None) -> str:
    """Return the trace as JSON text; open it in ui.perfetto.dev or chrome://tracing.

    Every run of an engine is a process of its own, every stage a thread in it; marks say where the user broke in and
    the like. Times are those of the monotonic clock, so the trace lies beside others of this machine.

    Args:
        engines: Measured engines; one without frames adds nothing.
        audio: The sound device, a process of its own: callbacks by driver thread, xruns as marks, rings as counters.
    """
    runs = [(engine, pacing, times) for engine in engines for pacing, times in engine.times.items() if times]
    events: list[dict[str, Any]] = []
    for process, (engine, pacing, times) in zip(count(1), runs, strict=False):
        name = f"{engine.profile.name}, {_PACING_WORDS[pacing]}"
        events += _names(process, name, [s for s in times[0].stage_ms if s != "total"])
        for time in times:
            events += _frame_events(process, time)
        events += _marks(process, times, engine.events.get(pacing, ()))
    if audio is not None:
        events += _audio_events(len(runs) + 1, audio)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, allow_nan=False)


def _names(process: int, name: str, stages: Sequence[str]) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}
    for track, stage in enumerate(["frame", *stages]):
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": track, "args": {"name": stage}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": track, "args": {"sort_index": track}}


def _audio_events(process: int, audio: AudioFacts) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": "sound device"}}
    for thread in sorted({call.thread for call in audio.calls}):
        track = {"ph": "M", "pid": process, "tid": 1 + thread}
        yield {**track, "name": "thread_name", "args": {"name": f"driver callback {1 + thread}"}}
    for call in audio.calls:
        at = {"cat": "audio", "pid": process, "tid": 1 + call.thread, "ts": 1e6 * call.at_s}
        yield {**at, "ph": "X", "name": "callback", "dur": 1e3 * call.body_ms, "args": {"xruns": list(call.xruns)}}
        if call.xruns:
            yield {**at, "ph": "i", "s": "p", "name": "xrun", "args": {"kinds": list(call.xruns)}}
    for moment in audio.moments:
        rings = {"loudspeaker ring": moment.fill_ms, "microphone ring": moment.backlog_ms, "lag": moment.lag_ms}
        for name, ms in rings.items():
            counter = {"ph": "C", "name": f"{name} ms", "pid": process, "tid": 0, "ts": 1e6 * moment.at_s}
            yield {**counter, "args": {"ms": ms}}


def _marks(process: int, times: Sequence[FrameTime], events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    for event in events:
        # The conversation began with a frame that is not among the measured ones.
        number = int(event.start_s * FRAME_RATE_HZ) - 1
        if event.kind in _MARKED and 0 <= number < len(times):
            mark = {"ph": "i", "s": "p", "cat": "conversation", "name": event.kind, "pid": process, "tid": _FRAME_TRACK}
            yield {**mark, "ts": 1e6 * times[number].begun_s, "args": {"at_s": event.start_s}}


def _frame_events(process: int, time: FrameTime) -> Iterator[dict[str, Any]]:
    begun_us = 1e6 * time.begun_s
    total_us = 1e3 * time.stage_ms["total"]
    details = {
        "frame": time.index,
        "late": time.is_late,
        "waited_ms": 1e3 * (time.begun_s - time.due_s),
        "budget_share": time.stage_ms["total"] / FRAME_MS,
    }
    whole = {
        "ph": "X",
        "cat": "frame",
        "name": "late frame" if time.is_late else "frame",
        "pid": process,
        "tid": _FRAME_TRACK,
        "ts": begun_us,
        "dur": total_us,
        "args": details,
    }
    if time.is_late:
        whole["cname"] = "terrible"
        mark = {"ph": "i", "s": "p", "cat": "frame", "name": "late", "pid": process, "tid": _FRAME_TRACK}
        yield {**mark, "ts": begun_us + total_us, "args": {"frame": time.index}}
    yield whole
    stages = [(stage, ms) for stage, ms in time.stage_ms.items() if stage != "total"]
    at_us = begun_us
    for track, (stage, ms) in enumerate(stages, start=_FRAME_TRACK + 1):
        yield {
            "ph": "X",
            "cat": "stage",
            "name": stage,
            "pid": process,
            "tid": track,
            "ts": at_us,
            "dur": 1e3 * ms,
            "args": {"frame": time.index},
        }
        at_us += 1e3 * ms
    counter = {"ph": "C", "name": "frame ms", "pid": process, "tid": _FRAME_TRACK, "ts": begun_us}
    yield {**counter, "args": {"total": time.stage_ms["total"]}}
