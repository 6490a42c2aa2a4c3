"""Write and read a trained Mimi as moshi's safetensors file and its JSON configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from duologue.codec.config import MimiConfig
from duologue.errors import ConfigError, WeightsError
from duologue.replacing import replace_file
from duologue_align.codec.network import MimiNetwork

CONFIG_NAME = "mimi_config.json"
WEIGHTS_NAME = "mimi.safetensors"
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_TO_RELEASED = (
    ("self_attn.in_projs.0.weight", "self_attn.in_proj_weight"),
    ("self_attn.out_projs.0.", "self_attn.out_proj."),
)


def released_tensors(network: MimiNetwork, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the weights under the released file's names.

    Codebooks are written as entries with a use of 1, so that every reader divides to the same bits.

    Args:
        network: The codec; its codebooks must have been started.
        dtype: Type of every tensor. float16 halves the file; every reader computes in float32.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        for ours, theirs in _TO_RELEASED:
            name = name.replace(ours, theirs)
        tensors[name] = tensor.detach().to("cpu", torch.float32)
    for name in [name for name in tensors if name.endswith(".embedding_sum")]:
        usage = name.replace("embedding_sum", "cluster_usage")
        tensors[name] = tensors[name] / tensors[usage].clamp(min=1e-5)[:, None]
        tensors[usage] = torch.ones_like(tensors[usage])
    return {name: tensor.to(dtype).contiguous().clone() for name, tensor in sorted(tensors.items())}


def save_mimi(network: MimiNetwork, folder: str | Path, *, dtype: str = "float32") -> None:
    """Write mimi.safetensors and mimi_config.json, each at once or not at all.

    Args:
        network: The codec.
        folder: Created if need be.
        dtype: "float32" or "float16".

    Raises:
        ConfigError: `dtype` is another one.
        WeightsError: A weight is not finite, or out of float16's range.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"weights cannot be written as {dtype!r}; use float32 or float16")
    tensors = released_tensors(network, _DTYPES[dtype])
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{name} is not finite in {dtype}; the training has diverged, go back to a checkpoint")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(network.config.to_dict(), indent=2) + "\n"
    replace_file(folder / CONFIG_NAME, config.encode())
    replace_file(folder / WEIGHTS_NAME, save(tensors, metadata={"format": "pt"}))


def load_mimi(folder: str | Path) -> MimiNetwork:
    """Read what `save_mimi` wrote, or any Mimi of moshi's layout with its configuration beside it.

    Raises:
        ConfigError: The configuration is missing or refused.
        WeightsError: The weights are missing or do not fit the configuration.
    """
    folder = Path(folder)
    network = MimiNetwork(MimiConfig.from_file(folder / CONFIG_NAME))
    path = folder / WEIGHTS_NAME
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot read the codec's weights: {error}") from error
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"self_attn\.in_proj_weight$", "self_attn.in_projs.0.weight", name)
        renamed[re.sub(r"self_attn\.out_proj\.", "self_attn.out_projs.0.", name)] = tensor.float()
    try:
        network.load_state_dict(renamed)
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit {CONFIG_NAME}: {' '.join(str(error).split())[:300]}") from error
    return network.eval()
