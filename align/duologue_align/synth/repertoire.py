"""What the agent can say, and which of it fits what it just heard: keyword and phrase matching over two written files.

`topics.json` holds replies by subject, `manners.json` greetings, questions about the agent, moods, fall-backs,
closings, backchannels and the user's own stock phrases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

_QUESTION_START = re.compile(
    r"^(do|does|did|are|is|was|were|can|could|would|will|have|has|should|what|where|when|why|who|how|which)\b"
)
_YES_NO_START = re.compile(r"^(do|does|did|are|is|was|were|can|could|would|will|have|has|should)\b")
LONG_TURN_SHARE = 0.14
"""Share of the replies on a subject that are followed by a longer piece on it: what users interrupt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the agent answers.

    Attributes:
        sentences: In order; each comes from the written repertoire.
        reason: What it was matched by: "topic:food", "intent:joke", "mood:sad", "question", "statement".
        topic: Subject, or None.
    """

    sentences: tuple[str, ...]
    reason: str
    topic: str | None = None


class Repertoire:
    """Chooses replies; holds no state of a conversation but what it is given."""

    def __init__(self, topics: dict[str, Any], manners: dict[str, Any]) -> None:
        self.topics = topics
        self.manners = manners
        self._intents = [
            (intent["name"], [re.compile(pattern) for pattern in intent["patterns"]], intent["replies"])
            for intent in manners["intents"]
        ]
        self._topic_of = {word: name for name, topic in topics.items() for word in topic["keywords"]}

    def topics_in(self, text: str) -> list[str]:
        """Return the subjects whose keywords occur in the text, most frequent first."""
        counts: dict[str, int] = {}
        for word in words_of(text):
            topic = self._topic_of.get(word)
            if topic is not None:
                counts[topic] = counts.get(topic, 0) + 1
        return sorted(counts, key=lambda topic: -counts[topic])

    def reply(self, heard: str, rng: np.random.Generator, *, last_topic: str | None, used: set[str]) -> Reply:
        """Return a reply to what the user said.

        Args:
            heard: The user's turn, as written words.
            rng: Source of the choices.
            last_topic: Subject of the turn before, taken up when this one names none.
            used: Sentences said already in this dialogue; they are avoided and the reply's own are added.
        """
        text = heard.lower()
        last_sentence = re.split(r"(?<=[.!?])\s+", text.strip())[-1]
        found = self._by_intent(text, last_sentence) or self._by_subject(text, last_sentence, rng, last_topic, used)
        reason, topic, options = found
        sentences = [_pick(_closest(options, heard), rng, used)]
        if topic is not None:
            sentences += self._continue(topic, rng, used)
        elif reason in ("statement", "question") and rng.random() < 0.25:
            sentences.append(_pick(self.manners["follow_ups"], rng, used))
        return Reply(sentences=tuple(sentences), reason=reason, topic=topic)

    def stock(self, kind: str, rng: np.random.Generator, used: set[str]) -> str:
        """Return one of the agent's or the user's stock phrases, e.g. "agent_openers"."""
        return _pick(self.manners[kind], rng, used)

    def backchannel(self, rng: np.random.Generator) -> str:
        """Return a backchannel token at its human frequency."""
        tokens = self.manners["backchannels"]
        weights = np.array(list(tokens.values()), dtype=np.float64)
        return str(rng.choice(list(tokens), p=weights / weights.sum()))

    def agent_sentences(self) -> list[str]:
        """Return everything the agent can say, sorted, without repeats."""
        found: set[str] = set()
        for topic in self.topics.values():
            found.update(topic["specific"].values(), topic["says"], topic["asks"], topic["answers"])
        for entry in (*self.manners["intents"], *self.manners["moods"]):
            found.update(entry["replies"])
        for kind in ("statement", "yes_no", "question", "clarify", "follow_ups"):
            found.update(self.manners[kind])
        for kind in ("agent_openers", "agent_reprompts", "agent_closings", "backchannels"):
            found.update(self.manners[kind])
        found.update(sentence for text in self.manners["long_turns"].values() for sentence in split_sentences(text))
        return sorted(found)

    def _by_intent(self, text: str, last_sentence: str) -> tuple[str, None, Sequence[str]] | None:
        # The last sentence is what an answer is due to; a greeting before it is only answered when alone.
        for part in (last_sentence, text):
            for name, patterns, replies in self._intents:
                if any(pattern.search(part) for pattern in patterns):
                    return f"intent:{name}", None, replies
            if len(text) > 60:
                break
        return None

    def _by_subject(
        self, text: str, last_sentence: str, rng: np.random.Generator, last_topic: str | None, used: set[str]
    ) -> tuple[str, str | None, Sequence[str]]:
        is_question = last_sentence.endswith("?") or bool(_QUESTION_START.match(last_sentence))
        topics = self.topics_in(last_sentence) or self.topics_in(text)
        mood = None if is_question else self._mood(text)
        if mood is not None and (not topics or rng.random() < 0.35):
            return f"mood:{mood['name']}", None, mood["replies"]
        if topics:
            topic = topics[0]
            if is_question:
                return f"topic:{topic}", topic, self.topics[topic]["answers"]
            specific = [
                self.topics[topic]["specific"][word] for word in words_of(text) if self._is_specific(topic, word)
            ]
            fresh = [sentence for sentence in specific if sentence not in used]
            return f"topic:{topic}", topic, fresh or self.topics[topic]["says"]
        if is_question:
            kinds = ("yes_no", "question") if _YES_NO_START.match(last_sentence) else ("question",)
            return "question", None, self.manners[kinds[int(rng.integers(len(kinds)))]]
        if last_topic is not None and rng.random() < 0.3:
            return f"topic:{last_topic}", last_topic, self.topics[last_topic]["says"]
        return "statement", None, self.manners["clarify" if rng.random() < 0.06 else "statement"]

    def _is_specific(self, topic: str, word: str) -> bool:
        return word in self.topics[topic]["specific"]

    def _mood(self, text: str) -> dict[str, Any] | None:
        heard = set(words_of(text))
        return next((mood for mood in self.manners["moods"] if heard & set(mood["keywords"])), None)

    def _continue(self, topic: str, rng: np.random.Generator, used: set[str]) -> list[str]:
        long_turn = self.manners["long_turns"].get(topic)
        chance = rng.random()
        if long_turn is not None and chance < LONG_TURN_SHARE and split_sentences(long_turn)[0] not in used:
            sentences = split_sentences(long_turn)
            used.update(sentences)
            return sentences
        if chance < 0.45:
            return [_pick(self.topics[topic]["asks"], rng, used)]
        if chance < 0.65:
            return [_pick(self.topics[topic]["says"], rng, used)]
        return []


@cache
def written_repertoire() -> Repertoire:
    """Return the shipped repertoire."""
    folder = files("duologue_align.synth")
    topics, manners = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("topics.json", "manners.json")
    )
    return Repertoire(topics, manners)


def words_of(text: str) -> list[str]:
    """Return the lower-case words of a text."""
    return re.findall(r"[a-z']+", text.lower())


def split_sentences(text: str) -> list[str]:
    """Split written text at sentence-final punctuation."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def _closest(options: Sequence[str], heard: str) -> Sequence[str]:
    """Return the options that share the most longer words with what was heard; all of them if none shares any."""
    words = {word for word in words_of(heard) if len(word) > 4}
    shared = [len(words & set(words_of(option))) for option in options]
    return [option for option, count in zip(options, shared, strict=True) if count == max(shared)]


def _pick(options: Sequence[str], rng: np.random.Generator, used: set[str]) -> str:
    fresh = [option for option in options if option not in used] or list(options)
    chosen = fresh[int(rng.integers(len(fresh)))]
    used.add(chosen)
    return chosen
