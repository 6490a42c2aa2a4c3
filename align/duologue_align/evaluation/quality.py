"""What a judge thinks of the replies, each asked only once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from duologue.replacing import replace_file
from duologue_align.judge.judge import Answer
from duologue_align.judge.panel import JudgePanel


class Quality:
    """A panel of judges with a memory on disk.

    Attributes:
        name: What tells the panel from others.
    """

    def __init__(self, panel: JudgePanel, name: str, memory: Path | None = None) -> None:
        """Open the memory.

        Args:
            panel: Who judges.
            name: What tells it from others, settings included; scores of another one are not reused.
            memory: A JSON file, or None to forget.
        """
        self.name, self._panel, self._memory = name, panel, memory
        self._scores: dict[str, float] = {}
        if memory is not None and memory.is_file():
            try:
                kept = json.loads(memory.read_text(encoding="utf-8")).items()
                self._scores = {key: float(score) for key, score in kept if score is not None}
            except (OSError, ValueError, TypeError, AttributeError):
                self._scores = {}

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Return the panel's score of each answer, in [0, 2]; nan where no judge had one, to be asked again."""
        keys = [self._key(answer) for answer in answers]
        new = {key: answer for key, answer in zip(keys, answers, strict=True) if key not in self._scores}
        if new:
            scores = self._panel.score(list(new.values()))
            self._scores |= {k: s for k, s in zip(new, scores, strict=True) if not math.isnan(s)}
            if self._memory is not None:
                replace_file(self._memory, json.dumps(self._scores).encode())
        return [self._scores.get(key, math.nan) for key in keys]

    def _key(self, answer: Answer) -> str:
        content = json.dumps([self.name, answer.user, answer.reply])
        return hashlib.sha256(content.encode()).hexdigest()[:24]
