"""The labelled replies that ship with the package: what a judge must be able to tell apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from duologue.errors import ConfigError
from duologue_align.judge.judge import Answer

Label = Literal["good", "off_topic", "garbled", "echo", "empty"]
LABELS: tuple[Label, ...] = get_args(Label)

_BUNDLED = Path(__file__).with_name("labelled_replies.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswer:
    """An exchange and what is known of its reply.

    Attributes:
        answer: The exchange.
        label: good; off_topic (fluent, but about something else); garbled (broken words, words in no order, loops);
            echo (the user's own words); empty (nothing, or hesitations alone).
    """

    answer: Answer
    label: Label


def labelled_answers(path: str | Path | None = None) -> Sequence[LabelledAnswer]:
    """Read labelled answers: one JSON object a line, {"user": ..., "replies": {label: reply, ...}}.

    Args:
        path: The file; None for the one that ships.

    Raises:
        ConfigError: It cannot be read, or a line is of another shape.
    """
    source = Path(path) if path else _BUNDLED
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source}: cannot read labelled answers ({error})") from error
    return [item for number, line in enumerate(lines, 1) if line.strip() for item in _items(line, f"{source}:{number}")]


def _items(line: str, where: str) -> list[LabelledAnswer]:
    try:
        row = json.loads(line)
        user, replies = row["user"], dict(row["replies"])
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f'{where}: write {{"user": ..., "replies": {{"good": ..., ...}}}} ({error})') from error
    if not isinstance(user, str) or not all(isinstance(reply, str) for reply in replies.values()):
        raise ConfigError(f"{where}: user and replies must be text")
    if unknown := sorted(set(replies) - set(LABELS)):
        raise ConfigError(f"{where} has the unknown label {unknown[0]!r}; known are {', '.join(LABELS)}")
    return [LabelledAnswer(answer=Answer(user, reply), label=label) for label, reply in replies.items()]
