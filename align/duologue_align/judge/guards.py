"""Replies that are bad whatever a model thinks of them: nothing, an echo, a loop, letters that are no language.

A judge can be fooled by all four: an echo is close in topic and made likely by the user's words, a loop is fluent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Literal

from duologue.errors import ConfigError
from duologue_align.judge.judge import Answer

Finding = Literal["empty", "echo", "repetition", "gibberish"]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_NOTE = re.compile(r"[\[(<*][^\])>*]*[\])>*]")
_FILLERS = frozenset(
    ["uh", "um", "uhm", "umm", "er", "erm", "ah", "eh", "hm", "hmm", "mm", "mhm", "mmm", "mmhm", "huh", "oh"]
)
_TURNED = {"i": "you", "me": "you", "we": "you", "us": "you", "my": "your", "our": "your", "mine": "yours", "am": "are"}
_SHORT = {"'m": "are", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_FEW_WORDS, _LONGEST_LOOP = 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """Thresholds; a share of 1 or more than 1 switches a guard off where that is what it counts to.

    Attributes:
        empty: Whether a reply without a word, or of hesitations alone, is found.
        echo: Share of a reply's words that follow the user's, "I" and "you" taken as one, from which it is an echo.
        echo_words: Fewest words of an echo; shorter ones are how people ask back.
        repetition: Share of a reply's words that a loop fills, from which it is repetition.
        known_words: Share of a reply's words that are common English, below which it is gibberish; 0 for other
            languages. Replies under four words are not looked at.
    """

    empty: bool = True
    echo: float = 0.85
    echo_words: int = 3
    repetition: float = 0.6
    known_words: float = 0.4

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A threshold that finds everything, or a share below 0.
        """
        for name in ("echo", "repetition"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"guards.{name} is {getattr(self, name)}; it must be above 0, above 1 switches it off"
                )
        if not 0 <= self.known_words <= 1:
            raise ConfigError(f"guards.known_words is {self.known_words}; it must lie in [0, 1], 0 switches it off")

    def find(self, answer: Answer) -> Finding | None:
        """Return what is wrong with a reply, the first of empty, echo, repetition and gibberish, or None."""
        reply = words_of(answer.reply)
        if self.empty and all(word in _FILLERS for word in reply):
            return "empty"
        if len(reply) >= self.echo_words and echo_share(words_of(answer.user), reply) >= self.echo:
            return "echo"
        if loop_share(reply) >= self.repetition:
            return "repetition"
        if len(reply) >= _FEW_WORDS and known_share(reply) < self.known_words:
            return "gibberish"
        return None


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation and notes such as "[noise]"."""
    return _WORD.findall(_NOTE.sub(" ", text).lower().replace("’", "'"))


def echo_share(user: Sequence[str], reply: Sequence[str]) -> float:
    """Return the share of the reply's words that the user said in the same order; 0 for no words.

    Source: longest common subsequence, as in ROUGE-L precision (Lin 2004), "I" and "you" taken as one.
    """
    theirs, ours = _turned(user), _turned(reply)
    row = [0] * (len(theirs) + 1)
    for word in ours:
        before = row
        row = [0]
        for place, other in enumerate(theirs):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[place]))
    return row[-1] / len(ours) if ours else 0.0


def loop_share(words: Sequence[str]) -> float:
    """Return the share of the words that one loop fills, in [0, 1]; 0 below four words.

    A loop is a phrase of up to eight words said three times or more in a row, or a pair of words said again and again.
    """
    if len(words) < _FEW_WORDS:
        return 0.0
    looped = 0
    for length in range(1, min(_LONGEST_LOOP, len(words) // 3) + 1):
        again = [words[place] == words[place + length] for place in range(len(words) - length)]
        runs = [sum(1 for _ in run) for same, run in groupby(again) if same]
        looped = max([looped, *(run + length for run in runs if run >= 2 * length)])
    pairs = Counter(pairwise(words))
    spare = sum(pairs.values()) - len(pairs)
    return max(looped / len(words), spare / sum(pairs.values()))


def known_share(words: Sequence[str]) -> float:
    """Return the share of the words that are among the most common of English conversation; 1 for no words."""
    known = _common_words()
    return sum(word in known or word.removesuffix("'s") in known for word in words) / len(words) if words else 1.0


def _turned(words: Sequence[str]) -> list[str]:
    parts = [part for word in words for part in (word.partition("'")[0], _SHORT.get(word[word.find("'") :], ""))]
    return [_TURNED.get(part, part) for part in parts if part]


@cache
def _common_words() -> frozenset[str]:
    text = Path(__file__).with_name("common_words.txt").read_text(encoding="utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())
