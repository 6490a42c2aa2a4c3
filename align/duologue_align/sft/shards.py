"""Encoded dialogues on disk: int16 token frames in safetensors shards with an index, read by mapping the files.

CODES/index.json             streams, cardinalities, hashes of codec and tokenizer, one row per dialogue
CODES/shard-00000.safetensors   per dialogue an int16 tensor [2 + 2 K, T]: text, agent codes, user codes, user text
CODES/mimi.safetensors, mimi_config.json, tokenizer.model   what the tokens were made with
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from duologue.errors import ConfigError, WeightsError
from duologue.replacing import replace_file, replacing

FORMAT = 2
INDEX = "index.json"
MIMI, MIMI_CONFIG, TOKENIZER = "mimi.safetensors", "mimi_config.json", "tokenizer.model"
Tokens = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesIndex:
    """What a folder of shards holds.

    Attributes:
        codebooks: Codebooks of each side.
        card: Entries per codebook.
        text_card: Pieces of the tokenizer.
        source: Hashes of codec weights, codec configuration, tokenizer and data; equal hashes, equal tokens.
        dialogues: (name, shard, frames) of each dialogue.
    """

    codebooks: int
    card: int
    text_card: int
    source: dict[str, str]
    dialogues: tuple[tuple[str, str, int], ...]

    @property
    def frames(self) -> int:
        """Frames of all dialogues."""
        return sum(frames for _, _, frames in self.dialogues)

    def write(self, folder: Path) -> None:
        """Write the index into a folder, atomically."""
        content: dict[str, Any] = {"format": FORMAT, "codebooks": self.codebooks, "card": self.card}
        content |= {"text_card": self.text_card, "source": self.source, "dialogues": [list(d) for d in self.dialogues]}
        replace_file(folder / INDEX, json.dumps(content, indent=0).encode())

    @classmethod
    def read(cls, folder: Path) -> CodesIndex:
        """Read a folder's index.

        Raises:
            ConfigError: There is none, or it is of another version.
        """
        path = folder / INDEX
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ConfigError(f"{path}: written by another version; encode the dialogues again")
            content["dialogues"] = tuple((str(n), str(s), int(f)) for n, s, f in content["dialogues"])
            return cls(**content)
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be read ({error.strerror}); write it with: duologue-align encode"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path}: malformed ({error}); encode the dialogues again") from error


class Codes:
    """Random access to the dialogues of a folder; files are mapped, not read.

    Attributes:
        folder: The folder.
        index: What it holds.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder.

        Raises:
            ConfigError: As `CodesIndex.read`, or it holds no dialogues.
        """
        self.folder = Path(folder)
        self.index = CodesIndex.read(self.folder)
        if not self.index.dialogues:
            raise ConfigError(f"{self.folder}: holds no dialogues; encode some")
        self._open: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.index.dialogues)

    def frames(self, number: int) -> int:
        """Return the length of a dialogue."""
        return self.index.dialogues[number][2]

    def read(self, number: int, begin: int = 0, end: int | None = None) -> Tokens:
        """Return frames [begin, end) of a dialogue, as far as there are any, int16, shape [2 + 2 K, T].

        Raises:
            WeightsError: The shard is missing or damaged.
        """
        name, shard, frames = self.index.dialogues[number]
        end = frames if end is None else min(end, frames)
        if begin >= end:
            return np.zeros((2 + 2 * self.index.codebooks, 0), dtype=np.int16)
        try:
            if shard not in self._open:
                self._open[shard] = safe_open(self.folder / shard, framework="np")
            tokens: Tokens = self._open[shard].get_slice(name)[:, begin:end]
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{self.folder / shard}: cannot read {name} ({error}); encode again") from error
        return tokens

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def write_shard(path: Path, dialogues: dict[str, Tokens]) -> None:
    """Write one shard, atomically."""
    with replacing(path) as partial:
        save_file(dialogues, partial)


def shard_frames(path: Path) -> dict[str, int] | None:
    """Return the frames of each dialogue in a shard, or None if the shard is not there or damaged."""
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_slice(name).get_shape()[1] for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
