"""A moving average of a module's weights, which codes better than any single step's."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

_M = TypeVar("_M", bound=nn.Module)


class WeightAverage(Generic[_M]):
    """Average of parameters and buffers.

    Attributes:
        module: The averaged copy, in evaluation mode.
    """

    def __init__(self, module: _M, decay: float) -> None:
        """Copy the module; `decay` applies once the average is old enough to need it."""
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: _M, step: int) -> None:
        """Take the weights of step `step`, counted from 0, in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = (list(part.state_dict().values()) for part in (self.module, module))
        pairs = [pair for pair in zip(averages, weights, strict=True) if pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in pairs], [weight for _, weight in pairs], 1.0 - decay)

    @torch.no_grad()
    def copy_from(self, module: nn.Module, name: str) -> None:
        """Take one part over as it is now, forgetting its average."""
        self.module.get_submodule(name).load_state_dict(module.get_submodule(name).state_dict())
