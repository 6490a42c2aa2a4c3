"""Lhotse cut manifests (JSON lines, perhaps gzipped): cuts of two channels, read without Lhotse itself.

Supported are cuts of one recording with two channels, in one file or a file per channel. The lower channel is called
the user unless the cut's "custom" says otherwise with "user_channel". Supervisions become the words.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duologue_align.corpus.conversation import Channel, Conversation, Line, Rejected


def list_cuts(source: Path) -> list[Conversation | Rejected]:
    """List a cut manifest; cuts of other shapes are rejected and the rest goes on."""
    found: list[Conversation | Rejected] = []
    for number, text in enumerate(_texts(source), start=1):
        if not text.strip():
            continue
        try:
            found.append(_conversation(json.loads(text), source.parent))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"not a cut of two channels ({type(error).__name__}: {error})"
            found.append(Rejected(f"{source.name}:{number}", reason))
    return found


def _texts(source: Path) -> Iterator[str]:
    if source.suffix == ".gz":
        with gzip.open(source, "rt", encoding="utf-8") as packed:
            yield from packed
    else:
        with source.open(encoding="utf-8") as plain:
            yield from plain


def _conversation(cut: dict[str, Any], folder: Path) -> Conversation:
    channels = cut["channel"]
    if not isinstance(channels, list) or len(channels) != 2:
        raise ValueError(f"channel is {channels!r}")
    user = int((cut.get("custom") or {}).get("user_channel", min(channels)))
    if user not in channels:
        raise ValueError(f"user_channel is {user}, the cut has {channels}")
    agent = next(channel for channel in channels if channel != user)
    sides = {user: "user", agent: "agent"}
    start_s, duration_s = float(cut["start"]), float(cut["duration"])
    by_channel = {number: _channel(cut["recording"], number, folder, start_s, duration_s) for number in channels}
    supervisions = cut.get("supervisions") or []
    speakers = {item.get("channel"): item.get("speaker") for item in supervisions}
    lines = [
        Line(
            "user" if sides[item["channel"]] == "user" else "agent",
            float(item["start"]),
            float(item["start"]) + float(item["duration"]),
            str(item["text"]).strip(),
        )
        for item in supervisions
        if item.get("text") and item.get("channel") in sides
    ]
    return Conversation(
        name=str(cut["id"]),
        user=by_channel[user],
        agent=by_channel[agent],
        user_speaker=speakers.get(user),
        agent_speaker=speakers.get(agent),
        lines=tuple(sorted(lines, key=lambda line: line.start_s)),
    )


def _channel(recording: dict[str, Any], number: int, folder: Path, start_s: float, duration_s: float) -> Channel:
    source = next((item for item in recording["sources"] if number in item["channels"]), None)
    if source is None:
        raise ValueError(f"the recording has no channel {number}")
    if source["type"] != "file":
        raise ValueError(f"a source of type {source['type']!r}; only files can be read")
    path = Path(source["source"])
    return Channel(
        path=path if path.is_absolute() else folder / path,
        channel=source["channels"].index(number) if len(source["channels"]) > 1 else None,
        start_s=start_s,
        duration_s=duration_s,
    )
