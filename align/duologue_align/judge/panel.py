"""Several judges as one: guards first, then the weighted mean of their numbers against human replies; from TOML."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError
from duologue_align.judge.endpoint import Endpoint, EndpointJudge
from duologue_align.judge.guards import Finding, Guards
from duologue_align.judge.judge import Ability, Answer, Judge, Traits
from duologue_align.judge.rating import Scale
from duologue_align.judge.score_cache import ScoreCache
from duologue_align.presets import build, read_tables

PRESETS = {
    name: Path(__file__).with_name(f"{name}.toml") for name in ("duologue", "log-prob", "similarity", "endpoint")
}
"""Panels that come with the package; `duologue` is the default."""

BEST = 2.0
"""Best score of a panel; the worst is 0 and a human reply of the middle has 1, as `response_quality` expects."""

_ABILITIES: Mapping[str, Ability] = {
    "log_prob_difference": "log_prob_difference",
    "fluency": "fluency",
    "similarity": "similarity",
    "rating": "rating",
    "local_rating": "rating",
}

FURTHEST = 4.0
"""Deviations from the mean of human replies at most, so that no judge outshouts the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A judge's place in a panel.

    Attributes:
        weight: Its share.
        mean: Mean of its numbers over human replies.
        deviation: Their standard deviation.
        penalty_below: Makes it a penalty: only deviations below this one count, times the weight, beside the others'
            mean; so there is no prize for more than enough.
    """

    weight: float = 1.0
    mean: float = 0.0
    deviation: float = 1.0
    penalty_below: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A weight or deviation of 0 or less.
        """
        if not (0 < self.weight < math.inf and 0 < self.deviation < math.inf and math.isfinite(self.mean)):
            raise ConfigError(f"{self}: weight and deviation must be above 0 and finite")

    def standardise(self, value: float) -> float:
        """Return a number in deviations from the mean of human replies, in [-4, 4]; nan stays nan."""
        z = (value - self.mean) / self.deviation
        return z if math.isnan(z) else min(FURTHEST, max(-FURTHEST, z))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilaritySeat(Seat):
    """Place of a `SimilarityJudge`."""

    def seat(self, gives: Ability) -> Judge:
        """Load the judge; raises as its constructor."""
        from duologue_align.judge.similarity import SimilarityJudge

        return SimilarityJudge()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSeat(Seat):
    """Place of a `LocalLmJudge` that compares log-probabilities.

    Attributes:
        model: A folder, a GGUF file, or "smollm2-135m".
        device: Where torch puts it.
        batch: Sequences per pass.
    """

    model: str = "smollm2-135m"
    device: str = "cpu"
    batch: int = 16

    def seat(self, gives: Ability) -> Judge:
        """Load the judge; raises as its constructor."""
        from duologue_align.judge.local_lm import LocalLmJudge

        return LocalLmJudge(_language_model(self.model, self.device, self.batch), gives=gives)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRatingSeat(LocalSeat):
    """Place of a `LocalLmJudge` that rates; `force` lets a small model do it."""

    force: bool = False
    scale: Scale = field(default_factory=Scale)

    def seat(self, gives: Ability) -> Judge:
        """Load the judge; raises as its constructor."""
        from duologue_align.judge.local_lm import LocalLmJudge

        model = _language_model(self.model, self.device, self.batch)
        return LocalLmJudge(model, gives=gives, scale=self.scale, force=self.force)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSeat(Seat):
    """Place of an `EndpointJudge`.

    Attributes:
        endpoint: Where and how it is asked.
        cache: SQLite file that keeps scores; empty for none.
        keep_going: Leave an answer to the other judges if the server fails on it.
    """

    endpoint: Endpoint = field(default_factory=Endpoint)
    cache: str = ""
    keep_going: bool = False

    def seat(self, gives: Ability) -> Judge:
        """Prepare the judge; raises as its constructor."""
        cache = ScoreCache(Path(self.cache).expanduser()) if self.cache else None
        return EndpointJudge(self.endpoint, cache=cache, keep_going=self.keep_going)


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelSettings:
    """The tables of a panel's TOML file, one per judge; a judge without a table has no seat."""

    guards: Guards = field(default_factory=Guards)
    log_prob_difference: LocalSeat | None = None
    fluency: LocalSeat | None = None
    similarity: SimilaritySeat | None = None
    rating: EndpointSeat | None = None
    local_rating: LocalRatingSeat | None = None

    @classmethod
    def load(cls, panel: str | Path = "duologue", changes: Sequence[str] = ()) -> PanelSettings:
        """Read a panel.

        Args:
            panel: A TOML file, or a name from `PRESETS`.
            changes: Each "table.key=value".

        Raises:
            ConfigError: The file cannot be read, a key is unknown, a value is refused, or no judge in it gives credit.
        """
        path = PRESETS.get(str(panel), Path(panel))
        settings = build(cls, read_tables(path, changes), path.stem)
        if all(seat.penalty_below is not None for seat in settings.seats.values()):
            raise ConfigError(f"{path}: no judge in it gives credit; add a table such as [log_prob_difference]")
        return settings

    @property
    def seats(self) -> Mapping[str, Any]:
        """The seats that are taken, by table."""
        return {name: seat for name in _ABILITIES if (seat := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a panel thinks of an answer.

    Attributes:
        score: In [0, `BEST`]; nan where no judge had a number.
        found: The guard that made it 0, or None.
        numbers: Each judge's own number, by table; empty where a guard spoke.
    """

    score: float
    found: Finding | None
    numbers: Mapping[str, float]


class JudgePanel:
    """Judges that sit together. Its scores go into `duologue_align.rewards.Reply.judge_score` as they are.

    Attributes:
        judges: By table name.
        guards: What is refused unheard.
    """

    def __init__(self, judges: Mapping[str, tuple[Seat, Judge]], guards: Guards | None = None) -> None:
        """Seat judges.

        Raises:
            ConfigError: There are none.
        """
        if not judges:
            raise ConfigError("a panel needs at least one judge")
        self.judges: Mapping[str, Judge] = {name: judge for name, (_, judge) in judges.items()}
        self._seats = {name: seat for name, (seat, _) in judges.items()}
        self.guards = guards or Guards()

    @classmethod
    def load(cls, panel: str | Path = "duologue", changes: Sequence[str] = ()) -> JudgePanel:
        """Read a panel and load its judges.

        Raises:
            ConfigError: As `PanelSettings.load`, or a judge cannot give what it is asked for.
            MissingExtraError: A judge's package is missing.
            WeightsError: A judge's model cannot be read.
        """
        settings = PanelSettings.load(panel, changes)
        return cls(
            {name: (seat, seat.seat(_ABILITIES[name])) for name, seat in settings.seats.items()}, settings.guards
        )

    @property
    def traits(self) -> Sequence[Traits]:
        """What each judge can do."""
        return [judge.traits for judge in self.judges.values()]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict on each answer; those that a guard finds are shown to no judge."""
        findings = [self.guards.find(answer) for answer in answers]
        open_answers = [answer for answer, found in zip(answers, findings, strict=True) if found is None]
        numbers = iter(self.numbers(open_answers))
        return [
            Verdict(score=0.0, found=found, numbers={}) if found else self._verdict(next(numbers)) for found in findings
        ]

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Return the scores of `judge` alone."""
        return [verdict.score for verdict in self.judge(answers)]

    def numbers(self, answers: Sequence[Answer]) -> list[dict[str, float]]:
        """Return each judge's own number for each answer, without guards."""
        if not answers:
            return []
        columns = {name: judge.score(answers) for name, judge in self.judges.items()}
        return [{name: column[index] for name, column in columns.items()} for index in range(len(answers))]

    def combine(self, numbers: Mapping[str, float]) -> float:
        """Return one score in [0, `BEST`]; nan if no judge that is not a penalty has a number.

        It is the logistic of the weighted mean in deviations plus the penalties, which are 0 or less.
        Source: standardised components with weights, after arXiv 2606.11167 section 3.4.
        """
        weights, total, penalty = 0.0, 0.0, 0.0
        for name, value in numbers.items():
            seat = self._seats[name]
            z = seat.standardise(value)
            if math.isnan(z):
                continue
            if seat.penalty_below is None:
                weights, total = weights + seat.weight, total + seat.weight * z
            else:
                penalty += seat.weight * min(0.0, z - seat.penalty_below)
        return BEST / (1.0 + math.exp(-(total / weights + penalty))) if weights else math.nan

    def _verdict(self, numbers: Mapping[str, float]) -> Verdict:
        return Verdict(score=self.combine(numbers), found=None, numbers=numbers)


@lru_cache(maxsize=2)
def _load_language_model(load: Callable[..., Any], model: str, device: str, batch: int) -> Any:
    return load(model, device=device, batch=batch)


def _language_model(model: str, device: str, batch: int) -> Any:
    from duologue_align.judge.local_lm import LanguageModel

    return _load_language_model(LanguageModel.load, model, device, batch)
