"""Write several files so that either all of them appear or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from duologue.errors import ConfigError, DuologueError


@contextmanager
def output_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder inside `path`; on success its files replace those of the same name in `path`.

    A folder that did not exist is removed again when the work fails.

    Raises:
        ConfigError: If `path` cannot be a folder we write to, or the disk fills up.
    """
    target = Path(path).absolute()
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; give a folder for the output")
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    partial: Path | None = None
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Inside the target, so that the final rename never crosses a mount point.
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target))
        yield partial
        for file in sorted(partial.iterdir()):
            file.replace(target / file.name)
        made = []
    except DuologueError:
        raise
    except OSError as error:
        raise ConfigError(f"{target}: cannot write there ({error.strerror or error}); give another folder") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
