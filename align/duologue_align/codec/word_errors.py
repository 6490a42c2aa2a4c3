"""Word error rate: spoken forms made alike, then the least number of changed words."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTRACTIONS = {
    "gonna": "going to",
    "wanna": "want to",
    "gotta": "got to",
    "ok": "okay",
    "mhm": "mm-hm",
    "mmhmm": "mm-hm",
}
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def spoken_words(text: str) -> list[str]:
    """Return lower-case words without punctuation; small numbers, hyphens and a few spellings are made alike."""
    text = re.sub(r"[\[(].*?[\])]", " ", text.lower().replace("’", "'"))
    text = re.sub(r"[^a-z0-9' -]", " ", text)
    words: list[str] = []
    for word in text.split():
        word = word.strip("'-")
        if word.isdigit() and int(word) < len(_DIGITS):
            word = _DIGITS[int(word)]
        word = _CONTRACTIONS.get(word.replace("-", ""), word)
        words += [part.replace("'", "") for part in re.split(r"[ -]", word) if part]
    return words


def word_errors(reference: Sequence[str], found: Sequence[str]) -> int:
    """Return the least number of words to put in, leave out or change to get from one to the other.

    Source: Levenshtein 1966, by the two-row recurrence of Wagner and Fischer 1974.
    """
    row = list(range(len(found) + 1))
    for i, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, heard in enumerate(found, start=1):
            changed = diagonal + (expected != heard)
            diagonal, row[j] = row[j], min(changed, row[j] + 1, row[j - 1] + 1)
    return row[-1]
