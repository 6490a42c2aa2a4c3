"""LoRA files, as moshi or as peft writes them: which low-rank pair belongs to which linear layer, and its scaling."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError, WeightsError
from duologue.model import folder
from duologue.model.config import LMConfig
from duologue.model.layout import LinearSlot, canonical_name, linear_slots, tensor_shapes
from duologue.model.storage import TensorRef, read_index

_PAIR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight\Z")
_PACKED = re.compile(r"(?P<prefix>.*\.self_attn\.)(?P<which>in|out)_proj\Z")
_PEFT_PREFIX = "base_model.model."
_PEFT_CONFIG = "adapter_config.json"
_PEFT_UNSUPPORTED = ("rank_pattern", "alpha_pattern", "use_dora", "modules_to_save", "fan_in_fan_out", "lora_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPair:
    """The update scaling * b @ a of one linear layer.

    Attributes:
        a: Down projection, shape [rank, in_features].
        b: Up projection, shape [out_features, rank].
    """

    a: TensorRef
    b: TensorRef


def read_lora(path: Path, config: LMConfig, *, rank: int | None) -> tuple[dict[str, LoraPair], dict[str, TensorRef]]:
    """Read where the low-rank pairs of a file lie.

    Args:
        path: Safetensors file as moshi-finetune or peft writes it, or with the older packed attention names.
        config: Shape of the base model the file was trained for.
        rank: Rank the configuration states, or None to accept the file's.

    Returns:
        Pairs per linear layer (`transformer.layers.0.self_attn.in_projs.0`), and whole tensors that replace base ones
        (a fine-tuned embedding).

    Raises:
        WeightsError: A tensor belongs to no layer, lacks its other half, or has another shape.
    """
    slots, shapes = linear_slots(config), tensor_shapes(config)
    sides: dict[str, dict[str, TensorRef]] = {}
    replaced: dict[str, TensorRef] = {}
    for stored_name, ref in read_index(path).items():
        name = stored_name.removeprefix(_PEFT_PREFIX)
        match = _PAIR.match(name)
        if match is None:
            target, part = canonical_name(name)
            if part is not None or target not in shapes or shapes[target] != ref.shape:
                raise WeightsError(f"{path}: tensor {name!r} {ref.shape} fits no part of the base model")
            replaced[target] = ref
            continue
        for module, piece in _unpack(match["module"], ref, slots, path, name):
            sides.setdefault(module, {})[match["side"]] = piece
    return {module: _pair(path, module, found, slots[module], rank) for module, found in sides.items()}, replaced


def stated_keys(path: Path) -> Mapping[str, Any] | None:
    """Return the keys `lora_rank` and `lora_scaling` that the configuration beside a LoRA file states, or None.

    Args:
        path: The file; beside a peft file lies adapter_config.json, beside moshi's config.json.

    Raises:
        ConfigError: The configuration cannot be read, or asks for what is not plain LoRA of one rank.

    Source: scaling is alpha / r, or alpha / sqrt(r) if rank-stabilised, as in peft 0.21 tuners/lora/layer.py.
    """
    if path.name != folder.PEFT_NAME:
        beside = path.parent / "config.json"
        return folder.read_json(beside) if beside.is_file() else None
    source = path.with_name(_PEFT_CONFIG)
    keys = folder.read_json(source)
    rank, alpha = keys.get("r"), keys.get("lora_alpha")
    wanted = [name for name in _PEFT_UNSUPPORTED if keys.get(name)]
    if keys.get("peft_type") != "LORA" or wanted or keys.get("bias", "none") != "none":
        what = ", ".join(wanted) or f"peft_type {keys.get('peft_type')!r}, bias {keys.get('bias')!r}"
        raise ConfigError(f"{source}: {what} is not supported; train plain LoRA of one rank without biases")
    if type(rank) is not int or rank < 1 or isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ConfigError(f"{source}: r = {rank!r} and lora_alpha = {alpha!r} must be numbers, r at least 1")
    return {"lora_rank": rank, "lora_scaling": alpha / (math.sqrt(rank) if keys.get("use_rslora") else rank)}


def _unpack(
    module: str, ref: TensorRef, slots: Mapping[str, LinearSlot], path: Path, name: str
) -> list[tuple[str, TensorRef]]:
    if module in slots:
        return [(module, ref)]
    packed = _PACKED.match(module)
    if packed is not None:
        stem = f"{packed['prefix']}{packed['which']}_projs."
        count = sum(1 for slot in slots if slot.startswith(stem))
        if count and ref.shape and ref.shape[0] % count == 0 and ref.shape[0]:
            rows = ref.shape[0] // count
            return [(f"{stem}{index}", ref.rows(index * rows, (index + 1) * rows)) for index in range(count)]
    raise WeightsError(f"{path}: tensor {name!r} {ref.shape} fits no linear layer of the base model")


def _pair(path: Path, module: str, found: Mapping[str, TensorRef], slot: LinearSlot, rank: int | None) -> LoraPair:
    for side in "AB":
        if side not in found:
            raise WeightsError(f"{path}: tensor '{module}.lora_{side}.weight' is missing")
    a, b = found["A"], found["B"]
    width = rank if rank is not None else (a.shape[0] if a.shape else 0)
    for side, ref, expected in (("A", a, (width, slot.in_features)), ("B", b, (slot.out_features, width))):
        if ref.shape != expected or width < 1:
            raise WeightsError(
                f"{path}: tensor '{module}.lora_{side}.weight' has shape {ref.shape}; expected {expected}"
            )
    return LoraPair(a=a, b=b)
