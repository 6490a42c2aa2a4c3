"""A folder of recordings: stereo files (left the agent, right the user), or two files per conversation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from duologue.recorder import EVENTS, REPORT, SOUND
from duologue_align.corpus.conversation import Channel, Conversation, Rejected, Transcript

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".w64", ".aiff", ".aif"})
"""File names that are taken for recordings."""

AGENT_CHANNEL, USER_CHANNEL = 0, 1
"""Channels of a stereo file. Source: moshi-finetune's convention, left is the model."""

_PAIRS = (
    ("agent", "caller"),
    ("agent", "customer"),
    ("agent", "client"),
    ("agent", "user"),
    ("model", "user"),
    ("assistant", "user"),
    ("output", "input"),
    ("left", "right"),
    ("a", "b"),
    ("ch0", "ch1"),
    ("ch1", "ch2"),
    ("0", "1"),
    ("1", "2"),
)
"""(agent, user): last parts of the names of two files that belong together."""

_TAGGED = re.compile(r"^(?P<stem>.+)[._-](?P<tag>[A-Za-z0-9]+)$")


def list_folder(source: Path) -> list[Conversation | Rejected]:
    """List a folder and what lies below it.

    A conversation that the runtime kept (`AgentConfig.record`, `duologue run`, `talk --record`) is known by the report
    beside it and has its own channels and words.
    Two files of one folder whose names differ only in a last part such as `_agent` and `_caller` are one conversation;
    every other file must have two channels. Words are read from a `.json` beside a file in moshi-finetune's form.
    """
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    # A hidden folder holds what is still being recorded.
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(source).parts)]
    pairs, rest = find_pairs(files)
    found = [
        Conversation(name=_name(agent.with_name(stem), source), user=Channel(path=user), agent=Channel(path=agent))
        for stem, agent, user in pairs
    ]
    found += [_stereo(path, source) for path in rest]
    return sorted(found, key=lambda conversation: conversation.name)


def find_pairs(files: Iterable[Path]) -> tuple[list[tuple[str, Path, Path]], list[Path]]:
    """Return (common name, agent's file, user's file) of the files that belong together, and the other files."""
    rest = {(path.parent, path.stem.lower(), path.suffix.lower()): path for path in files}
    pairs: list[tuple[str, Path, Path]] = []
    for agent_tag, user_tag in _PAIRS:
        for (folder, stem, suffix), path in list(rest.items()):
            match = _TAGGED.match(path.stem)
            if match is None or match["tag"].lower() != agent_tag:
                continue
            partner = (folder, stem[: -len(agent_tag)] + user_tag, suffix)
            if partner in rest:
                pairs.append((match["stem"], rest.pop((folder, stem, suffix)), rest.pop(partner)))
    return pairs, list(rest.values())


def _stereo(path: Path, source: Path) -> Conversation:
    if path.name == SOUND and path.with_name(REPORT).is_file():
        return _kept(path, source)
    words = path.with_suffix(".json")
    is_written = words.is_file() and b'"alignments"' in _begin(words)
    return Conversation(
        name=_name(path.with_suffix(""), source),
        user=Channel(path=path, channel=USER_CHANNEL),
        agent=Channel(path=path, channel=AGENT_CHANNEL),
        transcript=Transcript(form="alignments", paths=(words,)) if is_written else None,
    )


def _kept(path: Path, source: Path) -> Conversation:
    events = path.with_name(EVENTS)
    return Conversation(
        name=_name(path.parent, source) if path.parent != source else path.stem,
        user=Channel(path=path, channel=0),
        agent=Channel(path=path, channel=1),
        transcript=Transcript(form="session", paths=(events,)) if events.is_file() else None,
    )


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _name(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()
