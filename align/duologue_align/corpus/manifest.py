"""Our own manifest: JSON lines, one conversation each.

    {"path": "calls/1.wav", "user_channel": 1}                       one file, two channels (0 and 1)
    {"user": "1_caller.wav", "agent": "1_agent.wav"}                 two files
    + "name", "user_speaker", "agent_speaker", "split", "duration",
      "transcript": a JSONL of {"side": "user" | "agent", "start", "end", "text"}

Paths are relative to the manifest. Without "user_channel" the user is on channel 1 (right), as in moshi-finetune.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from duologue_align.corpus.conversation import SPLITS, Channel, Conversation, Rejected, Transcript
from duologue_align.corpus.folder import USER_CHANNEL

_KEYS = frozenset(
    {"path", "user", "agent", "user_channel", "agent_channel"}
    | {"name", "user_speaker", "agent_speaker", "transcript", "split", "duration"}
)


def list_manifest(source: Path) -> list[Conversation | Rejected]:
    """List a manifest, or the data.jsonl in a folder; a bad line is rejected and the rest goes on."""
    path = source / "data.jsonl" if source.is_dir() else source
    found: list[Conversation | Rejected] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            found.append(_conversation(json.loads(text), path.parent))
        except (ValueError, KeyError, TypeError) as error:
            found.append(Rejected(f"{path.name}:{number}", f"not a conversation ({type(error).__name__}: {error})"))
    return found


def _conversation(row: dict[str, Any], folder: Path) -> Conversation:
    if unknown := sorted(set(row) - _KEYS):
        raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    if ("path" in row) == ("user" in row and "agent" in row):
        raise ValueError('give either "path", or "user" and "agent"')
    user, agent = _one_file(row, folder) if "path" in row else _two_files(row, folder)
    split = row.get("split")
    if split is not None and split not in SPLITS:
        raise ValueError(f"split is {split!r}; use one of {', '.join(SPLITS)}")
    transcript = row.get("transcript")
    return Conversation(
        name=str(row.get("name") or Path(row.get("path") or row["user"]).with_suffix("").as_posix()),
        user=user,
        agent=agent,
        user_speaker=_text(row.get("user_speaker")),
        agent_speaker=_text(row.get("agent_speaker")),
        transcript=Transcript(form="lines", paths=(folder / transcript,)) if transcript else None,
        split=split,
    )


def _one_file(row: dict[str, Any], folder: Path) -> tuple[Channel, Channel]:
    user = int(row.get("user_channel", USER_CHANNEL))
    agent = int(row.get("agent_channel", 1 - user))
    if user == agent or min(user, agent) < 0:
        raise ValueError(f"user_channel {user} and agent_channel {agent} must be two different channels, from 0")
    path = folder / str(row["path"])
    return Channel(path=path, channel=user), Channel(path=path, channel=agent)


def _two_files(row: dict[str, Any], folder: Path) -> tuple[Channel, Channel]:
    user, agent = (
        Channel(path=folder / str(row[side]), channel=_number(row.get(f"{side}_channel"))) for side in ("user", "agent")
    )
    return user, agent


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
