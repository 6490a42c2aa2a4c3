"""What scripted agents say: words of the labelled replies, as many as fit into the time in which they speak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import Protocol

import numpy as np

from duologue.metrics.timeline import IPU_BRIDGE, TICK_S, UTTERANCE_BRIDGE
from duologue_align.judge.judge import Answer
from duologue_align.judge.labelled import LabelledAnswer, labelled_answers
from duologue_align.rewards.situation import Reply, Situation, bridged_spans

WORDS_PER_S = 3.0
"""How fast all of them talk: well inside what people do, so that words tell them apart and not their speed."""
HUMANS = ("human-like", "human-timed")
SHORT: Mapping[str, str] = {"two mm-hm": "mm-hm", "mm-hm every 3 s": "mm-hm", "filler then stop": "well, um"}
"""What they say each time they speak."""


class Scorer(Protocol):
    """A judge of replies, such as `JudgePanel`."""

    def score(self, answers: Sequence[Answer]) -> Sequence[float]:
        """Return a rating of each answer, in [0, 2]."""
        ...


class Script:
    """Puts words into the mouths of the policies and asks a judge about them.

    Humans answer to the point, the echo repeats the user, babble is one garbled reply over and over, and whoever else
    talks says fluent things about something else, since none of them listens.
    """

    def __init__(self, judge: Scorer | None = None, labelled: Sequence[LabelledAnswer] | None = None) -> None:
        """Read the replies.

        Args:
            judge: Asked about each answer once; None asks nobody.
            labelled: Replies with their labels; None takes those of the package.
        """
        self._judge = judge
        self._scores: dict[Answer, float] = {}
        self._said: dict[str, dict[str, str]] = {}
        for item in labelled_answers() if labelled is None else labelled:
            self._said.setdefault(item.answer.user, {})[item.label] = item.answer.reply
        self._users = [
            user for user, replies in self._said.items() if {"good", "off_topic", "garbled"} <= replies.keys()
        ]

    def speak(self, policy: str, situation: Situation, reply: Reply, number: int) -> Reply:
        """Return a policy's reply with words and, if there is a judge, its rating of the answer.

        Args:
            policy: Name of the policy.
            situation: What it replies to.
            reply: When it speaks.
            number: Of the situation; all policies hear the same words in one.
        """
        user = self._users[number % len(self._users)]
        times = bridged_spans(reply.activity, IPU_BRIDGE)
        count = round(sum(end - start for start, end in times) * TICK_S * WORDS_PER_S)
        answer = self._answer(policy, user)
        if policy in SHORT:
            text = " ".join([answer] * len(times))
        else:
            text = " ".join(islice(self._flow(policy, number, answer), count))
        # As in training: the answer is what comes from 1 s before the end of the user's turn on.
        is_answer = any(end > situation.focus[1] - UTTERANCE_BRIDGE for _, end in times)
        score = self._score(Answer(user, answer if is_answer else ""))
        return replace(reply, text=text, judge_score=score)

    def _answer(self, policy: str, user: str) -> str:
        if policy in HUMANS:
            return self._said[user]["good"]
        if policy == "echo":
            return user
        if policy == "babble":
            return self._said[user]["garbled"]
        return SHORT.get(policy) or self._said[user]["off_topic"]

    def _flow(self, policy: str, number: int, answer: str) -> Iterator[str]:
        """Yield words without end: the same ones again from who only has these, else the replies to other users."""
        if policy == "babble":
            return cycle(answer.split())
        first = number % len(self._users)
        users = cycle([*self._users[first:], *self._users[:first]])
        return (word for user in users for word in self._answer(policy, user).split())

    def _score(self, answer: Answer) -> float | None:
        if self._judge is None:
            return None
        if answer not in self._scores:
            self._scores[answer] = float(np.asarray(self._judge.score([answer]))[0])
        return self._scores[answer]
