"""The user's open text: typed chats of chitchat-dataset (MIT), filtered and written as speech, plus topic openers.

A sentence is kept when every word is a common word of the data set that people do not capitalise in mid-sentence: that
drops names, places, typing errors and other languages. Links, digits, profanity and talk about the chat itself go too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from duologue.errors import MissingExtraError
from duologue_align.synth.repertoire import words_of, written_repertoire

MIN_COUNT = 12
"""A word must occur this often in the whole data set."""
MAX_CAPITAL_SHARE = 0.35
"""A word capitalised in mid-sentence more often than this is taken for a name."""
MAX_WORDS = 38
"""Words of one user turn at most: about twelve seconds."""
TEST_SHARE = 0.1
"""Share of the conversations kept for the test split."""

_SPELLING = {
    "im": "I'm", "ive": "I've", "id": "I'd", "i": "I", "i'm": "I'm", "i've": "I've", "i'd": "I'd", "i'll": "I'll",
    "dont": "don't", "didnt": "didn't", "doesnt": "doesn't", "cant": "can't", "wont": "won't", "isnt": "isn't",
    "wasnt": "wasn't", "thats": "that's", "whats": "what's", "youre": "you're", "theyre": "they're", "ok": "okay",
    "haven't": "haven't", "yea": "yeah", "cuz": "because", "gonna": "going to", "wanna": "want to", "ya": "you",
    "couldnt": "couldn't", "wouldnt": "wouldn't", "theres": "there's", "havent": "haven't", "u": "you", "r": "are",
}  # fmt: skip
_LAUGHTER = re.compile(r"\b(l+o+l+|(ha|he){2,}h?|haha\w*|hehe\w*|lmao|rofl|xd|jk|btw|tbh)\b[.!,]*", re.IGNORECASE)
_UNSPEAKABLE = re.compile(r"[^A-Za-z ,.!?';:\-]|https?:|www\.|\.com|(.)\1\1|;|:\w|\.\w")


@dataclass(frozen=True, slots=True)
class ChatLine:
    """One turn that a user may speak.

    Attributes:
        text: Sentences with their punctuation.
        topics: Subjects of the repertoire that it touches.
    """

    text: str
    topics: tuple[str, ...]


class UserText:
    """Lines to draw user turns from, by subject."""

    def __init__(self, lines: Iterable[ChatLine]) -> None:
        self.lines = list(lines)
        self._by_topic: dict[str, list[ChatLine]] = {}
        for line in self.lines:
            for topic in line.topics:
                self._by_topic.setdefault(topic, []).append(line)

    def draw(self, rng: np.random.Generator, *, topic: str | None) -> ChatLine:
        """Return a line on the subject, or any line if there is none on it."""
        pool = self._by_topic.get(topic or "") or self.lines
        return pool[int(rng.integers(len(pool)))]


@cache
def user_text(split: str) -> UserText:
    """Return the lines of "train" or "test"; no conversation gives lines to both.

    Raises:
        MissingExtraError: chitchat-dataset is not installed.
    """
    repertoire = written_repertoire()
    allowed = _common_words()
    lines: dict[str, ChatLine] = {}
    for key, texts in _messages():
        if (_is_test(key)) != (split == "test"):
            continue
        for text in _turns(texts, allowed):
            lines.setdefault(text, ChatLine(text, tuple(repertoire.topics_in(text))))
    return UserText(lines.values())


@cache
def refused_words() -> frozenset[str]:
    """Return the words that no turn may hold: profanity, faiths, politics, drugs, and talk about the chat itself."""
    text = (files("duologue_align.synth") / "refused_words.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


def speakable(text: str, allowed: frozenset[str] | None = None) -> str | None:
    """Rewrite one typed sentence as it is spoken, or return None if it must not or cannot be.

    Args:
        text: As typed.
        allowed: Lower-case words that may occur; None allows all but the refused ones.
    """
    if re.search(r"\b[A-Z]{2,}\b", text):
        return None
    text = _LAUGHTER.sub("", text.replace("’", "'").replace(" - ", ", ")).strip(" ,.-")
    if not text or _UNSPEAKABLE.search(text):
        return None
    text = " ".join(_SPELLING.get(token.lower(), token) if token.isascii() else token for token in text.split())
    words = words_of(text)
    if len(words) < 2 or not refused_words().isdisjoint(words):
        return None
    if allowed is not None and not allowed.issuperset(words):
        return None
    text = text[0].upper() + text[1:]
    text = re.sub(r"\bi\b", "I", text)
    return text if text[-1] in ".!?" else text + "."


def _turns(texts: list[str], allowed: frozenset[str]) -> Iterator[str]:
    turn: list[str] = []
    for text in texts:
        for typed in re.split(r"(?<=[.!?])\s+", text):
            sentence = speakable(_close(typed, text), allowed)
            if sentence is not None and len(sentence.split()) <= MAX_WORDS:
                if sum(len(part.split()) for part in (*turn, sentence)) > MAX_WORDS:
                    yield " ".join(turn)
                    turn = []
                turn.append(sentence)
    if turn:
        yield " ".join(turn)


def _close(typed: str, message: str) -> str:
    is_last = message.rstrip().endswith(typed.rstrip())
    return typed.rstrip() + ("?" if is_last and message.rstrip().endswith("?") and typed[-1:] != "?" else "")


@cache
def _messages() -> list[tuple[str, list[str]]]:
    """Return every message as the key of its conversation and what its sender typed in a row."""
    try:
        package: Any = import_module("chitchat_dataset")
    except ImportError as error:
        raise MissingExtraError("chitchat-dataset", "synth") from error
    text = Path(package.__file__).with_name("dataset.json").read_text(encoding="utf-8")
    return [
        (key, [utterance["text"] for utterance in message])
        for key, conversation in json.loads(text).items()
        for message in conversation["messages"]
    ]


@cache
def _common_words() -> frozenset[str]:
    counts: Counter[str] = Counter()
    capitals: Counter[str] = Counter()
    for _, texts in _messages():
        for text in texts:
            tokens = re.findall(r"[A-Za-z']+", text)
            counts.update([token.lower() for token in tokens])
            capitals.update([token.lower() for token in tokens[1:] if token[0].isupper() and not token.isupper()])
    topics = written_repertoire().topics.values()
    known = {word for topic in topics for line in topic["user"] for word in words_of(line)}
    common = {
        word
        for word, count in counts.items()
        if count >= MIN_COUNT and capitals[word] <= MAX_CAPITAL_SHARE * count and len(word) > 1
    }
    spoken = {word for spelling in _SPELLING.values() for word in words_of(spelling)}
    return frozenset((common | known | spoken | {"a", "i"}) - refused_words())


def _is_test(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] < 256 * TEST_SHARE
