"""The folder of a training run: checkpoints, metrics, weights, samples.

checkpoints/        everything needed to go on, the last two
metrics.jsonl       one JSON object a line
mimi.safetensors    the averaged weights so far, with mimi_config.json
samples/step_N/     recorded and decoded clips
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError, WeightsError
from duologue.replacing import replace_file
from duologue_align.checkpointing import Checkpoints


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: str | Path) -> None:
        """Create the folder.

        Raises:
            ConfigError: It cannot be created.
        """
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot create the folder ({error.strerror}); give another with --out"
            ) from error

        self._checkpoints = Checkpoints(self.path / "checkpoints")

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to resume."""
        return bool(self._checkpoints.found())

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of a step.

        Raises:
            ConfigError: It cannot be written.
        """
        self._checkpoints.save(step, state)

    def load(self) -> dict[str, Any]:
        """Read the newest checkpoint, onto the CPU.

        Raises:
            WeightsError: There is none, or it cannot be read.
        """
        state: dict[str, Any] | None = self._checkpoints.load_latest()
        if state is None:
            raise WeightsError(f"{self.path} holds no checkpoint; start without --resume")
        return state

    def log(self, row: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def cut_log(self, step: int) -> None:
        """Drop the lines after a step: they belong to work that was not saved."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            replace_file(path, "".join(kept).encode())
