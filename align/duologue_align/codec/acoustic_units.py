"""A target for the semantic codebook where nobody wrote phones: clusters of short-time cepstra.

Source: the first iteration of HuBERT, arXiv 2106.07447 section II-A (k-means units of cepstral features).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ
from duologue_align.codec.codebook import Codebook
from duologue_align.codec.phones import SLOTS
from duologue_align.codec.spectral import MelSpectrogram

_BANDS, _COEFFICIENTS = 40, 13
_HOP = FRAME_SAMPLES // SLOTS


class AcousticUnits(nn.Module):
    """Names each 20 ms of sound by the nearest of a few cluster centres."""

    transform: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.mel = MelSpectrogram(SAMPLE_RATE_HZ, 2 * _HOP, _HOP, _BANDS)
        self.codebook = Codebook(count, _COEFFICIENTS)
        bands = self.mel.bands.shape[0]
        angles = torch.arange(_COEFFICIENTS)[:, None] * (torch.arange(bands) + 0.5) * (math.pi / bands)
        self.register_buffer("transform", torch.cos(angles) * math.sqrt(2.0 / bands), persistent=False)

    @torch.no_grad()
    def features(self, pcm: Tensor) -> Tensor:
        """Return cepstra, shape [B, slots, coefficients], of samples [B, 1, T]; the first is the level, scaled down."""
        mel: Tensor = self.mel(pcm[:, 0].float())[..., : pcm.shape[-1] // _HOP]
        cepstra: Tensor = (self.transform @ mel.clamp(min=1e-4).log()).transpose(1, 2)
        cepstra[..., 0] *= 0.3
        return cepstra

    @torch.no_grad()
    def start(self, pcm: Tensor, generator: torch.Generator) -> None:
        """Cluster the cepstra of samples, shape [B, 1, T]."""
        self.codebook.start(self.features(pcm).flatten(0, 1), generator)

    @torch.no_grad()
    def forward(self, pcm: Tensor) -> Tensor:
        """Return classes, shape [B, frames, SLOTS], of samples [B, 1, T]."""
        features = self.features(pcm)
        classes = self.codebook.nearest(features.flatten(0, 1))
        return classes.view(len(pcm), -1, SLOTS)
