"""Read mined segments back: the way in for everything that trains or evaluates on them."""

from __future__ import annotations

import json
from pathlib import Path

from duologue.errors import ConfigError
from duologue_align.corpus.conversation import SPLITS, Split
from duologue_align.segments.segment import AXES, Axis, Segment, from_row

MANIFEST = "segments.jsonl"


def read_segments(folder: str | Path, *, split: Split | None = None, axis: Axis | None = None) -> list[Segment]:
    """Return the segments that `duologue-align mine --out DIR` wrote, in the manifest's order.

    Codes and audio are read when a segment is asked for them.

    Args:
        folder: The mined folder.
        split: Only this split; None is all.
        axis: Only this set; None is all.

    Raises:
        ConfigError: There is no manifest, it is malformed, or there is no such split or set.
    """
    if split is not None and split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}; use one of {', '.join(SPLITS)}")
    if axis is not None and axis not in AXES:
        raise ConfigError(f"there is no set {axis!r}; use one of {', '.join(AXES)}")
    path = Path(folder) / MANIFEST
    found = []
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                row = json.loads(text)
                if split in (None, row["split"]) and axis in (None, row["axis"]):
                    found.append(from_row(row, Path(folder)))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); write it with: duologue-align mine") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: malformed ({type(error).__name__}: {error}); mine again") from error
    return found
