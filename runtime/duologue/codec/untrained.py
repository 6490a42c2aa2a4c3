"""Untrained Mimi weights that behave like a codec: O(1) activations, diverse codes, audible output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from duologue.codec.config import MimiConfig
from duologue.codec.speechlike import speechlike
from duologue.errors import WeightsError
from duologue.replacing import replacing

Rows: TypeAlias = npt.NDArray[np.float32]
"""Channels-last activations, shape [T, C]."""

_CLIP_FRAMES = 48
_CLIPS = 6
_RESIDUAL_RMS = 0.6
_LAYER_SCALE = 0.2
_WAVEFORM_RMS = 0.1
_SHRINKS = (0.35, 0.5, 0.7)


def write_untrained_mimi(path: str | Path, config: MimiConfig | None = None, *, seed: int = 0) -> None:
    """Write random weights in the released key layout.

    Every layer is Gaussian with uneven channels and is rescaled, in the order of execution, on a speech-like signal:
    unit RMS everywhere, residual branches below it, the waveform at 0.1. Codebooks are drawn from the distribution of
    the residuals that they will meet. The same arguments give the same file.

    Args:
        path: File to write, safetensors, float32.
        config: Shape of the codec; None is the released one (385 MB).
        seed: Seed of weights and signal.

    Raises:
        WeightsError: The file cannot be written.
    """
    config = MimiConfig() if config is None else config
    tensors = make_untrained_mimi(config, seed=seed)
    try:
        with replacing(path) as partial:
            save_file(tensors, partial)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot write the weights: {error}") from error


def make_untrained_mimi(config: MimiConfig, *, seed: int = 0) -> dict[str, Rows]:
    """Return the tensors that `write_untrained_mimi` writes, by name."""
    calibration = _Calibration(config, np.random.default_rng(seed))
    clip_s = _CLIP_FRAMES / config.frame_rate_hz
    clips = [speechlike(clip_s, seed=1000 * seed + i, sample_rate_hz=config.sample_rate_hz) for i in range(_CLIPS)]
    latents = np.concatenate([calibration.encode(clip) for clip in clips])
    quantised = calibration.quantise(latents)
    calibration.decode(quantised[:_CLIP_FRAMES])
    return calibration.tensors


class _Calibration:
    """A forward pass that makes each layer when it first needs it, scaled on what arrives there."""

    def __init__(self, config: MimiConfig, rng: np.random.Generator) -> None:
        self.config = config
        self.tensors: dict[str, Rows] = {}
        self._rng = rng

    def encode(self, pcm: npt.NDArray[np.float32]) -> Rows:
        """Run samples [T] through the encoder up to the quantiser: latents [frames, dimension]."""
        config = self.config
        prefix = "encoder.model."
        index = 1
        channels = config.n_filters
        x = self._conv(f"{prefix}0.conv.conv", pcm[:, None], channels, config.kernel_size)
        for ratio in reversed(config.ratios):
            x, index = self._residual_blocks(prefix, index, x)
            channels *= 2
            x = self._conv(f"{prefix}{index + 1}.conv.conv", _elu(x), channels, 2 * ratio, stride=ratio)
            index += 2
        x = self._conv(f"{prefix}{index + 1}.conv.conv", _elu(x), config.dimension, config.last_kernel_size)
        x = self._transformer("encoder_transformer.", x)
        steps = config.steps_per_frame
        if steps > 1:
            first = np.repeat(x[:1], steps, axis=0)
            x = self._conv("downsample.conv.conv.conv", x, x.shape[1], 2 * steps, stride=steps, left=first, bias=False)
        return x

    def decode(self, x: Rows) -> Rows:
        """Run quantised latents [frames, dimension] through the decoder: samples [T, 1]."""
        config = self.config
        prefix = "decoder.model."
        if config.steps_per_frame > 1:
            x = self._upsample(x)
        x = self._transformer("decoder_transformer.", x)
        channels = config.n_filters << len(config.ratios)
        x = self._conv(f"{prefix}0.conv.conv", x, channels, config.kernel_size)
        index = 1
        for ratio in config.ratios:
            channels //= 2
            x = self._up(f"{prefix}{index + 1}.convtr.convtr", _elu(x), channels, ratio)
            x, index = self._residual_blocks(prefix, index + 2, x)
        name = f"{prefix}{index + 1}.conv.conv"
        return self._conv(name, _elu(x), 1, config.last_kernel_size, rms=_WAVEFORM_RMS)

    def quantise(self, latents: Rows) -> Rows:
        """Make the codebooks from latents [M, dimension] and return their quantised form."""
        config = self.config
        total = np.zeros_like(latents)
        counts = {"first": config.semantic_codebooks, "rest": config.total_codebooks - config.semantic_codebooks}
        for half, count in counts.items():
            prefix = f"quantizer.rvq_{half}."
            projected = self._linear(f"{prefix}input_proj.weight", latents, config.codebook_dim, taps_axis=True)
            residual = projected.copy()
            for level in range(count):
                residual -= self._codebook(f"{prefix}vq.layers.{level}._codebook.", residual)
            name = f"{prefix}output_proj.weight"
            total += self._linear(name, projected - residual, config.dimension, rms=0.7, taps_axis=True)
        return total

    def _codebook(self, name: str, residual: Rows) -> Rows:
        """Draw centroids like `residual` [M, D], store them and return the nearest of each row."""
        bins = self.config.cardinality
        mean = residual.mean(axis=0)
        mixing = self._normal((bins, len(residual))) / np.float32(np.sqrt(len(residual)))
        spread = mixing @ (residual - mean)
        trials = [_nearest(residual, mean + np.float32(shrink) * spread) for shrink in _SHRINKS]
        best = int(np.argmin([np.mean((residual - trial) ** 2) for trial in trials]))
        usage = np.exp(0.5 * self._normal((bins,))) + np.float32(0.1)
        self.tensors[f"{name}_initialized"] = np.ones(1, dtype=np.float32)
        self.tensors[f"{name}cluster_usage"] = usage
        self.tensors[f"{name}embedding_sum"] = (mean + np.float32(_SHRINKS[best]) * spread) * usage[:, None]
        return trials[best]

    def _residual_blocks(self, prefix: str, index: int, x: Rows) -> tuple[Rows, int]:
        config = self.config
        channels = x.shape[1]
        hidden = channels // config.compress
        for layer in range(config.n_residual_layers):
            name = f"{prefix}{index}"
            taps, dilation = config.residual_kernel_size, config.dilation_base**layer
            y = self._conv(f"{name}.block.1.conv.conv", _elu(x), hidden, taps, dilation=dilation)
            y = self._conv(f"{name}.block.3.conv.conv", _elu(y), channels, 1, rms=_RESIDUAL_RMS)
            x = y + (x if config.true_skip else self._conv(f"{name}.shortcut.conv.conv", x, channels, 1))
            index += 1
        return x, index

    def _transformer(self, prefix: str, x: Rows) -> Rows:
        config = self.config
        width = config.d_model
        if width != config.dimension:
            x = self._linear(f"{prefix}input_proj.weight", x, width)
        for layer in range(config.num_layers):
            name = f"{prefix}transformer.layers.{layer}."
            qkv = self._linear(f"{name}self_attn.in_proj_weight", self._norm(f"{name}norm1", x), 3 * width, rms=1.4)
            attended = _attention(qkv, config.num_heads, config.context, config.max_period)
            y = self._linear(f"{name}self_attn.out_proj.weight", attended, width)
            x = x + y * self._layer_scale(f"{name}layer_scale_1.scale")
            hidden = self._linear(f"{name}linear1.weight", self._norm(f"{name}norm2", x), config.dim_feedforward)
            y = self._linear(f"{name}linear2.weight", _gelu(hidden), width)
            x = x + y * self._layer_scale(f"{name}layer_scale_2.scale")
        if width != config.dimension:
            x = self._linear(f"{prefix}output_projs.0.weight", x, config.dimension)
        return x

    def _norm(self, name: str, x: Rows) -> Rows:
        if f"{name}.weight" not in self.tensors:
            self.tensors[f"{name}.weight"] = 1 + 0.1 * self._normal((x.shape[1],))
            self.tensors[f"{name}.bias"] = 0.1 * self._normal((x.shape[1],))
        centred = x - x.mean(axis=1, keepdims=True)
        normed = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + np.float32(1e-5))
        scaled: Rows = normed * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return scaled

    def _layer_scale(self, name: str) -> Rows:
        if not self.config.has_layer_scale:
            return np.ones(1, dtype=np.float32)
        if name not in self.tensors:
            self.tensors[name] = _LAYER_SCALE * np.exp(0.3 * self._normal((self.config.d_model,)))
        return self.tensors[name]

    def _linear(self, name: str, x: Rows, out: int, *, rms: float = 1.0, taps_axis: bool = False) -> Rows:
        if name not in self.tensors:
            weight = self._uneven((out, x.shape[1]))
            weight *= np.float32(rms) / _rms(x @ weight.T)
            self.tensors[name] = weight[:, :, None] if taps_axis else weight
        weight = self.tensors[name]
        return x @ (weight[:, :, 0] if taps_axis else weight).T

    def _conv(
        self,
        name: str,
        x: Rows,
        out: int,
        taps: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        rms: float = 1.0,
        left: Rows | None = None,
        bias: bool = True,
    ) -> Rows:
        """Causal convolution of x [T, Ci]; `left` are the rows before it, zeros by default."""
        before = (taps - 1) * dilation + 1 - stride
        padded = np.concatenate([np.zeros((before, x.shape[1]), np.float32) if left is None else left, x])
        rows = len(x) // stride

        def run(weight: Rows) -> Rows:
            y = np.zeros((rows, out), np.float32)
            for tap in range(taps):
                start = tap * dilation
                y += padded[start : start + (rows - 1) * stride + 1 : stride] @ weight[:, :, tap].T
            return y

        return self._calibrated(name, (out, x.shape[1], taps), run, rms=rms, bias=bias)

    def _up(self, name: str, x: Rows, out: int, stride: int) -> Rows:
        """Causal transposed convolution of x [T, Ci] with kernel 2 * stride."""
        before = _delayed(x)

        def run(weight: Rows) -> Rows:
            flat = weight.transpose(0, 2, 1)  # [Ci, 2 * stride, Co]
            now = flat[:, :stride].reshape(x.shape[1], -1)
            late = flat[:, stride:].reshape(x.shape[1], -1)
            y: Rows = x @ now + before @ late
            return y.reshape(-1, out)

        return self._calibrated(name, (x.shape[1], out, 2 * stride), run, out_axis=1)

    def _upsample(self, x: Rows) -> Rows:
        name = "upsample.convtr.convtr.convtr.weight"
        steps = self.config.steps_per_frame
        if name not in self.tensors:
            self.tensors[name] = self._normal((x.shape[1], 1, 2 * steps))
            self.tensors[name] /= np.float32(np.sqrt(2.0))
        taps = self.tensors[name][:, 0, :].T  # [2 * steps, C]
        before = _delayed(x)
        spread: Rows = x[:, None] * taps[:steps] + before[:, None] * taps[steps:]
        return spread.reshape(-1, x.shape[1])

    def _calibrated(
        self,
        name: str,
        shape: tuple[int, ...],
        run: Callable[[Rows], Rows],
        *,
        rms: float = 1.0,
        bias: bool = True,
        out_axis: int = 0,
    ) -> Rows:
        """Run a layer; the first time, scale it to `rms` around zero, with a small bias where it has one."""
        if f"{name}.weight" not in self.tensors:
            weight = self._uneven(shape, out_axis)
            y = run(weight)
            mean = y.mean(axis=0)
            scale = np.float32(rms) / (_rms(y - mean) if bias else _rms(y))
            self.tensors[f"{name}.weight"] = weight * scale
            if bias:
                noise = 0.1 * rms * self._normal(mean.shape) * np.float32(len(mean) > 1)
                self.tensors[f"{name}.bias"] = noise - mean * scale
        y = run(self.tensors[f"{name}.weight"])
        if bias:
            y += self.tensors[f"{name}.bias"]
        return y

    def _uneven(self, shape: tuple[int, ...], out_axis: int = 0) -> Rows:
        """Gaussian weights whose output channels differ in gain."""
        gains = np.exp(0.4 * self._normal((shape[out_axis],)))
        weight = self._normal(shape)
        weight *= gains.reshape([-1 if axis == out_axis else 1 for axis in range(len(shape))])
        return weight

    def _normal(self, shape: tuple[int, ...]) -> Rows:
        return self._rng.standard_normal(shape, dtype=np.float32)


def _rms(x: Rows) -> np.float32:
    return np.float32(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) + np.float32(1e-12)


def _delayed(x: Rows) -> Rows:
    y = np.zeros_like(x)
    y[1:] = x[:-1]
    return y


def _elu(x: Rows) -> Rows:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _gelu(x: Rows) -> Rows:
    """Tanh form: close enough to scale weights by."""
    y: Rows = 0.5 * x * (1 + np.tanh(np.float32(0.79788456) * (x + np.float32(0.044715) * x**3)))
    return y


def _attention(qkv: Rows, heads: int, context: int, max_period: float) -> Rows:
    """Causal attention with rotary positions over qkv [T, 3 * width]."""
    steps, width = len(qkv), qkv.shape[1] // 3
    half = width // heads // 2
    q, k, v = qkv.reshape(steps, 3, heads, 2 * half).transpose(1, 2, 0, 3)
    angles = np.arange(steps)[:, None] * np.exp(-np.log(max_period) * np.arange(half) / half)
    turn = np.exp(1j * angles).astype(np.complex64)
    q, k = (np.ascontiguousarray(x).view(np.complex64) * turn for x in (q, k))
    scores = (q.view(np.float32) @ k.view(np.float32).transpose(0, 2, 1)) / np.float32(np.sqrt(2 * half))
    age = np.arange(steps)[:, None] - np.arange(steps)
    scores = np.where((age >= 0) & (age < context), scores, np.float32(-1e9))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.ascontiguousarray((weights @ v).transpose(1, 0, 2).reshape(steps, width))


def _nearest(x: Rows, centroids: Rows) -> Rows:
    distances = np.sum(centroids**2, axis=1) / 2 - x @ centroids.T
    nearest: Rows = centroids[np.argmin(distances, axis=1)]
    return nearest
