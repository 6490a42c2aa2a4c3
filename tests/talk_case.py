"""A live conversation made of given parts, for tests of what shows and keeps it."""

from __future__ import annotations

import math

from duologue.audio.device import StreamInfo
from duologue.audio.port import CallbackCounters, PortCounters
from duologue.audio.wire import FrameEvent, LiveFrame, LiveStats
from duologue.config import Sampling
from duologue.metrics.latency import LatencyHistogram
from duologue.talk.state import Setup, TalkState

DEVICE = StreamInfo(input_name="mic", output_name="speaker", host_api="JACK", input_hz=48_000, output_hz=48_000)


def setup(**changes: object) -> Setup:
    return Setup(**{"agents": ("one",), "device": DEVICE, "playout_ms": 40.0, **changes})  # type: ignore[arg-type]


def state(**changes: object) -> TalkState:
    return TalkState(setup(**changes), Sampling())


def frame(index: int, *, text: str = "", model_ms: float = 10.0, level_dbfs: float = -math.inf) -> FrameEvent:
    live = LiveFrame(
        index=index,
        text=text,
        user_dbfs=level_dbfs,
        agent_dbfs=-20.0,
        stage_ms={
            "encode": 1.0,
            "model": model_ms,
            "decode": 1.0,
            "metrics": 0.5,
            "total": 2.5 + model_ms,
            "resample": 0.1,
        },
        is_late=model_ms > 77.5,
        lag_ms=140.0,
        fill_ms=60.0 + index % 3,
        backlog_ms=0.0,
    )
    return FrameEvent(kind="frame", side=None, start_s=index * 0.08, end_s=(index + 1) * 0.08, frame=live)


def stats(**changes: object) -> LiveStats:
    empty = LatencyHistogram().summary()
    xruns = {"input_underflow": 0, "input_overflow": 2, "output_underflow": 2, "output_overflow": 0}
    calls = CallbackCounters(calls=100, late=3, flagged=2, xruns=xruns, gap=empty, body=empty)
    counters = PortCounters(
        callbacks=(calls,),
        lost_input_samples=0,
        concealed_output_samples=0,
        concealed_events=0,
        silenced_samples=0,
        input_latency_ms=0.0,
        output_latency_ms=0.0,
    )
    values: dict[str, object] = {
        "frames": 10,
        "device": DEVICE,
        "device_losses": 1,
        "playout_ms": 40.0,
        "lag_ms": 140.0,
        "drift_ppm": -37.4,
        "received_ms": 840.0,
        "dropped_user_ms": 80.0,
        "cut_agent_ms": 20.0,
        "inserted_ms": 0.0,
        "concealed_ms": 12.0,
        "lost_input_ms": 5.0,
        "silenced_ms": 0.0,
        "echo_reduction_db": None,
        "counters": counters,
        "resample": empty,
        "dropped_events": 0,
        "is_muted": False,
    }
    return LiveStats(**{**values, **changes})  # type: ignore[arg-type]
