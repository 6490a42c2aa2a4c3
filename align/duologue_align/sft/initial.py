"""First weights of a language model trained from nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duologue.model.lm import LanguageModel, TokenEmbedding

_RESIDUAL = ("out_projs", "linear_out", "linear2")


@torch.no_grad()
def initialise(model: LanguageModel, seed: int) -> None:
    """Draw the weights of a model: unit variance on the way in, quiet branches, and outputs that begin uniform.

    Args:
        model: Its weights are replaced.
        seed: Same seed, same weights, on any device.
    """
    draw = torch.Generator().manual_seed(seed)
    config = model.config
    for name, module in model.named_modules():
        if isinstance(module, TokenEmbedding):
            # The temporal transformer sums all streams, the depth transformer one embedding and a projection.
            share = config.num_streams if name.startswith(("emb.", "text_emb")) else 2
            _fill(module.weight, 1 / math.sqrt(share), draw)
        elif isinstance(module, nn.Linear):
            _fill(module.weight, _deviation(name, module, model), draw)


def _deviation(name: str, module: nn.Linear, model: LanguageModel) -> float:
    fan_in = 1 / math.sqrt(module.in_features)
    if name == "text_linear" or name.startswith("linears."):
        return 0.1 * fan_in
    if name.startswith("depformer_in."):
        return fan_in / math.sqrt(2)
    if any(part in name for part in _RESIDUAL):
        layers = len(model.depformer.layers if name.startswith("depformer.") else model.transformer.layers)
        return fan_in / math.sqrt(2 * layers)
    return fan_in


def _fill(weight: Tensor, deviation: float, draw: torch.Generator) -> None:
    weight.copy_(torch.randn(weight.shape, generator=draw) * deviation)
