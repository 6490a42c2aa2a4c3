"""Write one file so that at every moment it is either the old one or the whole new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it takes the place of `path`, on failure it goes.

    Raises:
        OSError: If the folder cannot be written, or the disk is full.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def replace_file(path: str | Path, content: bytes) -> None:
    """Write a whole file at once.

    Raises:
        OSError: As `replacing`.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)
