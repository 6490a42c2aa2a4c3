"""The profile as plain frozen data; `SCHEMA_VERSION` names its JSON form."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from duologue.profile.audio_facts import AudioFacts
from duologue.profile.engines import EngineProfile
from duologue.profile.frames import RunProfile
from duologue.profile.host import HostFacts, Pressure
from duologue.profile.timing import BUCKETS_MS, Timing
from duologue.types import FRAME_MS

SCHEMA_VERSION = 2
"""Version of the JSON form; it changes when a field is renamed, removed or redefined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wakeups:
    """How late a 1 ms ticker thread woke up, and what a thread that keeps the interpreter does to the frames.

    Attributes:
        idle: With nothing else running here: the scheduler's jitter.
        frames: While frames run: the scheduler, and waiting for the interpreter lock.
        hogged: While frames run and another thread keeps the lock.
        hog_hold: How long that thread kept it at a time.
        hogged_run: The frames of that time; they do not count towards the verdict.
    """

    idle: Timing
    frames: Timing
    hogged: Timing
    hog_hold: Timing
    hogged_run: RunProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPart:
    """A summand of mouth-to-ear latency.

    Attributes:
        name: What takes the time.
        ms: How long.
        basis: "algorithmic" (by the model's design), "measured", "reported" (claimed by the driver) or "setting".
    """

    name: str
    ms: float
    basis: Literal["algorithmic", "measured", "reported", "setting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the 80 ms budget was met by the judged engine in real time, and why.

    Attributes:
        engine: Name of the judged engine.
        is_met: p95 of the frame at most 80 ms and at most 1 % of the frames late.
        p95_ms: 95 % quantile of the frame.
        late_share: Share of late frames.
        headroom: How many times the p95 fits into the budget.
        cause: One line: the dominant cause of lateness, or of latency when nothing is late.
    """

    engine: str
    is_met: bool
    p95_ms: float
    late_share: float
    headroom: float
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReport:
    """Everything one `duologue profile` found.

    Attributes:
        schema_version: Of the JSON form.
        agent: Name of the agent.
        frame_budget_ms: 80.
        host: The machine.
        pressure: What others took from it meanwhile.
        engines: One entry per engine and precision; the first one is judged.
        wakeups: The interpreter and the scheduler.
        audio: The sound device, or None.
        no_audio: Why there is no audio part, or "".
        mouth_to_ear: Expected latency in parts; their sum is the whole.
        verdict: The result.
        buckets_ms: Upper edges that the `buckets` of every timing count by.
    """

    agent: str
    host: HostFacts
    pressure: Pressure
    engines: tuple[EngineProfile, ...]
    wakeups: Wakeups
    audio: AudioFacts | None
    no_audio: str
    mouth_to_ear: tuple[LatencyPart, ...]
    verdict: Verdict
    frame_budget_ms: float = FRAME_MS
    buckets_ms: tuple[float, ...] = BUCKETS_MS
    schema_version: int = SCHEMA_VERSION

    @property
    def mouth_to_ear_ms(self) -> float:
        """Sum of the parts."""
        return sum(part.ms for part in self.mouth_to_ear)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the sum of the latency parts included; single callbacks are left to the trace."""
        values = {**dataclasses.asdict(self), "mouth_to_ear_ms": self.mouth_to_ear_ms}
        if values["audio"] is not None:
            del values["audio"]["calls"]
        return values

    def to_json(self) -> str:
        """Return the JSON form, numbers finite."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)
