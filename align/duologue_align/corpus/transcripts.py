"""Read the words of a conversation from the forms in which corpora write them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError
from duologue.metrics.types import Side
from duologue.types import FRAME_MS
from duologue_align.corpus.conversation import Conversation, Line, TranscriptForm

_SIDES: tuple[Side, Side] = ("user", "agent")
_FISHER_LINE = re.compile(r"^(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+([AB]):\s*(.*)$")


def read_lines(conversation: Conversation) -> tuple[Line, ...]:
    """Return what was said, in order of time; () where nothing is written down.

    Raises:
        ConfigError: The transcript cannot be read.
    """
    transcript = conversation.transcript
    if transcript is None:
        return conversation.lines
    where = ", ".join(str(path) for path in transcript.paths)
    try:
        found = [line for line in _READERS[transcript.form](conversation) if line.text]
    except OSError as error:
        raise ConfigError(f"{where}: cannot read the transcript ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where}: not a transcript in the form {transcript.form!r} ({detail})") from error
    return tuple(sorted(found, key=lambda line: (line.start_s, line.end_s, line.side)))


def _files(conversation: Conversation) -> tuple[Path, ...]:
    assert conversation.transcript is not None
    return conversation.transcript.paths


def _read_own(conversation: Conversation) -> Iterator[Line]:
    """One JSON object a line: {"side": "user" | "agent", "start": s, "end": s, "text": ...}."""
    for row in _json_rows(_files(conversation)[0]):
        if row["side"] not in _SIDES:
            raise ValueError(f"side is {row['side']!r}; it must be user or agent")
        yield Line(row["side"], float(row["start"]), float(row["end"]), str(row["text"]).strip())


def _read_alignments(conversation: Conversation) -> Iterator[Line]:
    """Words as moshi-finetune reads them; SPEAKER_MAIN is the agent."""
    content = json.loads(_files(conversation)[0].read_text(encoding="utf-8"))
    for word, (start_s, end_s), speaker in content["alignments"]:
        side: Side = "agent" if speaker == "SPEAKER_MAIN" else "user"
        yield Line(side, float(start_s), float(end_s), str(word).strip())


def _read_session(conversation: Conversation) -> Iterator[Line]:
    """The inner monologue among the events of a kept session: pieces of text, a word beginning with a space."""
    words: list[tuple[float, float, str]] = []
    for row in _json_rows(_files(conversation)[0]):
        if row["kind"] != "transcript":
            continue
        start_s, text = float(row["start_s"]), str(row["detail"]["text"])
        end_s = round(start_s + FRAME_MS / 1000, 3)
        if words and not text.startswith(" "):
            words[-1] = (words[-1][0], end_s, words[-1][2] + text)
        else:
            words.append((start_s, end_s, text))
    return (Line("agent", start_s, end_s, text.strip()) for start_s, end_s, text in words)


def _read_fisher(conversation: Conversation) -> Iterator[Line]:
    """`start end A: words` a line; side A is channel 0."""
    user_label = "A" if conversation.user.channel == 0 else "B"
    for text in _files(conversation)[0].read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _FISHER_LINE.match(text.strip()):
            start_s, end_s, label, words = match.groups()
            yield Line("user" if label == user_label else "agent", float(start_s), float(end_s), words.strip())


def _read_seamless(conversation: Conversation) -> Iterator[Line]:
    """A file per participant: JSON lines of {"transcript", "start", "end"}, or JSON with them under a key."""
    for side, path in zip(_SIDES, _files(conversation), strict=True):
        for row in _json_rows(path):
            for item in row.get("metadata:transcript", [row]):
                yield Line(side, float(item["start"]), float(item["end"]), str(item["transcript"]).strip())


def _read_candor(conversation: Conversation) -> Iterator[Line]:
    """CSV with the columns speaker, start, stop and utterance."""
    with _files(conversation)[0].open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            side: Side = "user" if row["speaker"].strip() == conversation.user_speaker else "agent"
            yield Line(side, float(row["start"]), float(row["stop"]), row["utterance"].strip())


def _json_rows(path: Path) -> Iterable[dict[str, Any]]:
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        found = json.loads(content)
        return found if isinstance(found, list) else [found]
    return [json.loads(text) for text in content.splitlines() if text.strip()]


_READERS: dict[TranscriptForm, Callable[[Conversation], Iterator[Line]]] = {
    "lines": _read_own,
    "alignments": _read_alignments,
    "session": _read_session,
    "fisher": _read_fisher,
    "seamless": _read_seamless,
    "candor": _read_candor,
}
