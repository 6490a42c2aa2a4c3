"""A Mimi that can be trained, equal to moshi's offline codec and to the native streaming one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from duologue.codec.config import MimiConfig
from duologue.errors import AudioError
from duologue.model.transformer import Transformer, sequence_attend
from duologue_align.codec.quantizer import Dropout, Quantized, SplitQuantizer
from duologue_align.codec.seanet import CausalConv, CausalConvTranspose, SeanetDecoder, SeanetEncoder


class LatentTransformer(nn.Module):
    """Causal transformer over latents, each of which sees `context` of them, itself included.

    Source: arXiv 2410.00037 section 3.3.1; matches moshi 0.2.13 ProjectedTransformer without projections.
    """

    def __init__(self, config: MimiConfig, *, layer_scale: float) -> None:
        super().__init__()
        self.context = config.context
        self.transformer = Transformer(
            config.d_model,
            config.num_heads,
            config.num_layers,
            positional_embedding="rope",
            max_period=config.max_period,
            kv_repeat=1,
            norm="layer_norm",
            gating="none",
            feedforward=[config.dim_feedforward],
            layer_scale=layer_scale if config.has_layer_scale else None,
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Transform latents, shape [B, d_model, T]."""
        positions = torch.arange(latents.shape[-1], device=latents.device)[None]
        attend = sequence_attend(self.transformer.rope, positions, self.context)
        out: Tensor = self.transformer(latents.transpose(1, 2), positions, lambda _: attend)
        return out.transpose(1, 2)


class Resample(nn.Module):
    """Holds one resampling layer under the name that the released file gives it."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.add_module(name, layer)

    def forward(self, latents: Tensor) -> Tensor:
        """Resample latents, shape [B, dimension, T]."""
        out: Tensor = next(self.children())(latents)
        return out


class MimiNetwork(nn.Module):
    """Encoder, quantiser and decoder.

    Attributes:
        config: The shape.

    Source: arXiv 2410.00037 section 3.3; matches moshi 0.2.13 MimiModel outside of streaming.
    """

    def __init__(self, config: MimiConfig, *, layer_scale: float = 0.01) -> None:
        """Build with random weights drawn from torch's global generator.

        Args:
            config: The shape.
            layer_scale: First value of the factors on the transformers' residual branches.
        """
        super().__init__()
        self.config = config
        width, step = config.dimension, config.steps_per_frame
        self.encoder = SeanetEncoder(config)
        self.encoder_transformer = LatentTransformer(config, layer_scale=layer_scale)
        down = CausalConv(width, width, 2 * step, stride=step, has_bias=False, is_replicating=True)
        self.downsample = Resample("conv", down)
        self.quantizer = SplitQuantizer(config)
        up = CausalConvTranspose(width, width, 2 * step, stride=step, groups=width, has_bias=False)
        self.upsample = Resample("convtr", up)
        self.decoder_transformer = LatentTransformer(config, layer_scale=layer_scale)
        self.decoder = SeanetDecoder(config)

    def latents(self, pcm: Tensor) -> Tensor:
        """Encode samples up to the quantiser.

        Args:
            pcm: Shape [B, 1, T], T a multiple of the frame.

        Returns:
            Shape [B, dimension, frames].

        Raises:
            AudioError: T is not a positive multiple of the frame.
        """
        samples = pcm.shape[-1]
        if samples == 0 or samples % self.config.frame_samples:
            raise AudioError(
                f"{samples} samples are not whole frames; pad to a multiple of {self.config.frame_samples}"
            )
        out: Tensor = self.downsample(self.encoder_transformer(self.encoder(pcm)))
        return out

    def synthesise(self, latents: Tensor) -> Tensor:
        """Turn the quantiser's latents, shape [B, dimension, frames], into samples, shape [B, 1, T]."""
        out: Tensor = self.decoder(self.decoder_transformer(self.upsample(latents)))
        return out

    def forward(self, pcm: Tensor, dropout: Dropout | None) -> tuple[Tensor, Tensor, Quantized | None]:
        """Code and decode with gradients.

        Args:
            pcm: Shape [B, 1, T], T a multiple of the frame.
            dropout: Use of the codebooks; None leaves the quantiser out, as before its codebooks are started.

        Returns:
            Samples, shape [B, 1, T]; latents [B, dimension, frames]; what the quantiser made of them.
        """
        latents = self.latents(pcm)
        quantized = None if dropout is None else self.quantizer(latents, dropout)
        return self.synthesise(latents if quantized is None else quantized.latents), latents, quantized

    @torch.no_grad()
    def encode(self, pcm: Tensor) -> Tensor:
        """Return codes, shape [B, K, frames], int64, of samples [B, 1, T].

        Source: matches moshi 0.2.13 MimiModel.encode outside of streaming.
        """
        return self.quantizer.encode(self.latents(pcm).float())

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return samples, shape [B, 1, T], of codes [B, K, frames].

        Source: matches moshi 0.2.13 MimiModel.decode outside of streaming.
        """
        return self.synthesise(self.quantizer.decode(codes))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, without gradients, for the length of a block."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)
