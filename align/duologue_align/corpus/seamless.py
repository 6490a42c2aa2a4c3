"""Seamless Interaction: one 48 kHz recording per participant, words as JSON lines.

    {improvised,naturalistic}/{train,dev,test}/.../V00_S0809_I00000582_P0947.wav     one participant
    .../V00_S0809_I00000582_P0947.json                 its words, under "metadata:transcript" (as downloaded in batches)
    .../transcript/V00_S0809_I00000582_P0947.jsonl     or in a folder of their own (as laid out on the server)

Files that share vendor, session and interaction are one conversation; the corpus' own split is kept. The corpus has no
roles; the participant whose id comes first is called the user.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from duologue_align.corpus.conversation import SPLITS, Channel, Conversation, Rejected, Split, Transcript
from duologue_align.corpus.folder import AUDIO_SUFFIXES

_FILE = re.compile(r"^(?P<interaction>V\d+_S\d+_I\d+)_(?P<participant>P\w+)$")


def list_seamless(source: Path) -> list[Conversation | Rejected]:
    """List the interactions below a folder; one with other than two participants is rejected."""
    files = [path for path in source.rglob("V*_S*_I*_P*") if path.suffix.lower() in AUDIO_SUFFIXES]
    by_name = sorted((path for path in files if _FILE.match(path.stem)), key=lambda path: (path.stem, path.as_posix()))
    found: list[Conversation | Rejected] = []
    for interaction, group in groupby(by_name, key=lambda path: _part(path, "interaction")):
        paths = list(group)
        if len({path.stem for path in paths}) != 2 or len(paths) != 2:
            found.append(Rejected(interaction, f"{len(paths)} recordings; an interaction needs two participants"))
        else:
            found.append(_conversation(interaction, paths, source))
    return found


def _conversation(interaction: str, paths: list[Path], source: Path) -> Conversation:
    user, agent = paths
    words = [_words(path) for path in paths]
    there = tuple(path for path in words if path is not None)
    return Conversation(
        name=interaction,
        user=Channel(path=user),
        agent=Channel(path=agent),
        user_speaker=_part(user, "participant"),
        agent_speaker=_part(agent, "participant"),
        transcript=Transcript(form="seamless", paths=there) if len(there) == 2 else None,
        split=_split(user.relative_to(source)),
    )


def _part(path: Path, name: str) -> str:
    match = _FILE.match(path.stem)
    assert match is not None
    return match[name]


def _words(path: Path) -> Path | None:
    places = (
        path.with_suffix(".json"),
        path.with_suffix(".jsonl"),
        path.parent.parent / "transcript" / f"{path.stem}.jsonl",
        path.parent.parent / "metadata" / "transcript" / f"{path.stem}.jsonl",
    )
    return next((place for place in places if place.is_file()), None)


def _split(path: Path) -> Split | None:
    return next((split for split in SPLITS if split in path.parts), None)
