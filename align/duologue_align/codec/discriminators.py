"""Networks that learn to tell decoded speech from recorded speech, and the losses of both sides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

_SLOPE = 0.2
_GAIN = 8.0
"""Speech is about -20 dBFS: this brings it to the level that the first layers are made for."""

Judgement = tuple[Tensor, list[Tensor]]
"""One discriminator's logits and its inner feature maps."""


class StftDiscriminator(nn.Module):
    """2-d convolutions over the complex spectrum at one window length.

    Source: arXiv 2210.13438 section 3.4 (multi-scale STFT discriminator).
    """

    window: Tensor

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.size = window
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        layers = [_conv2d(2, channels, (9, 3))]
        layers += [_conv2d(channels, channels, (9, 3), stride=(2, 1), dilation=(1, rate)) for rate in (1, 2, 4)]
        layers += [_conv2d(channels, channels, (3, 3))]
        self.layers = nn.ModuleList(layers)
        self.last = _conv2d(channels, 1, (3, 3))

    def forward(self, pcm: Tensor) -> Judgement:
        """Judge samples, shape [B, T]."""
        with torch.autocast(pcm.device.type, enabled=False):
            pcm = pcm.float()
            spectrum = torch.stft(
                pcm, self.size, self.size // 4, window=self.window, normalized=True, center=True, return_complex=True
            )
            x = torch.view_as_real(spectrum).permute(0, 3, 1, 2)
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), _SLOPE)
            features.append(x)
        return self.last(x), features


class PeriodDiscriminator(nn.Module):
    """Convolutions along every `period`-th sample.

    Source: arXiv 2010.05646 section 2.3 (multi-period discriminator).
    """

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 2 * channels, 4 * channels, 4 * channels]
        layers = [_conv2d(widths[i], widths[i + 1], (5, 1), stride=(3, 1)) for i in range(4)]
        self.layers = nn.ModuleList([*layers, _conv2d(widths[-1], widths[-1], (5, 1))])
        self.last = _conv2d(widths[-1], 1, (3, 1))

    def forward(self, pcm: Tensor) -> Judgement:
        """Judge samples, shape [B, T]."""
        pcm = functional.pad(pcm, (0, -pcm.shape[-1] % self.period), mode="reflect")
        x = pcm.view(len(pcm), 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), _SLOPE)
            features.append(x)
        return self.last(x), features


class Discriminators(nn.Module):
    """Several discriminators of both kinds."""

    def __init__(
        self, windows: Sequence[int], stft_channels: int, periods: Sequence[int], period_channels: int
    ) -> None:
        super().__init__()
        judges: list[nn.Module] = [StftDiscriminator(window, stft_channels) for window in windows]
        judges += [PeriodDiscriminator(period, period_channels) for period in periods]
        self.judges = nn.ModuleList(judges)

    def forward(self, pcm: Tensor) -> list[Judgement]:
        """Judge samples, shape [B, T]."""
        return [judge(pcm * _GAIN) for judge in self.judges]


def discriminator_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """Return the hinge loss of the discriminators, a scalar; 2 when they tell nothing.

    Source: arXiv 1705.02894 section 3.
    """
    terms = [
        functional.relu(1 - ours[0].float()).mean() + functional.relu(1 + theirs[0].float()).mean()
        for ours, theirs in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(fake: Sequence[Judgement]) -> Tensor:
    """Return the hinge loss of the codec, a scalar: lower as decoded speech passes for recorded.

    Source: arXiv 1705.02894 section 3.
    """
    return torch.stack([functional.relu(1 - logits.float()).mean() for logits, _ in fake]).mean()


def feature_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """Return the relative distance of the feature maps, a scalar.

    Source: arXiv 2210.13438 equation 3.
    """
    terms = []
    for (_, ours), (_, theirs) in zip(real, fake, strict=True):
        for recorded, decoded in zip(ours, theirs, strict=True):
            recorded = recorded.detach().float()
            terms.append((recorded - decoded.float()).abs().mean() / recorded.abs().mean().clamp(min=1e-4))
    return torch.stack(terms).mean()


def _conv2d(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    padding = tuple((size - 1) // 2 * rate for size, rate in zip(kernel, dilation, strict=True))
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=padding, dilation=dilation)  # type: ignore[arg-type]
    # torch's own start loses two thirds of the signal's power at every layer, and all logits begin at 0.
    nn.init.kaiming_normal_(conv.weight, a=_SLOPE, nonlinearity="leaky_relu")
    normalised: nn.Module = weight_norm(conv)
    return normalised
