"""Events, measures and the interactivity report: plain frozen data with a versioned JSON form.

Every other file of this package fills these classes or draws them; nothing here computes. A time is in seconds from the
first sample of the conversation, a duration in seconds, a rate in [0, 1] unless its unit says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from duologue.metrics.latency import LatencySummary

SCHEMA_VERSION = 1
"""Version of the JSON form; it changes when a field is renamed, removed or redefined."""

Side: TypeAlias = Literal["user", "agent"]
"""Who speaks."""

Unit: TypeAlias = Literal["s", "share", "rate", "per_min", "count", "distance"]
"""Unit of a value: "share" is of time, "rate" of events, "distance" the Jensen-Shannon distance."""

EVENT_KINDS = (
    "user_speech_started",
    "user_speech_ended",
    "agent_speech_started",
    "agent_speech_ended",
    "utterance",
    "pause",
    "gap",
    "overlap",
    "floor_transfer",
    "pause_kept",
    "takeover",
    "turn_answered",
    "turn_missed",
    "turn_talked_over",
    "answered_briefly",
    "backchannel",
    "interruption",
    "agent_yielded",
    "agent_held",
    "agent_responded",
    "agent_stopped_for_backchannel",
    "agent_ignored_backchannel",
)
"""Kinds of the events that the meter finds; `duologue.metrics.events` states the exact rule of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened between the two sides.

    Attributes:
        kind: What happened: one of `EVENT_KINDS`, or a kind that a session adds.
        side: Who did it, or None where both did (an overlap).
        start_s: Begin of the span the event is about, on the conversation's clock (detector delay already removed).
        end_s: End of that span; equal to start_s while it is still open (speech started).
        known_s: Conversation time from which on the event is certain, whatever follows; None if a session added it.
        value_s: The latency or signed offset the event carries, if its kind has one.
        detail: Whatever else a session attaches to its own kinds.
    """

    kind: str
    side: Side | None
    start_s: float
    end_s: float
    known_s: float | None = None
    value_s: float | None = None
    detail: dict[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanBand:
    """Where people lie: the middle 90 % of what two humans on the telephone do.

    Attributes:
        low: 5 % quantile.
        median: 50 % quantile.
        high: 95 % quantile.
    """

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of the report.

    Attributes:
        value: The number, or None where nothing happened that it could be computed from.
        count: Number of events (or opportunities) behind the value; treat rates with fewer than 10 with care.
        unit: Unit of the value and of the band.
        band: The human reference, or None where there is none.
    """

    value: float | None
    count: int
    unit: Unit
    band: HumanBand | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A distribution of signed times.

    Attributes:
        count: Number of values.
        mean: Arithmetic mean, or None when empty.
        p5: 5 % quantile (linear interpolation), or None when empty; p25, p50, p75 and p95 likewise.
        p25: 25 % quantile.
        p50: Median.
        p75: 75 % quantile.
        p95: 95 % quantile.
        band: 5, 50 and 95 % quantiles of the same events between humans.
        values: Every value in order of time, rounded to 1 ms.
    """

    count: int
    mean: float | None
    p5: float | None
    p25: float | None
    p50: float | None
    p75: float | None
    p95: float | None
    band: HumanBand | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SideStatistics:
    """How one side spoke.

    Attributes:
        speech_share: Time inside IPUs over the duration.
        ipus_per_min: IPUs begun, per minute of conversation.
        utterances_per_min: Utterances begun, per minute of conversation.
        pauses_per_min: Mutual silences that the side itself ended, per minute of conversation.
        ipu_s: IPU durations.
        pause_s: Durations of those pauses.
        spans: IPUs as (start_s, end_s), in order; what the picture of the two lanes is drawn from.
    """

    speech_share: Measure
    ipus_per_min: Measure
    utterances_per_min: Measure
    pauses_per_min: Measure
    ipu_s: Distribution
    pause_s: Distribution
    spans: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorStatistics:
    """How the two sides shared the floor.

    Attributes:
        overlap_share: Time with both inside IPUs over the duration.
        silence_share: Time with neither inside an IPU over the duration.
        gaps_per_min: Floor transfers across silence, per minute.
        overlaps_per_min: Spans of simultaneous speech, per minute.
        gap_s: Durations of the gaps.
        overlap_s: Durations of the overlaps.
        fto_s: Floor-transfer offsets in both directions, signed.
    """

    overlap_share: Measure
    silence_share: Measure
    gaps_per_min: Measure
    overlaps_per_min: Measure
    gap_s: Distribution
    overlap_s: Distribution
    fto_s: Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseAxis:
    """Axis 1, pause handling: does the agent leave the user's pauses alone?

    Attributes:
        takeover_rate: Share of the user's pauses in which the agent spoke and it was no backchannel; lower is better.
    """

    takeover_rate: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAxis:
    """Axis 2, turn-taking: does the agent answer, and when?

    Attributes:
        fto_s: Signed offsets at which the floor passed from the user to the agent.
        fto_to_user_s: The same from the agent to the user.
        answered_rate: Share of the user's turns answered within 2 s (and begun no more than 1 s before their end).
        missed_rate: Share of the user's turns that got no answer before the user spoke again or 5 s passed.
        talked_over_rate: Share of the user's turns at whose end the agent had been talking for more than 1 s.
        brief_answer_rate: Share of the answers that were at most 1 s long and stood alone.
    """

    fto_s: Distribution
    fto_to_user_s: Distribution
    answered_rate: Measure
    missed_rate: Measure
    talked_over_rate: Measure
    brief_answer_rate: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class BackchannelAxis:
    """Axis 3, backchannels of the agent.

    Attributes:
        per_user_speech_min: Backchannels per minute of the user's speech.
        placement_s: Onset minus the nearest end of a user's IPU (within 2 s); negative is before that end.
        unplaced_rate: Share of backchannels with no IPU end of the user within 2 s.
    """

    per_user_speech_min: Measure
    placement_s: Distribution
    unplaced_rate: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptionAxis:
    """Axis 4, interruptions by the user.

    Attributes:
        yield_rate: Share of the interruptions after which the agent fell silent within 2 s.
        stop_latency_s: From the onset of the interruption to the end of the agent's speech, where it yielded.
        response_latency_s: From the end of the interruption to the agent's answer, where it yielded; signed.
    """

    yield_rate: Measure
    stop_latency_s: Distribution
    response_latency_s: Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectivityAxis:
    """What the four axes miss: does the agent keep talking through the user's own backchannels?

    Attributes:
        selectivity: Share of the user's backchannels during agent speech after which the agent did not stop within 1 s.
    """

    selectivity: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatColumn:
    """One number under somebody else's definition, so that it compares with published ones.

    Attributes:
        suite: Whose definition: "full-duplex-bench-v1" or "tau-voice".
        name: The name used there.
        measure: The number.
        caveat: What is known to be wrong with the definition, or how ours departs from it; "" if nothing.
    """

    suite: str
    name: str
    measure: Measure
    caveat: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractivityReport:
    """How user and agent interacted in one conversation.

    Attributes:
        duration_s: Length of the conversation.
        user_detector: Name of the detector that found the user's speech ("speech", "level" or "given").
        agent_detector: The same for the agent.
        user: How the user spoke.
        agent: How the agent spoke.
        floor: How they shared the floor.
        pause: Axis 1.
        turn: Axis 2.
        backchannel: Axis 3.
        interruption: Axis 4.
        selectivity: Robustness to the user's own backchannels.
        compat: Columns under the definitions of published suites.
        events: Everything that happened, in the order in which it became known.
        latency: Wall time per stage of the frame path; empty unless a session measured it.
        late_frames: Frames that missed the 80 ms budget.
        schema_version: Version of the JSON form.
    """

    duration_s: float
    user_detector: str
    agent_detector: str
    user: SideStatistics
    agent: SideStatistics
    floor: FloorStatistics
    pause: PauseAxis
    turn: TurnAxis
    backchannel: BackchannelAxis
    interruption: InterruptionAxis
    selectivity: SelectivityAxis
    compat: tuple[CompatColumn, ...] = ()
    events: tuple[Event, ...] = ()
    latency: dict[str, LatencySummary] = field(default_factory=dict)
    late_frames: int = 0
    schema_version: int = SCHEMA_VERSION

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the report as JSON text; `from_json` gives an equal report back.

        Args:
            indent: Spaces per level, or None for one line.
        """
        from duologue.metrics import schema

        return schema.dumps(self, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> InteractivityReport:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: The text is not JSON, of another schema version, or a field is missing, unknown or mistyped.
        """
        from duologue.metrics import schema

        return schema.loads(text, cls)
