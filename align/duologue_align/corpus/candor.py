"""CANDOR: video calls between strangers, a folder each.

    <id>/processed/<id>.mp3                          stereo, the left channel one speaker, the right one the other
    <id>/transcription/transcript_backbiter.csv      speaker, start, stop, utterance (or _audiophile, _cliffhanger)
    <id>/metadata.json                               {"speakers": [{"user_id", "channel": "L" | "R"}, ...]}

The corpus has no roles; the speaker on the left is called the user. Part of Full-Duplex-Bench's pause clips come from
CANDOR, so a model trained on it must not be judged by those.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from duologue_align.corpus.conversation import Channel, Conversation, Rejected, Transcript
from duologue_align.corpus.folder import AUDIO_SUFFIXES

_TRANSCRIPTS = ("transcript_backbiter.csv", "transcript_audiophile.csv", "transcript_cliffhanger.csv")


def list_candor(source: Path) -> list[Conversation | Rejected]:
    """List the conversations of a folder; one without a processed recording is rejected."""
    folders = sorted({path.parent for path in source.rglob("processed") if path.is_dir()})
    return [_conversation(folder) for folder in folders]


def _conversation(folder: Path) -> Conversation | Rejected:
    files = sorted(path for path in (folder / "processed").iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
    named = [path for path in files if path.stem == folder.name] or files
    if not named:
        return Rejected(folder.name, "no recording in processed/; expected <id>.mp3 with two channels")
    try:
        left, right = _speakers(folder / "metadata.json")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Rejected(folder.name, f"metadata.json does not say who is left and who is right ({error})")
    words = next((folder / "transcription" / name for name in _TRANSCRIPTS if _is_there(folder, name)), None)
    return Conversation(
        name=folder.name,
        user=Channel(path=named[0], channel=0),
        agent=Channel(path=named[0], channel=1),
        user_speaker=left,
        agent_speaker=right,
        transcript=Transcript(form="candor", paths=(words,)) if words and left else None,
    )


def _is_there(folder: Path, name: str) -> bool:
    return (folder / "transcription" / name).is_file()


def _speakers(path: Path) -> tuple[str | None, str | None]:
    if not path.is_file():
        return None, None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    by_channel = {str(item["channel"]): str(item["user_id"]) for item in content["speakers"]}
    return by_channel["L"], by_channel["R"]
