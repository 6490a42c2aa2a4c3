"""From a torch model to a Moshi-format folder, under the released names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from duologue.errors import ConfigError
from duologue.model.checkpoint import Checkpoint
from duologue.model.folder import LORA_NAME, MIMI_NAME, MODEL_NAME, TOKENIZER_NAME
from duologue.model.layout import linear_slots, tensor_shapes
from duologue.model.lm import LanguageModel
from duologue.model.lora_linear import LoraLinear
from duologue.replacing import replacing_folder

_MIMI_CONFIG_NAME = "mimi_config.json"


def save_checkpoint(
    model: LanguageModel,
    folder: str | Path,
    *,
    source: Checkpoint | None = None,
    lora: str = "fused",
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a folder that this package and moshi 0.2.13 load.

    Args:
        model: The model; its adapters, if any, are `LoraLinear` modules.
        folder: Where to; must not exist or be empty. It appears whole or not at all.
        source: Checkpoint whose codec, tokenizer and bundle keys are carried over.
        lora: "fused" adds the updates to the weights; "apart" writes the base and lora.safetensors.
        extra: Further bundle keys of config.json.

    Raises:
        ConfigError: The folder holds something else, or `lora` is neither.
    """
    target = Path(folder)
    if lora not in ("fused", "apart"):
        raise ConfigError(f"lora must be 'fused' or 'apart', got {lora!r}")
    with replacing_folder(target) as work:
        keys = _write_weights(model, work, lora) | (copy_parts(source, work) if source else {})
        config = {**model.config.to_dict(), **carried_keys(source), **keys, **(extra or {})}
        (work / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def released_tensors(model: LanguageModel, *, fuse_lora: bool = True) -> dict[str, Tensor]:
    """Return the model's weights under the released names, depth steps stacked.

    Args:
        model: The model.
        fuse_lora: Whether low-rank updates are added.
    """
    parts: dict[str, list[Tensor]] = {}
    for module_name, slot in linear_slots(model.config).items():
        module = model.get_submodule(module_name)
        if isinstance(module, LoraLinear):
            weight = module.merged() if fuse_lora else module.base.weight
        else:
            weight = module.get_parameter("weight")
        parts.setdefault(slot.tensor, []).append(weight.detach())
    tensors = {}
    for name in tensor_shapes(model.config):
        if name in parts:
            tensors[name] = parts[name][0] if len(parts[name]) == 1 else torch.cat(parts[name])
        else:
            tensors[name] = model.get_parameter(name).detach()
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def lora_tensors(model: LanguageModel) -> dict[str, Tensor]:
    """Return the low-rank updates under moshi's names (`text_linear.lora_A.weight`)."""
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            tensors[f"{name}.lora_A.weight"] = module.lora_A.weight.detach().cpu().contiguous()
            tensors[f"{name}.lora_B.weight"] = module.lora_B.weight.detach().cpu().contiguous()
    return tensors


def _write_weights(model: LanguageModel, work: Path, lora: str) -> dict[str, Any]:
    from safetensors.torch import save_file

    save_file(released_tensors(model, fuse_lora=lora == "fused"), work / MODEL_NAME)
    keys: dict[str, Any] = {"moshi_name": MODEL_NAME}
    adapters = [module for module in model.modules() if isinstance(module, LoraLinear)]
    if lora == "apart" and adapters:
        save_file(lora_tensors(model), work / LORA_NAME)
        keys |= {"lora": True, "lora_rank": adapters[0].rank, "lora_scaling": adapters[0].scaling}
        keys["lora_name"] = LORA_NAME
    return keys


def copy_parts(source: Checkpoint, work: Path) -> dict[str, Any]:
    """Copy a checkpoint's codec and tokenizer into a folder and return the keys of config.json that name them."""
    keys: dict[str, Any] = {}
    for key, path, default in (
        ("mimi_name", source.mimi_path, MIMI_NAME),
        ("mimi_config_name", source.mimi_config_path, _MIMI_CONFIG_NAME),
        ("tokenizer_name", source.tokenizer_path, TOKENIZER_NAME),
    ):
        if path is not None:
            keys[key] = path.name if path.parent == source.path else default
            shutil.copyfile(path, work / keys[key])
    return keys


def carried_keys(source: Checkpoint | None) -> dict[str, Any]:
    """Return the keys of a checkpoint's config.json that describe it as a whole and not its weights."""
    raw = source.raw_config if source is not None else {}
    return {key: raw[key] for key in ("model_type", "lm_gen_config", "model_id") if key in raw}
