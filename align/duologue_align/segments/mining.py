"""Mine one conversation: listen, find the segments, keep the result in a file of its own.

The same function runs in this process, in others and on a Ray cluster. Listening is what takes time; its result is
kept with a signature of the audio, so that other rules find other segments without listening again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from duologue.errors import DuologueError
from duologue.replacing import replace_file
from duologue.types import FRAME_RATE_HZ
from duologue_align.corpus.conversation import Channel, Conversation, Line, Split
from duologue_align.corpus.transcripts import read_lines
from duologue_align.segments.rules import MiningRules
from duologue_align.segments.segment import Segment, from_row, to_row
from duologue_align.segments.sets import Found, find_segments
from duologue_align.segments.speech import Activity, Span, Talk, analyse, listen, overlapping

FORMAT = 1
"""Version of a conversation's file; it changes when the same audio and rules give other segments."""
FOLDER = "conversations"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningTask:
    """One conversation to mine.

    Attributes:
        conversation: Which.
        rules: By which rules.
        out: The mined folder.
    """

    conversation: Conversation
    rules: MiningRules
    out: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a task.

    Attributes:
        name: Name of the conversation.
        audio_s: Length of the conversation; 0 if it could not be used.
        processed_s: How much of it this run listened to (or encoded) itself; 0 where only the rules were new.
        was_done: Whether an earlier run had done it.
        error: Why it could not be used, in one line, or "".
    """

    name: str
    audio_s: float = 0.0
    processed_s: float = 0.0
    was_done: bool = False
    error: str = ""


def mine_conversation(task: MiningTask) -> Outcome:
    """Mine a conversation into its file, unless that is done already; never raises for what a file holds."""
    name = task.conversation.name
    try:
        return _mine(task)
    except (DuologueError, OSError) as error:
        return Outcome(name=name, error=_one_line(error))
    except Exception as error:  # one strange file must not end a night's run
        _log.exception("%s: unexpected failure", name)
        return Outcome(name=name, error=_one_line(f"{type(error).__name__}: {error}"))


def result_path(out: Path, name: str) -> Path:
    """Return where the result of a conversation is kept."""
    return out / FOLDER / f"{file_stem(name)}.json"


def file_stem(name: str) -> str:
    """Return a file name for a conversation: readable, and different for different names."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", name)[-60:].strip("._")
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def read_result(out: Path, name: str) -> tuple[list[Segment], dict[str, Any]] | None:
    """Return the segments of a conversation and the facts about it, or None if it has not been mined."""
    content = _read(result_path(out, name))
    if content is None:
        return None
    return [from_row(row, out) for row in content["segments"]], content


def split_of(name: str, rules: MiningRules) -> Split:
    """Return the split of a conversation: by a hash of its name, so that it never changes as a corpus grows."""
    share = int(hashlib.sha256(f"split:{name}".encode()).hexdigest()[:8], 16) / 2**32
    if share < rules.test_share:
        return "test"
    return "dev" if share < rules.test_share + rules.dev_share else "train"


def audio_signature(conversation: Conversation) -> str:
    """Return a digest of which bytes a conversation is made of, by name, size and time of change.

    Raises:
        OSError: A recording is missing.
    """
    files = sorted({conversation.user.path, conversation.agent.path})
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digest([facts, asdict(conversation.user), asdict(conversation.agent)])


def digest(content: Any) -> str:
    """Return a short digest of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _mine(task: MiningTask) -> Outcome:
    conversation, rules, name = task.conversation, task.rules, task.conversation.name
    path = result_path(task.out, name)
    audio = digest([FORMAT, rules.detector, audio_signature(conversation)])
    whole = digest([audio, rules.to_dict(), asdict(conversation)])
    there = _read(path)
    if there is not None and there["signature"] == whole:
        return Outcome(name=name, audio_s=float(there["duration_s"]), was_done=True)
    is_heard = there is not None and there["audio_signature"] == audio
    if there is not None and is_heard:
        activity = Activity(**{key: _plain(value) for key, value in there["activity"].items()})
    else:
        activity = listen(conversation.user, conversation.agent, rules.detector)
    segments = _segments(conversation, activity, rules)
    content = {
        "format": FORMAT,
        "name": conversation.name,
        "signature": whole,
        "audio_signature": audio,
        "duration_s": activity.duration_s,
        "activity": asdict(activity),
        "segments": [to_row(segment) for segment in segments],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(content).encode())
    heard_s = 0.0 if is_heard else activity.duration_s
    return Outcome(name=name, audio_s=activity.duration_s, processed_s=heard_s)


def _segments(conversation: Conversation, activity: Activity, rules: MiningRules) -> list[Segment]:
    lines = read_lines(conversation)
    split = conversation.split or split_of(conversation.name, rules)
    segments = []
    for is_swapped in (False, True) if rules.both_roles else (False,):
        talk = analyse(activity.swapped() if is_swapped else activity)
        for found in find_segments(talk, rules):
            segments.append(_segment(conversation, split, talk, lines, found, is_swapped=is_swapped))
    return segments


def _segment(
    conversation: Conversation, split: Split, talk: Talk, lines: tuple[Line, ...], found: Found, *, is_swapped: bool
) -> Segment:
    first = math.floor(round(found.start_s * FRAME_RATE_HZ, 6))
    last = math.ceil(round(found.end_s * FRAME_RATE_HZ, 6))
    start_s, end_s = round(first / FRAME_RATE_HZ, 2), round(last / FRAME_RATE_HZ, 2)
    user, agent = (conversation.user, conversation.user_speaker), (conversation.agent, conversation.agent_speaker)
    if is_swapped:
        user, agent = agent, user
    roles = "swapped" if is_swapped else "given"
    said = [line for line in lines if line.start_s < end_s and line.end_s > start_s]
    return Segment(
        id=f"{conversation.name}#{roles}-{found.axis}-{first:06d}",
        axis=found.axis,
        split=split,
        conversation=conversation.name,
        is_swapped=is_swapped,
        start_s=start_s,
        end_s=end_s,
        user=_absolute(user[0]),
        agent=_absolute(agent[0]),
        user_speaker=user[1],
        agent_speaker=agent[1],
        events=found.events,
        user_spans=_clipped(talk, "user", start_s, end_s),
        agent_spans=_clipped(talk, "agent", start_s, end_s),
        lines=tuple(_swapped(line) for line in said) if is_swapped else tuple(said),
    )


def _clipped(talk: Talk, side: Any, start_s: float, end_s: float) -> tuple[Span, ...]:
    return tuple((max(a, start_s), min(b, end_s)) for a, b in overlapping(talk.ipus[side], start_s, end_s))


def _swapped(line: Line) -> Line:
    return Line("agent" if line.side == "user" else "user", line.start_s, line.end_s, line.text)


def _absolute(channel: Channel) -> Channel:
    return Channel(
        path=channel.path.resolve(), channel=channel.channel, start_s=channel.start_s, duration_s=channel.duration_s
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if content.get("format") == FORMAT else None


def _plain(value: Any) -> Any:
    return tuple(tuple(item) for item in value) if isinstance(value, list) else value


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
