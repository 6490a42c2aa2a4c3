"""Weigh losses by the share that their gradients take, whatever their scales are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class GradientBalancer:
    """Combine gradients of several losses of one output so that each has its asked share.

    Each gradient is divided by a moving average of its own norm and multiplied by its weight's share.

    Source: arXiv 2210.13438 section 3.4, equation 4.
    """

    def __init__(self, weights: Mapping[str, float], *, decay: float = 0.999) -> None:
        """Set the shares.

        Args:
            weights: Relative weight of each loss; a loss may be missing from a call.
            decay: Of the moving averages.
        """
        self.weights = dict(weights)
        self.decay = decay
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def gradient(self, losses: Mapping[str, Tensor], output: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the balanced gradient for `output` and the norm of each loss's own gradient.

        Args:
            losses: Scalars computed from `output`; those without a weight, or with weight 0, are left out.
            output: What the losses were computed from.
        """
        active = {name: loss for name, loss in losses.items() if self.weights.get(name, 0.0) > 0}
        total_weight = sum(self.weights[name] for name in active)
        total = torch.zeros_like(output, dtype=torch.float32)
        norms = {}
        for name, loss in active.items():
            (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
            gradient = gradient.float()
            # Per clip, so that the size of the batch does not matter.
            norms[name] = torch.linalg.vector_norm(gradient.flatten(1), dim=1).mean()
            scale = self._average(name, norms[name])
            total += gradient * (self.weights[name] / total_weight / (scale + 1e-12))
        return total, norms

    def _average(self, name: str, norm: Tensor) -> Tensor:
        keep = self.decay
        none = torch.zeros_like(norm)
        self._sums[name] = self._sums.get(name, none).to(norm.device) * keep + norm
        self._counts[name] = self._counts.get(name, none).to(norm.device) * keep + 1
        return self._sums[name] / self._counts[name]

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the moving averages."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go back to what `state_dict` returned."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
