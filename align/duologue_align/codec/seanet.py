"""The convolutional halves of Mimi as trainable modules, named so that their state dict is the released file's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from duologue.codec.config import MimiConfig


class CausalConv(nn.Module):
    """Convolution that sees only the past: padded on the left by kernel - stride samples.

    Source: moshi 0.2.13, modules/conv.py, StreamingConv1d outside of streaming.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        has_bias: bool = True,
        is_replicating: bool = False,
        gain: float = 1.0,
    ) -> None:
        """Build the layer.

        Args:
            inputs: Channels in.
            outputs: Channels out.
            kernel: Taps.
            stride: Input samples per output sample.
            dilation: Input samples from tap to tap.
            has_bias: Whether each output has a bias.
            is_replicating: Pad by the first sample and not by zeros.
            gain: Of the first weights: about how much louder the output is than the input.
        """
        super().__init__()
        self.padding = (kernel - 1) * dilation + 1 - stride
        self.pad_mode = "replicate" if is_replicating else "constant"
        conv = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation, bias=has_bias)
        self.conv = nn.ModuleDict({"conv": conv})
        _initialise(conv.weight, conv.bias, fan_in=inputs * kernel / gain**2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x`, shape [B, inputs, T] with T a multiple of the stride, to [B, outputs, T / stride]."""
        out: Tensor = self.conv["conv"](functional.pad(x, (self.padding, 0), mode=self.pad_mode))
        return out


class CausalConvTranspose(nn.Module):
    """Transposed convolution cut on the right, so that no output depends on a later input.

    Source: moshi 0.2.13, modules/conv.py, StreamingConvTranspose1d outside of streaming.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, groups: int = 1, has_bias: bool = True
    ) -> None:
        super().__init__()
        self.stride = stride
        conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride, groups=groups, bias=has_bias)
        self.convtr = nn.ModuleDict({"convtr": conv})
        _initialise(conv.weight, conv.bias, fan_in=inputs // groups * kernel // stride)

    def forward(self, x: Tensor) -> Tensor:
        """Stretch `x`, shape [B, inputs, T], to [B, outputs, T * stride]."""
        out: Tensor = self.convtr["convtr"](x)
        return out[..., : x.shape[-1] * self.stride]


class ResidualBlock(nn.Module):
    """`x + conv1(ELU(conv(ELU(x))))` at a reduced width."""

    def __init__(self, width: int, config: MimiConfig, dilation: int) -> None:
        super().__init__()
        hidden = width // config.compress
        self.block = nn.Sequential(
            nn.ELU(),
            CausalConv(width, hidden, config.residual_kernel_size, dilation=dilation),
            nn.ELU(),
            CausalConv(hidden, width, 1),
        )
        self.shortcut = nn.Identity() if config.true_skip else CausalConv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `x`, shape [B, width, T]."""
        out: Tensor = self.shortcut(x) + self.block(x)
        return out


class SeanetEncoder(nn.Module):
    """Waveform to latents, one per hop.

    Source: arXiv 2210.13438 section 3.1 as changed by arXiv 2410.00037 section 3.3.1; matches moshi 0.2.13.
    """

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        width = config.n_filters
        layers: list[nn.Module] = [CausalConv(1, width, config.kernel_size)]
        for ratio in reversed(config.ratios):
            layers += _blocks(width, config)
            layers += [nn.ELU(), CausalConv(width, 2 * width, 2 * ratio, stride=ratio)]
            width *= 2
        layers += [nn.ELU(), CausalConv(width, config.dimension, config.last_kernel_size)]
        self.model = nn.Sequential(*layers)

    def forward(self, pcm: Tensor) -> Tensor:
        """Encode `pcm`, shape [B, 1, T], to latents, shape [B, dimension, T / hop]."""
        out: Tensor = self.model(pcm)
        return out


class SeanetDecoder(nn.Module):
    """Latents to waveform.

    Source: as for `SeanetEncoder`.
    """

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        width = config.n_filters * 2 ** len(config.ratios)
        layers: list[nn.Module] = [CausalConv(config.dimension, width, config.kernel_size)]
        for ratio in config.ratios:
            layers += [nn.ELU(), CausalConvTranspose(width, width // 2, 2 * ratio, stride=ratio)]
            width //= 2
            layers += _blocks(width, config)
        # A quiet start: the first waveforms are of the size of speech, not of the latents.
        last = CausalConv(width, 1, config.last_kernel_size, gain=0.1)
        layers += [nn.ELU(), last]
        self.model = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode `latents`, shape [B, dimension, T], to samples, shape [B, 1, T * hop]."""
        x = self.model[:-1](latents)
        # Eight bits of mantissa would be heard as noise 54 dB under the speech.
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.model[-1](x.float())
        return out


def _blocks(width: int, config: MimiConfig) -> list[nn.Module]:
    return [ResidualBlock(width, config, config.dilation_base**j) for j in range(config.n_residual_layers)]


def _initialise(weight: Tensor, bias: Tensor | None, *, fan_in: float) -> None:
    """Keep the variance of the signal; torch's own default loses two thirds of it at every layer."""
    with torch.no_grad():
        weight.normal_(0.0, 1.0 / math.sqrt(fan_in))
        if bias is not None:
            bias.zero_()
