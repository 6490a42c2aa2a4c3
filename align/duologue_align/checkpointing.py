"""Training checkpoints without pickle, one safetensors file each, whole or not there; and stopping politely.

checkpoints = Checkpoints(out / "checkpoints", keep=2)
with StopRequest() as stop:
    for step in range(start, steps):
        ...
        if stop.is_set or (step + 1) % 1000 == 0:
            checkpoints.save(step + 1, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), ...})
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from duologue.errors import ConfigError, WeightsError
from duologue.replacing import replacing

Tree: TypeAlias = Any
"""Dicts (keys str or int), lists and tuples of tensors, numbers, strings, bools and None, nested at will."""

FORMAT = "duologue-training-1"
_NAME = re.compile(r"step-(\d{9})\.safetensors")


def save_tree(path: str | Path, tree: Tree) -> None:
    """Write a tree to one file, atomically; tensors keep their type and every bit.

    Args:
        path: Where to; its folder exists.
        tree: See `Tree`.

    Raises:
        ConfigError: The tree holds something else, or the file cannot be written.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    outline = json.dumps(_outline(tree, tensors))
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata={"format": FORMAT, "tree": outline})
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: cannot write the checkpoint ({error}); free some space or give another --out"
        ) from error


def load_tree(path: str | Path) -> Tree:
    """Read what `save_tree` wrote; all tensors are on the CPU.

    Raises:
        WeightsError: The file is missing, damaged, or no training checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise WeightsError(f"{path}: not a training checkpoint of this version; start anew without --resume")
            return _tree(json.loads(metadata["tree"]), file)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{path}: cannot read the checkpoint ({error}); remove it to fall back to an older one"
        ) from error


class Checkpoints:
    """The checkpoints of one run: the newest `keep` of them, by step."""

    def __init__(self, folder: str | Path, *, keep: int = 2) -> None:
        self.folder = Path(folder)
        self._keep = max(1, keep)

    def save(self, step: int, tree: Tree) -> Path:
        """Write the checkpoint of a step, then remove those that are too old; return its path.

        Raises:
            ConfigError: As `save_tree`.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot write there ({error.strerror}); give another --out") from error
        path = self.folder / f"step-{step:09d}.safetensors"
        save_tree(path, tree)
        for _, old in self.found()[: -self._keep]:
            old.unlink(missing_ok=True)
        return path

    def found(self) -> list[tuple[int, Path]]:
        """Return (step, path) of every checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        matches = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in matches if match)

    def load_latest(self) -> Tree | None:
        """Return the newest checkpoint, or None if there is none.

        Raises:
            WeightsError: As `load_tree`.
        """
        found = self.found()
        return load_tree(found[-1][1]) if found else None


def random_state() -> Tree:
    """Return the state of torch's global generators, on the CPU and on every GPU."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": list(cuda)}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Return to what `random_state` gave; GPUs that are not here are passed over."""
    torch.set_rng_state(state["cpu"])
    for index, value in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(value, index)


class StopRequest:
    """Remembers SIGTERM and the first Ctrl-C for the loop to act on; a second Ctrl-C interrupts at once.

    Use as a context manager in the main thread; elsewhere it never becomes set.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread
            self._previous.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_set = True


def _outline(node: Tree, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        name = f"{len(tensors):06d}"
        # A copy, because safetensors refuses tensors that share memory.
        tensors[name] = node.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(node, Mapping):
        if not all(isinstance(key, str | int) for key in node):
            raise ConfigError(f"a checkpoint's keys must be str or int, found {list(node)[:3]!r}")
        return {"dict": [[key, _outline(value, tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return {type(node).__name__: [_outline(item, tensors) for item in node]}
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise ConfigError(f"a checkpoint cannot hold a {type(node).__name__}")


def _tree(node: Any, file: Any) -> Tree:
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        return file.get_tensor(content)
    if kind == "dict":
        return {key: _tree(value, file) for key, value in content}
    items = [_tree(item, file) for item in content]
    return tuple(items) if kind == "tuple" else items
