"""From a checkpoint on disk to a torch model."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from duologue.errors import ConfigError, WeightsError
from duologue.model.checkpoint import Checkpoint
from duologue.model.layout import linear_slots
from duologue.model.lm import LanguageModel
from duologue.model.lora_linear import LoraLinear, attach_lora
from duologue.model.storage import TensorRef

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_dtype(name: str | torch.dtype) -> torch.dtype:
    """Return the torch type called `name`.

    Raises:
        ConfigError: It is not float32, bfloat16 or float16.
    """
    if isinstance(name, torch.dtype) and name in _DTYPES.values():
        return name
    if name not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, got {name!r}")
    return _DTYPES[str(name)]


def load_model(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    fuse_lora: bool = True,
) -> LanguageModel:
    """Load the language model of a checkpoint.

    Args:
        checkpoint: Where from.
        device: Where to; tensors go there one by one, so the host never holds a second copy.
        dtype: Type of all weights.
        fuse_lora: Add low-rank updates to the weights, or keep them apart as `LoraLinear`.

    Raises:
        WeightsError: A tensor cannot be read.
        ConfigError: `dtype` is not supported.
    """
    kind = parse_dtype(dtype)
    with torch.device("meta"):
        model = LanguageModel(checkpoint.config)
    slots = linear_slots(checkpoint.config)
    stacked = {slot.tensor for slot in slots.values()}
    whole = {name: ref for name, ref in checkpoint.tensors.items() if name not in stacked}
    for name, ref in whole.items():
        _put(model, name, _to_torch(ref).to(device, kind))
    for module, slot in slots.items():
        ref = checkpoint.tensors[slot.tensor].rows(slot.row, slot.row + slot.out_features)
        _put(model, f"{module}.weight", _to_torch(ref).to(device, kind))
    _check_complete(model)
    _attach(model, checkpoint)
    if fuse_lora:
        merge_lora(model)
    return model.eval()


def adapted_view(model: LanguageModel, adapted: Checkpoint) -> LanguageModel:
    """Return a model that shares the weights of `model` and adds an adapter's updates to its linear layers.

    Args:
        model: The base, which stays as it is.
        adapted: The base's checkpoint with the adapter.

    Raises:
        WeightsError: The adapter cannot be read.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    view = copy.deepcopy(model, memo=dict(shared))
    _attach(view, adapted)
    return view.eval()


def _attach(model: LanguageModel, checkpoint: Checkpoint) -> None:
    for module, pair in checkpoint.lora.items():
        adapter = attach_lora(model, module, rank=pair.a.shape[0], scaling=checkpoint.lora_scaling)
        like = adapter.base.weight
        _put(adapter, "lora_A.weight", _to_torch(pair.a).to(like.device, like.dtype))
        _put(adapter, "lora_B.weight", _to_torch(pair.b).to(like.device, like.dtype))


def merge_lora(model: nn.Module) -> None:
    """Replace every `LoraLinear` in `model` by a plain layer with the update added."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            parent_name, _, leaf = name.rpartition(".")
            module.base.weight = nn.Parameter(module.merged(), requires_grad=module.base.weight.requires_grad)
            setattr(model.get_submodule(parent_name), leaf, module.base)


def _to_torch(ref: TensorRef) -> Tensor:
    stored = np.ascontiguousarray(ref.read())
    if ref.dtype == "BF16":
        return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(stored)


def _put(model: nn.Module, name: str, value: Tensor) -> None:
    module_name, _, leaf = name.rpartition(".")
    module = model.get_submodule(module_name)
    expected = getattr(module, leaf).shape
    if value.shape != expected:
        raise WeightsError(f"tensor {name!r} has shape {tuple(value.shape)}; expected {tuple(expected)}")
    setattr(module, leaf, nn.Parameter(value))


def _check_complete(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        assert not parameter.is_meta, name
