"""List the conversations of a source: a folder, a manifest, or a published corpus in its own layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from duologue.errors import ConfigError
from duologue_align.corpus.candor import list_candor
from duologue_align.corpus.conversation import Conversation, Rejected
from duologue_align.corpus.fisher import list_fisher
from duologue_align.corpus.folder import list_folder
from duologue_align.corpus.lhotse import list_cuts
from duologue_align.corpus.manifest import list_manifest
from duologue_align.corpus.seamless import list_seamless

Layout: TypeAlias = Literal["folder", "manifest", "fisher", "seamless", "candor", "lhotse"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_LISTERS: dict[Layout, Callable[[Path], list[Conversation | Rejected]]] = {
    "folder": list_folder,
    "manifest": list_manifest,
    "fisher": list_fisher,
    "seamless": list_seamless,
    "candor": list_candor,
    "lhotse": list_cuts,
}


def list_conversations(
    sources: Sequence[str | Path], layout: Layout | None = None
) -> tuple[list[Conversation], list[Rejected]]:
    """Return the conversations of some sources, each with a name of its own, and what could not be used.

    Args:
        sources: Folders or manifests.
        layout: How they are laid out; None takes a file for a manifest (Lhotse's if its name says so) and a folder for
            a folder of recordings.

    Raises:
        ConfigError: A source does not exist, cannot be read, or holds no conversation at all; a layout is unknown.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}; use one of: {', '.join(LAYOUTS)}")
    found: dict[str, Conversation] = {}
    rejected: list[Rejected] = []
    for source in (Path(item) for item in sources):
        if not source.exists():
            raise ConfigError(f"{source}: no such file or folder; give a folder of recordings or a manifest")
        chosen = layout or _guess(source)
        try:
            entries = _LISTERS[chosen](source)
        except OSError as error:
            raise ConfigError(f"{source}: cannot be listed ({error.strerror})") from error
        if not entries:
            raise ConfigError(f"{source}: no conversation in the layout {chosen!r}; is that the right --layout?")
        for entry in entries:
            if isinstance(entry, Rejected):
                rejected.append(entry)
            else:
                unique = _unique(entry, source, found)
                found[unique.name] = unique
    return list(found.values()), rejected


def _guess(source: Path) -> Layout:
    if source.is_dir():
        return "folder"
    return "lhotse" if ".jsonl.gz" in source.name or "cuts" in source.name else "manifest"


def _unique(conversation: Conversation, source: Path, taken: dict[str, Conversation]) -> Conversation:
    if conversation.name not in taken:
        return conversation
    name = f"{source.stem}/{conversation.name}"
    count = 2
    while name in taken:
        name = f"{source.stem}/{conversation.name}.{count}"
        count += 1
    return replace(conversation, name=name)
