"""Spectral distances between two waveforms at many window lengths: log-mel magnitudes, Fourier magnitudes, phases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_FLOOR = 1e-5


class MelSpectrogram(nn.Module):
    """Magnitudes in triangular mel bands.

    Source: HTK mel scale, 2595 log10(1 + f / 700).
    """

    window: Tensor
    bands: Tensor

    def __init__(self, sample_rate_hz: int, window: int, hop: int, bands: int) -> None:
        """Build the filters.

        Args:
            sample_rate_hz: Rate of the samples.
            window: Samples of a window, Hann.
            hop: Samples from one window to the next.
            bands: Mel bands from 0 to half the rate; fewer come out where a band would hold no bin.
        """
        super().__init__()
        self.size, self.hop = window, hop
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("bands", _mel_bands(sample_rate_hz, window, bands), persistent=False)

    def magnitudes(self, pcm: Tensor) -> Tensor:
        """Return Fourier magnitudes, shape [B, bins, frames], of samples [B, T]."""
        spectrum = torch.stft(pcm, self.size, self.hop, window=self.window, center=True, return_complex=True)
        # The gradient of abs() is not defined at 0, which silence reaches.
        return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() * (2.0 / self.size)

    def forward(self, pcm: Tensor) -> Tensor:
        """Return mel magnitudes, shape [B, bands, frames], of samples [B, T]."""
        return self.bands @ self.magnitudes(pcm)


class MultiScaleMel(nn.Module):
    """Mean distance of log-mel magnitudes over several window lengths.

    Source: arXiv 2210.13438 equation 2 (the sum over scales), arXiv 2306.06546 section 3.4 (bands per window).
    """

    def __init__(self, sample_rate_hz: int, windows: Sequence[int], bands: Sequence[int]) -> None:
        super().__init__()
        scales = (MelSpectrogram(sample_rate_hz, w, w // 4, b) for w, b in zip(windows, bands, strict=True))
        self.scales = nn.ModuleList(scales)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean absolute difference of log10 magnitudes, a scalar, of samples [B, T]."""
        total = output.new_zeros(())
        for scale in self.scales:
            ours, theirs = (scale(x).clamp(min=_FLOOR).log10() for x in (output, target))
            total = total + functional.l1_loss(ours, theirs)
        return total / len(self.scales)


class MultiScaleStft(nn.Module):
    """Spectral convergence plus distance of log magnitudes over several window lengths.

    Source: arXiv 1910.11480 equations 3 to 6.
    """

    def __init__(self, windows: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(MelSpectrogram(24_000, w, w // 4, 1) for w in windows)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the distance, a scalar, of samples [B, T]."""
        total = output.new_zeros(())
        for scale in self.scales:
            assert isinstance(scale, MelSpectrogram)
            ours, theirs = scale.magnitudes(output), scale.magnitudes(target)
            norm = torch.linalg.vector_norm(theirs, dim=(1, 2)) + 1e-3
            convergence = torch.linalg.vector_norm(theirs - ours, dim=(1, 2)) / norm
            # A clip of silence has no spectrum to converge to: bound its share.
            logs = functional.l1_loss(ours.clamp(min=_FLOOR).log10(), theirs.clamp(min=_FLOOR).log10())
            total = total + convergence.clamp(max=2.0).mean() + logs
        return total / len(self.scales)


class MultiScalePhase(nn.Module):
    """Distance of compressed complex spectra below a frequency, so that phases count.

    Codes say too little for the phases of any speaker, and a network that cannot know them can only say less. One voice
    whose speech begins on frames says a sentence with the same phases every time.

    Source: arXiv 2008.06412 section 2.4 (compression of the magnitudes; here as a share of the target's power).
    """

    def __init__(self, sample_rate_hz: int, windows: Sequence[int], *, top_hz: float, power: float) -> None:
        """Build the windows.

        Args:
            sample_rate_hz: Rate of the samples.
            windows: Samples per window of each scale, Hann.
            top_hz: Highest frequency; above it phases are not compared.
            power: Exponent of the magnitudes, in (0, 1]: the smaller, the more a quiet bin weighs.
        """
        super().__init__()
        self.bins = [int(top_hz / sample_rate_hz * window) + 1 for window in windows]
        self.power = power
        for window in windows:
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the distance, a scalar, of samples [B, T]; silence in place of the target has 1."""
        total = output.new_zeros(())
        for window, bins in zip(self.buffers(), self.bins, strict=True):
            ours, theirs = (self._compressed(pcm, window, bins) for pcm in (output, target))
            # A clip of silence has no power to compare with: bound its share.
            total = total + (ours - theirs).square().mean() / (theirs.square().mean() + 1e-4)
        return total / len(self.bins)

    def _compressed(self, pcm: Tensor, window: Tensor, bins: int) -> Tensor:
        size = len(window)
        spectrum = torch.stft(pcm, size, size // 4, window=window, return_complex=True)[:, :bins]
        parts = torch.view_as_real(spectrum) * (2.0 / size)
        squared = parts.square().sum(dim=-1, keepdim=True) + 1e-10
        return parts * squared ** ((self.power - 1.0) / 2.0)


def _mel_bands(sample_rate_hz: int, window: int, count: int) -> Tensor:
    """Return triangular filters, shape [bands, window / 2 + 1], each summing to 1."""
    top = 2595.0 * math.log10(1.0 + sample_rate_hz / 2 / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top, count + 2, dtype=torch.float64) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, sample_rate_hz / 2, window // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0.0)
    sums = filters.sum(dim=1, keepdim=True)
    return (filters / sums.clamp(min=1e-9))[sums[:, 0] > 0].float()
