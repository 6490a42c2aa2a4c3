"""The record of a run: metrics.jsonl, and TensorBoard's files where that is installed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError
from duologue.replacing import replace_file

NAME = "metrics.jsonl"


class Journal:
    """Appends rows; a resumed run first drops the rows after the step it goes on from."""

    def __init__(self, out: str | Path, step: int, *, is_writing: bool = True) -> None:
        """Open the record.

        Args:
            out: Folder of the run, created.
            step: Steps done so far.
            is_writing: False makes every call do nothing, for all processes but the first.

        Raises:
            ConfigError: The folder cannot be written.
        """
        self._file: Any = None
        self._board: Any = None
        if not is_writing:
            return
        path = Path(out) / NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for line in _lines(path) if _step(line) <= step]
            replace_file(path, "".join(kept).encode())
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{out}: cannot write there ({error.strerror}); give another --out") from error
        self._board = _tensorboard(Path(out) / "tensorboard", step)

    def write(self, step: int, row: dict[str, Any]) -> None:
        """Append a row; values that are NaN become null, so that every JSON reader takes the file."""
        if self._file is None:
            return
        self._file.write(json.dumps(_finite(row)) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in _flat(row):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_journal(out: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a run."""
    return [json.loads(line) for line in _lines(Path(out) / NAME)]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    # A line that a crash cut short has no end and is dropped.
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _step(line: str) -> int:
    return int(json.loads(line)["step"])


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(row: dict[str, Any], prefix: str = "train") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            found += _flat(value, key)
        elif isinstance(value, int | float) and key != "step":
            found.append((f"{prefix}/{key}", float(value)))
    return found


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=step + 1)
