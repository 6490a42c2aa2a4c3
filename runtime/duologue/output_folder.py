"""Write several files so that either all of them appear or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duologue.errors import ConfigError


@contextmanager
def output_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success its files replace those of the same name in `path`.

    Raises:
        ConfigError: If `path` cannot be a folder we write to.
    """
    target = Path(path).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_dir():
            raise ConfigError(f"{target} is a file; give a folder for the output")
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise ConfigError(f"{target}: cannot write there ({error.strerror}); give another folder with --out") from error
    try:
        yield partial
        target.mkdir(exist_ok=True)
        for file in sorted(partial.iterdir()):
            file.replace(target / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
