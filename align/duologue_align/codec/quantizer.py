"""Split residual quantiser: one semantic codebook beside a chain of acoustic ones, both reading the same latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from duologue.codec.config import MimiConfig
from duologue_align.codec.codebook import Codebook


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """Which codebooks each clip of a batch goes through.

    Attributes:
        kept: Codebooks in use, shape [B], in 1..K.
        is_bypassed: Clips that are not quantised at all (the codebooks still learn from them), shape [B].
    """

    kept: Tensor
    is_bypassed: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """What a quantiser returns.

    Attributes:
        latents: What the decoder reads, shape [B, dimension, T]; gradients pass straight through to the input.
        codes: Shape [B, K, T], int64.
        commitment: Mean squared distance between residuals and their entries, a scalar.
        semantic: Entry of the semantic codebook before its output projection, shape [B, codebook_dim, T].
    """

    latents: Tensor
    codes: Tensor
    commitment: Tensor
    semantic: Tensor


class ResidualQuantizer(nn.Module):
    """Projection, chain of codebooks, projection back."""

    def __init__(self, config: MimiConfig, count: int) -> None:
        super().__init__()
        width = config.codebook_dim
        self.input_proj = nn.Conv1d(config.dimension, width, 1, bias=False)
        self.output_proj = nn.Conv1d(width, config.dimension, 1, bias=False)
        nn.init.normal_(self.input_proj.weight, 0.0, config.dimension**-0.5)
        nn.init.normal_(self.output_proj.weight, 0.0, width**-0.5)
        # The list gives the file's names; the property below gives the types.
        layers = [nn.ModuleDict({"_codebook": Codebook(config.cardinality, width)}) for _ in range(count)]
        self.vq = nn.ModuleDict({"layers": nn.ModuleList(layers)})

    @property
    def codebooks(self) -> list[Codebook]:
        """The chain, first residual first."""
        return [module for module in self.vq.modules() if isinstance(module, Codebook)]

    def encode(self, latents: Tensor) -> Tensor:
        """Return codes, shape [B, count, T], of latents [B, dimension, T]."""
        return self._chain(self.input_proj(latents))[0]

    def decode(self, codes: Tensor) -> Tensor:
        """Return latents, shape [B, dimension, T], of codes [B, count, T]."""
        entries = [book.lookup(codes[:, k]) for k, book in enumerate(self.codebooks)]
        out: Tensor = self.output_proj(torch.stack(entries).sum(dim=0).transpose(1, 2))
        return out

    def forward(self, latents: Tensor, kept: Tensor, is_bypassed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Quantise with gradients.

        Args:
            latents: Shape [B, dimension, T].
            kept: Codebooks of this chain in use per clip, shape [B], 0..count.
            is_bypassed: Shape [B].

        Returns:
            Latents as the decoder reads them; codes [B, count, T]; commitment; the projected sum of entries [B, d, T].
        """
        projected = self.input_proj(latents)
        codes, entries = self._chain(projected)
        commitment = projected.new_zeros(())
        residual = projected
        total = torch.zeros_like(projected)
        for k, entry in enumerate(entries):
            commitment = commitment + functional.mse_loss(residual, entry)
            residual = residual - entry
            total = total + entry * (kept > k)[:, None, None]
        total = torch.where(is_bypassed[:, None, None], projected, total)
        passed = (projected + (total - projected).detach()) * (kept > 0)[:, None, None]
        out: Tensor = self.output_proj(passed)
        return out, codes, commitment / len(entries), passed

    def _chain(self, projected: Tensor) -> tuple[Tensor, list[Tensor]]:
        residual = projected.detach().transpose(1, 2)
        codes, entries = [], []
        for book in self.codebooks:
            found = book.nearest(residual.reshape(-1, residual.shape[-1])).view(residual.shape[:2])
            entry = book.lookup(found)
            residual = residual - entry
            codes.append(found)
            entries.append(entry.transpose(1, 2))
        return torch.stack(codes, dim=1), entries

    @torch.no_grad()
    def residuals(self, latents: Tensor, codes: Tensor) -> list[Tensor]:
        """Return what each codebook was asked to code, a list of [B * T, d]."""
        residual = self.input_proj(latents).transpose(1, 2).flatten(0, 1)
        found = []
        for k, book in enumerate(self.codebooks):
            found.append(residual)
            residual = residual - book.lookup(codes[:, k].flatten())
        return found

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, per_step: float | None) -> None:
        """Start every codebook by k-means on the residuals of latents, shape [N, dimension]."""
        residual = self.input_proj(latents.T[None])[0].T
        for book in self.codebooks:
            book.start(residual, generator, per_step=per_step)
            residual = residual - book.lookup(book.nearest(residual))


class SplitQuantizer(nn.Module):
    """Semantic and acoustic chains whose outputs are added.

    Source: arXiv 2410.00037 section 3.3.3 (split RVQ), 3.3.2 (quantisation skipped per sequence); arXiv 2107.03312
    (quantiser dropout). Layout of moshi 0.2.13, quantization/vq.py.
    """

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.semantic_count = config.semantic_codebooks
        self.rvq_first = ResidualQuantizer(config, config.semantic_codebooks)
        self.rvq_rest = ResidualQuantizer(config, config.total_codebooks - config.semantic_codebooks)

    @property
    def is_started(self) -> bool:
        """Whether the codebooks hold entries."""
        return bool(self.rvq_first.codebooks[0]._initialized.item())

    def encode(self, latents: Tensor) -> Tensor:
        """Return codes, shape [B, K, T], of latents [B, dimension, T]."""
        return torch.cat([self.rvq_first.encode(latents), self.rvq_rest.encode(latents)], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return latents, shape [B, dimension, T], of codes [B, K, T]."""
        count = self.semantic_count
        return self.rvq_first.decode(codes[:, :count]) + self.rvq_rest.decode(codes[:, count:])

    def forward(self, latents: Tensor, dropout: Dropout) -> Quantized:
        """Quantise latents, shape [B, dimension, T], with gradients; always in float32."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            count = self.semantic_count
            kept = dropout.kept.clamp(max=count), (dropout.kept - count).clamp(min=0)
            first = self.rvq_first(latents, kept[0], dropout.is_bypassed)
            rest = self.rvq_rest(latents, kept[1], dropout.is_bypassed)
            return Quantized(
                latents=first[0] + rest[0],
                codes=torch.cat([first[1], rest[1]], dim=1),
                commitment=first[2] + rest[2],
                semantic=first[3],
            )

    @torch.no_grad()
    def learn(
        self, latents: Tensor, codes: Tensor, *, decay: float, restart_below: float, generator: torch.Generator
    ) -> Tensor:
        """Move the codebooks towards what they coded.

        Args:
            latents: What was quantised, shape [B, dimension, T].
            codes: Shape [B, K, T].
            decay: Of the moving averages.
            restart_below: Share of the mean use under which an entry is restarted; 0 restarts none.
            generator: Draws the new places.

        Returns:
            Entries restarted, a scalar.
        """
        count = self.semantic_count
        restarted = latents.new_zeros(())
        latents = latents.float()
        for chain, chosen in ((self.rvq_first, codes[:, :count]), (self.rvq_rest, codes[:, count:])):
            vectors = chain.residuals(latents, chosen)
            for k, book in enumerate(chain.codebooks):
                book.learn(vectors[k], chosen[:, k].flatten(), decay)
                if restart_below > 0:
                    restarted = restarted + book.restart(vectors[k], restart_below, generator)
        return restarted

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, *, per_step: float | None = None) -> None:
        """Start all codebooks by k-means on latents, shape [N, dimension]; `per_step` as in `Codebook.start`."""
        self.rvq_first.start(latents.float(), generator, per_step)
        self.rvq_rest.start(latents.float(), generator, per_step)
