"""What a judge is: it reads what the user said and what the agent answered, and gives a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from duologue.errors import ConfigError

Ability = Literal["rating", "log_prob_difference", "fluency", "similarity"]
"""What a judge's number is.

* rating: a mark on a scale that the judge was told, by a language model that reads the exchange.
* log_prob_difference: log P(reply | user) - log P(reply) per token; how much the user's words explain the reply.
* fluency: log P(reply) per token; how much the reply is language at all, whatever the user said.
* similarity: cosine of the two sentences' vectors, in [-1, 1]; how close they are in topic.
"""

LEAST_RATING_PARAMETERS = 1.5e9
"""Parameters below which a language model's rating was no better than chance, while its log-probabilities were."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One exchange to be judged.

    Attributes:
        user: What the user said; earlier turns may stand before it.
        reply: What the agent answered.
    """

    user: str
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a judge declares about itself.

    Attributes:
        name: Short name with the model in it.
        gives: What its number is.
        can: All that it could give with reliable results.
        batch: Answers that it works on at once.
        cost: What a score costs.
        parameters: Size of its model, None if unknown.
        licence: Of its weights, None if unknown.
    """

    name: str
    gives: Ability
    can: frozenset[Ability]
    batch: int
    cost: Literal["compute", "request"]
    parameters: float | None = None
    licence: str | None = None


class Judge(Protocol):
    """Anything that scores answers; more is better, the unit is its own."""

    @property
    def traits(self) -> Traits:
        """What it can do."""
        ...

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Return a number for each answer, in order; nan where there is none."""
        ...


def language_model_abilities(parameters: float | None) -> frozenset[Ability]:
    """Return what a language model of so many parameters gives reliably; None, unknown, is trusted to rate.

    Source: measured on 84 pairs of true and mismatched replies: ratings of models of 0.135 and 0.5 B parameters chose
    the true one in 50 to 63 %, their log-probability difference in 70 to 96 %; at 1.5 B ratings reached 62 to 92 %.
    """
    compares: frozenset[Ability] = frozenset({"log_prob_difference", "fluency"})
    rates: frozenset[Ability] = frozenset({"rating"})
    return compares | rates if parameters is None or parameters >= LEAST_RATING_PARAMETERS else compares


def require(traits: Traits, *, force: bool) -> None:
    """Check that a judge can give what it is asked for.

    Args:
        traits: The judge.
        force: Accept it all the same.

    Raises:
        ConfigError: It cannot.
    """
    if force or traits.gives in traits.can:
        return
    size = "" if traits.parameters is None else f" ({traits.parameters / 1e9:.3g} B parameters)"
    raise ConfigError(
        f"{traits.name}{size} gives no reliable {traits.gives}; ask it for {' or '.join(sorted(traits.can))}, "
        "or set force = true to have it anyway"
    )
