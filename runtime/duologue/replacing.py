"""Write one file, or one folder, so that at every moment it is either the old one or the whole new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from duologue.errors import ConfigError


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


@contextmanager
def replacing_folder(path: str | Path, *, marker: str | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `path` to fill; on success it takes the place of `path`, on failure it goes.

    Args:
        path: What is not there yet, an empty folder, or one that may be replaced.
        marker: File by which a folder that may be replaced is known; None replaces none.

    Raises:
        ConfigError: `path` holds something else.
        OSError: The folder above cannot be written, or the disk is full.
    """
    target = Path(path).absolute()
    is_replaceable = marker is not None and (target / marker).is_file()
    if target.exists() and not is_replaceable and (not target.is_dir() or any(target.iterdir())):
        wanted = "not an empty folder" if marker is None else f"neither an empty folder nor one with a {marker}"
        raise ConfigError(f"{target} exists and is {wanted}; choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    fresh, old = work / "fresh", work / "old"
    try:
        fresh.mkdir()
        yield fresh
        for file in fresh.rglob("*"):
            if file.is_file():
                # safetensors makes files that only their owner reads; the folder shows what the umask allows.
                file.chmod(fresh.stat().st_mode & 0o666)
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        if is_replaceable and target.exists():
            target.rename(old)
        # Onto an empty folder this succeeds; onto one that somebody filled meanwhile it is an OSError.
        fresh.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(work, ignore_errors=True)
