"""Write a merged bundle, or a folder with an adapter alone, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from duologue.errors import ConfigError, WeightsError
from duologue.model.checkpoint import Checkpoint
from duologue.model.folder import LORA_NAME, MODEL_NAME, PEFT_NAME
from duologue.model.load import parse_dtype
from duologue.model.save import carried_keys, copy_parts
from duologue.replacing import replacing_folder
from duologue_align.sft.bundle import add_step_graph

_MARKER = "config.json"
_RUN_ADAPTER = "adapter"
_LORA_KEYS = frozenset({"lora", "lora_rank", "lora_scaling", "lora_name"})


def open_source(source: str | Path, base: str | Path) -> Checkpoint:
    """Open what is to be exported.

    Args:
        source: An adapter (a folder of peft or moshi, a LoRA file, or the folder of a training run that has one), or a
            whole model folder.
        base: Model folder that an adapter belongs to; not looked at for a whole model.

    Raises:
        WeightsError: There is nothing to export, or it does not fit the base.
        ConfigError: A configuration is not supported, or the base has an adapter of its own.
    """
    path = Path(source)
    if (path / _RUN_ADAPTER).is_dir():
        path = path / _RUN_ADAPTER
    has_adapter = path.is_file() or any((path / name).is_file() for name in (LORA_NAME, PEFT_NAME))
    if path.is_dir() and ((path / MODEL_NAME).is_file() or not has_adapter):
        return Checkpoint.open(path)
    if Checkpoint.open(base).lora:
        raise ConfigError(f"{base} has an adapter of its own; export it first and give the result with --base")
    return Checkpoint.open(base, lora=path)


def export_model(checkpoint: Checkpoint, folder: str | Path, *, dtype: str) -> Path:
    """Write a complete bundle with the updates added to the weights; one that is there already is replaced at once.

    Args:
        checkpoint: The model, perhaps with an adapter; its codec and tokenizer go along.
        folder: Where to.
        dtype: Type of the weights, "float32" or "bfloat16"; sums are formed in float32 and rounded once.

    Raises:
        ConfigError: The folder holds something else or cannot be written, or the dtype is another.
        WeightsError: A tensor cannot be read.
    """
    if checkpoint.mimi_path is None or checkpoint.tokenizer_path is None:
        raise WeightsError(f"{checkpoint.path}: has no codec or no tokenizer; copy both beside its config.json")
    kind = parse_dtype(dtype)
    tensors = {name: torch.from_numpy(checkpoint.numpy(name)).to(kind) for name in checkpoint.tensors}
    kept = {**checkpoint.config.to_dict(), **carried_keys(checkpoint), "moshi_name": MODEL_NAME}
    try:
        with replacing_folder(folder, marker=_MARKER) as fresh:
            save_file(tensors, fresh / MODEL_NAME, metadata={"format": "pt"})
            _write_config(fresh, {**kept, **copy_parts(checkpoint, fresh)})
            add_step_graph(fresh)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return Path(folder)


def export_adapter(checkpoint: Checkpoint, folder: str | Path, *, dtype: str) -> Path:
    """Write moshi's lora.safetensors and the config.json that belongs to it; a folder like it is replaced at once.

    The runtime takes the folder as one of `AgentConfig.adapters`; moshi with --lora-weight and --config-path.

    Args:
        checkpoint: The base with the adapter.
        folder: Where to.
        dtype: Type of the updates, "float32" or "bfloat16".

    Raises:
        ConfigError: There is no adapter, its layers differ in rank, or the folder cannot be written.
        WeightsError: A tensor cannot be read.
    """
    ranks = {pair.a.shape[0] for pair in checkpoint.lora.values()}
    if len(ranks) != 1:
        raise ConfigError(f"an adapter of one rank is needed, found ranks {sorted(ranks)}; leave --lora-only out")
    kind, tensors = parse_dtype(dtype), {}
    for module, pair in checkpoint.lora.items():
        for side, ref in (("A", pair.a), ("B", pair.b)):
            values: Tensor = torch.from_numpy(ref.read_float32())
            tensors[f"{module}.lora_{side}.weight"] = values.to(kind)
    keys = {"lora": True, "lora_rank": ranks.pop(), "lora_scaling": checkpoint.lora_scaling, "lora_name": LORA_NAME}
    try:
        with replacing_folder(folder, marker=LORA_NAME) as fresh:
            save_file(tensors, fresh / LORA_NAME, metadata={"format": "pt"})
            _write_config(fresh, {**_without_lora(checkpoint.raw_config), **keys})
    except OSError as error:
        raise _unwritable(folder, error) from error
    return Path(folder)


def _without_lora(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _LORA_KEYS}


def _write_config(folder: Path, content: dict[str, Any]) -> None:
    (folder / _MARKER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _unwritable(folder: str | Path, error: OSError) -> ConfigError:
    return ConfigError(f"{folder}: cannot be written ({error.strerror or error}); give another folder with --out")
