"""What the card and the page both say about each number: its name, how it is written, and how it lies beside people."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from duologue.metrics.types import Distribution, HumanBand, InteractivityReport, Measure, SideStatistics, Unit

FEW_EVENTS = 10
"""Below this count a number says little; the card and the page both mark it."""


SUFFIXES: dict[Unit, str] = {"s": " s", "share": " %", "rate": " %", "per_min": " /min", "count": "", "distance": ""}
"""What follows the digits of each unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number, ready to be shown.

    Attributes:
        label: What it is called.
        value: The number (the median of a distribution), or None where nothing happened.
        count: Events behind it.
        unit: Unit of the value, the band and the spread.
        is_signed: Whether plus and minus both have a meaning, so that the sign is always written.
        band: The human reference, or None.
        spread: 5 and 95 % quantiles of a distribution, else None.
        absent: Why there is no value, in words.
    """

    label: str
    value: float | None
    count: int
    unit: Unit
    is_signed: bool
    band: HumanBand | None
    spread: tuple[float, float] | None
    absent: str

    @property
    def verdict(self) -> str:
        """Return where the value lies beside people: "inside", "below", "above", or "" where either is missing."""
        if self.value is None or self.band is None:
            return ""
        if self.value < self.band.low:
            return "below"
        return "above" if self.value > self.band.high else "inside"

    @property
    def is_few(self) -> bool:
        """Whether too few events stand behind the value to rely on it."""
        return self.value is not None and self.count < FEW_EVENTS

    @property
    def value_text(self) -> str:
        """Return the value with its unit, or "-" where there is none."""
        return "-" if self.value is None else number(self.value, self.unit, is_signed=self.is_signed)

    @property
    def band_text(self) -> str:
        """Return the human reference as median and 5 to 95 % range, or "" where there is none."""
        if self.band is None:
            return ""
        median, low, high = (
            digits(x, self.unit, is_signed=self.is_signed) for x in (self.band.median, self.band.low, self.band.high)
        )
        return f"{median} ({low} to {high}){SUFFIXES[self.unit]}"


@dataclass(frozen=True, slots=True)
class _Spec:
    label: str
    path: str
    absent: str
    is_signed: bool = False


_AXES = {
    "Pauses": (_Spec("takeover rate", "pause.takeover_rate", "the user never paused"),),
    "Turn-taking": (
        _Spec("offset to the agent", "turn.fto_s", "the agent never took the floor", True),
        _Spec("answered within 2 s", "turn.answered_rate", "the user finished no turn"),
        _Spec("missed turns", "turn.missed_rate", "the user finished no turn"),
        _Spec("talked over", "turn.talked_over_rate", "the user finished no turn"),
        _Spec("brief answers", "turn.brief_answer_rate", "no turn was answered"),
        _Spec("offset to the user", "turn.fto_to_user_s", "the user never took the floor", True),
    ),
    "Backchannels": (
        _Spec("per min of user speech", "backchannel.per_user_speech_min", "the user never spoke"),
        _Spec("placement", "backchannel.placement_s", "the agent gave no backchannel", True),
        _Spec("unplaced", "backchannel.unplaced_rate", "the agent gave no backchannel"),
    ),
    "Interruptions": (
        _Spec("yield rate", "interruption.yield_rate", "the user never interrupted"),
        _Spec("stop latency", "interruption.stop_latency_s", "the agent never yielded"),
        _Spec("response latency", "interruption.response_latency_s", "no answer after a yield", True),
    ),
    "Selectivity": (
        _Spec("talks through backchannels", "selectivity.selectivity", "no user backchannel in agent speech"),
    ),
}
_FLOOR = (
    _Spec("overlap", "overlap_share", "no audio"),
    _Spec("silence", "silence_share", "no audio"),
    _Spec("gaps", "gaps_per_min", "no audio"),
    _Spec("overlaps", "overlaps_per_min", "no audio"),
    _Spec("gap length", "gap_s", "no gap"),
    _Spec("overlap length", "overlap_s", "no overlap"),
    _Spec("floor-transfer offset", "fto_s", "the floor never passed", True),
)
_SIDE = (
    _Spec("speech", "speech_share", "no audio"),
    _Spec("IPUs", "ipus_per_min", "no audio"),
    _Spec("utterances", "utterances_per_min", "no audio"),
    _Spec("pauses", "pauses_per_min", "no audio"),
    _Spec("IPU length", "ipu_s", "never spoke"),
    _Spec("pause length", "pause_s", "never paused"),
)


def axis_rows(report: InteractivityReport) -> dict[str, list[Row]]:
    """Return the rows of the four axes and of selectivity, by axis."""
    return {axis: [_row(report, spec) for spec in specs] for axis, specs in _AXES.items()}


def floor_rows(report: InteractivityReport) -> list[Row]:
    """Return how the two sides shared the floor."""
    return [_row(report.floor, spec) for spec in _FLOOR]


def side_rows(side: SideStatistics) -> list[Row]:
    """Return how one side spoke."""
    return [_row(side, spec) for spec in _SIDE]


def frame_count(report: InteractivityReport) -> int:
    """Return how many frames an agent worked on; 0 where a recording was measured and no agent ran."""
    return max((stage.count for stage in report.latency.values()), default=0)


def measure_row(label: str, measure: Measure, absent: str = "nothing to measure") -> Row:
    """Return the row of a single measure, for instance of a compatibility column."""
    return Row(
        label=label,
        value=measure.value,
        count=measure.count,
        unit=measure.unit,
        is_signed=False,
        band=measure.band,
        spread=None,
        absent=absent,
    )


def number(value: float, unit: Unit, *, is_signed: bool = False) -> str:
    """Write a number with its unit: "+0.14 s", "34 %", "2.3 /min", "0.649", "12"."""
    return digits(value, unit, is_signed=is_signed) + SUFFIXES[unit]


def digits(value: float, unit: Unit, *, is_signed: bool = False) -> str:
    """Write a number without its unit."""
    shown = 100 * value if unit in ("share", "rate") else value
    text = f"{shown:.{_decimals(shown, unit)}f}"
    if unit in ("share", "rate"):
        text = text.removesuffix(".0")
    if float(text) == 0:
        text = text.lstrip("-")
    sign = "+" if is_signed and not text.startswith("-") else ""
    return (sign + text).replace("-", "−")


def clock(time_s: float, decimals: int = 0) -> str:
    """Write a time as minutes and seconds ("3:07"), or with hours where there are any ("1:02:07")."""
    scale = 10**decimals
    ticks = round(max(time_s, 0.0) * scale)
    minutes, seconds = divmod(ticks / scale, 60)
    width = 3 + decimals if decimals else 2
    tail = f"{seconds:0{width}.{decimals}f}"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def _decimals(shown: float, unit: Unit) -> int:
    if unit in ("share", "rate"):
        return 1 if 0 < abs(shown) < 10 else 0
    return {"s": 2, "per_min": 1, "count": 0, "distance": 3}[unit]


def _row(owner: object, spec: _Spec) -> Row:
    found = attrgetter(spec.path)(owner)
    if isinstance(found, Distribution):
        return _distribution_row(found, spec)
    assert isinstance(found, Measure)
    return Row(
        label=spec.label,
        value=found.value,
        count=found.count,
        unit=found.unit,
        is_signed=spec.is_signed,
        band=found.band,
        spread=None,
        absent=spec.absent,
    )


def _distribution_row(found: Distribution, spec: _Spec) -> Row:
    return Row(
        label=spec.label,
        value=found.p50,
        count=found.count,
        unit="s",
        is_signed=spec.is_signed,
        band=found.band,
        spread=None if found.p5 is None or found.p95 is None else (found.p5, found.p95),
        absent=spec.absent,
    )
