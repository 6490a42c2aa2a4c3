"""One codebook: nearest entries, k-means start, moving-average updates, and a new life for entries nobody uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 1e-5


class Codebook(nn.Module):
    """Entries as moving averages, `embedding_sum / cluster_usage`, under the released file's names.

    Source: arXiv 1711.00937 appendix A.1; layout and division of moshi 0.2.13, quantization/core_vq.py.
    """

    _initialized: Tensor
    cluster_usage: Tensor
    embedding_sum: Tensor

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.register_buffer("_initialized", torch.zeros(1))
        self.register_buffer("cluster_usage", torch.ones(entries))
        self.register_buffer("embedding_sum", torch.zeros(entries, width))

    @property
    def embedding(self) -> Tensor:
        """Entries, shape [entries, width]."""
        return self.embedding_sum / self.cluster_usage.clamp(min=_EPSILON)[:, None]

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the number of the nearest entry (Euclidean), shape [N], of vectors [N, width]."""
        return torch.cdist(vectors[None], self.embedding[None], p=2)[0].argmin(dim=-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the entries, shape [..., width], of codes of any shape."""
        return functional.embedding(codes, self.embedding)

    @torch.no_grad()
    def start(
        self, vectors: Tensor, generator: torch.Generator, *, per_step: float | None = None, iterations: int = 15
    ) -> None:
        """Set the entries to the k-means centres of vectors.

        Args:
            vectors: Shape [N, width], N >= entries.
            generator: Draws the first centres.
            per_step: Vectors that each later `learn` will bring; None for N. The start weighs as much as one such
                step in the long run: with more, the entries would stand still while the encoder moves on.
            iterations: Of k-means.
        """
        entries = len(self.cluster_usage)
        centres = _draw(vectors, entries, generator)
        codes = usage = None
        for _ in range(iterations):
            codes = torch.cdist(vectors[None], centres[None])[0].argmin(dim=-1)
            sums, usage = _gather(vectors, codes, entries)
            is_empty = (usage == 0)[:, None]
            centres = torch.where(is_empty, _draw(vectors, entries, generator), sums / usage.clamp(min=1)[:, None])
        assert usage is not None
        usage = usage.clamp(min=1.0) * ((per_step or len(vectors)) / len(vectors))
        self.cluster_usage.copy_(usage)
        self.embedding_sum.copy_(centres * usage[:, None])
        self._initialized.fill_(1.0)

    @torch.no_grad()
    def learn(self, vectors: Tensor, codes: Tensor, decay: float) -> None:
        """Move the entries towards the vectors, shape [N, width], that chose them."""
        sums, usage = _gather(vectors, codes, len(self.cluster_usage))
        self.cluster_usage.lerp_(usage, 1.0 - decay)
        self.embedding_sum.lerp_(sums, 1.0 - decay)

    @torch.no_grad()
    def restart(self, vectors: Tensor, threshold: float, generator: torch.Generator) -> Tensor:
        """Put entries that are chosen less than `threshold` times the mean onto vectors drawn from [N, width].

        Returns:
            How many entries were moved, a scalar.
        """
        mean = self.cluster_usage.mean()
        is_dead = self.cluster_usage < threshold * mean
        fresh = _draw(vectors, len(is_dead), generator)
        self.embedding_sum.copy_(torch.where(is_dead[:, None], fresh * mean, self.embedding_sum))
        self.cluster_usage.copy_(torch.where(is_dead, mean, self.cluster_usage))
        return is_dead.sum()


def _gather(vectors: Tensor, codes: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """Return the sum and the number of the vectors of each code."""
    # One matrix product: adding rows in place has no fixed order on a GPU.
    chosen = functional.one_hot(codes, entries).to(vectors.dtype)
    return chosen.T @ vectors, chosen.sum(dim=0)


def _draw(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if len(vectors) >= count:
        picks = torch.randperm(len(vectors), generator=generator)[:count]
    else:
        picks = torch.randint(len(vectors), (count,), generator=generator)
    return vectors[picks.to(vectors.device)]
