"""LoRA adapters for one base model, to be chosen conversation by conversation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from duologue.errors import ConfigError
from duologue.model.checkpoint import Checkpoint


def open_adapters(base: Checkpoint, source: str | Path, paths: Sequence[str | Path]) -> dict[str, Checkpoint]:
    """Open adapters of a base model by name.

    Args:
        base: The model.
        source: What it was opened from.
        paths: Folders that `duologue-align export --lora-only` or peft wrote, or moshi's lora.safetensors. An
            adapter is called as its folder.

    Returns:
        The base with one adapter's updates each; headers only are read.

    Raises:
        WeightsError: An adapter is missing, damaged, or does not fit the model.
        ConfigError: Two are called alike, or one is more than low-rank updates, or the base has its own.
    """
    if paths and base.lora:
        raise ConfigError(f"{base.path} has an adapter of its own; merge it first with duologue-align export")
    found: dict[str, Checkpoint] = {}
    for path in paths:
        adapted = Checkpoint.open(source, lora=path)
        name = adapter_name(path)
        if name in found:
            raise ConfigError(f"two adapters are called {name!r}; rename one of the folders")
        if adapted.tensors != base.tensors:
            raise ConfigError(f"{path}: replaces whole tensors of the model; merge it with duologue-align export")
        found[name] = adapted
    return found


def adapter_name(path: str | Path) -> str:
    """Return what an adapter is called: its folder."""
    resolved = Path(path).resolve()
    return resolved.name if resolved.suffix != ".safetensors" else resolved.parent.name
