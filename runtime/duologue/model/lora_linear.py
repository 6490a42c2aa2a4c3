"""A linear layer with its low-rank update kept apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LoraLinear(nn.Module):
    """`y = W x + scaling * B A x`.

    Attributes:
        base: The layer updated.
        lora_A: Down projection.
        lora_B: Up projection; zero in a fresh adapter.
        scaling: Factor of the update.

    Source: arXiv 2106.09685; scaling is the plain factor, as in moshi 0.2.13 modules/lora.py.
    """

    def __init__(self, base: nn.Linear, *, rank: int, scaling: float) -> None:
        super().__init__()
        weight = base.weight
        self.base = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, device=weight.device, dtype=weight.dtype)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False, device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.lora_B.weight)
        self.scaling = scaling

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return self.lora_A.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Transform the last axis of `x`."""
        out: Tensor = self.base(x) + self.lora_B(self.lora_A(x)) * self.scaling
        return out

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Return the weight with the update added, computed in float32 and rounded once."""
        update = self.lora_B.weight.float() @ self.lora_A.weight.float()
        return (self.base.weight.float() + self.scaling * update).to(self.base.weight.dtype)


def attach_lora(model: nn.Module, name: str, *, rank: int, scaling: float) -> LoraLinear:
    """Replace the linear layer called `name` by one with an update, and return it."""
    parent_name, _, leaf = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    base = parent.get_submodule(leaf)
    assert isinstance(base, nn.Linear)
    wrapped = LoraLinear(base, rank=rank, scaling=scaling)
    setattr(parent, leaf, wrapped)
    return wrapped
