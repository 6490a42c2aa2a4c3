"""The shape of a Mimi codec, as its configuration files give it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError

_SEANET = {
    "channels": 1,
    "dimension": 512,
    "causal": True,
    "n_filters": 64,
    "n_residual_layers": 1,
    "activation": "ELU",
    "activation_params": {"alpha": 1.0},
    "compress": 2,
    "dilation_base": 2,
    "disable_norm_outer_blocks": 0,
    "kernel_size": 7,
    "residual_kernel_size": 3,
    "last_kernel_size": 3,
    "norm": "none",
    "norm_params": {},
    "pad_mode": "constant",
    "ratios": [8, 6, 5, 4],
    "true_skip": True,
}
_QUANTIZER = {
    "dimension": 256,
    "n_q": 32,
    "n_q_semantic": 1,
    "bins": 2048,
    "input_dimension": 512,
    "output_dimension": 512,
}
_TRANSFORMER = {
    "d_model": 512,
    "num_heads": 8,
    "num_layers": 8,
    "causal": True,
    "layer_scale": 0.01,
    "context": 250,
    "conv_layout": True,
    "max_period": 10000.0,
    "gating": "none",
    "norm": "layer_norm",
    "positional_embedding": "rope",
    "dim_feedforward": 2048,
    "kv_repeat": 1,
    "input_dimension": 512,
    "output_dimensions": [512],
}
# Settings that change the computation and that we compute in one way only.
_FIXED = {
    "seanet": {
        "channels": 1,
        "causal": True,
        "activation": "ELU",
        "activation_params": {"alpha": 1.0},
        "norm": "none",
        "pad_mode": "constant",
    },
    "quantizer": {},
    "transformer": {
        "causal": True,
        "conv_layout": True,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "kv_repeat": 1,
    },
}
# Settings of training alone: accepted, without effect here.
_IGNORED = {
    "seanet": {"disable_norm_outer_blocks", "norm_params"},
    "quantizer": {"q_dropout", "no_quantization_rate", "decay", "threshold_usage_ratio", "replaced_usage_ratio"},
    "transformer": {"checkpointing"},
}
_TOP = {"sample_rate", "channels", "frame_rate", "seanet", "quantizer", "transformer"}


@dataclass(frozen=True, kw_only=True)
class MimiConfig:
    """Numbers that fix every tensor and every state of a Mimi; the defaults are the released codec's.

    Attributes:
        sample_rate_hz: Samples per second.
        frame_rate_hz: Frames (and sets of codes) per second.
        dimension: Width of the latent.
        n_filters: Width of the outermost convolution.
        n_residual_layers: Residual blocks per stage.
        compress: Narrowing inside a residual block.
        kernel_size: Taps of the first convolution of each half.
        residual_kernel_size: Taps of a residual block.
        last_kernel_size: Taps of the last convolution of each half.
        dilation_base: Dilation of residual block j is this to the power j.
        true_skip: Whether residual blocks are skipped by the identity (else by a 1-tap convolution).
        ratios: Strides, in decoder order.
        codebook_dim: Width of a codebook entry.
        cardinality: Entries per codebook.
        total_codebooks: Codebooks in the file.
        semantic_codebooks: How many of them are semantic.
        d_model: Width of the transformers.
        num_heads: Attention heads.
        num_layers: Layers of each transformer.
        context: Keys a step attends to.
        dim_feedforward: Hidden width of the feed-forward layers.
        max_period: Longest period of the rotary embedding, in steps.
        has_layer_scale: Whether residual branches are scaled per channel.
    """

    sample_rate_hz: int = 24_000
    frame_rate_hz: float = 12.5
    dimension: int = 512
    n_filters: int = 64
    n_residual_layers: int = 1
    compress: int = 2
    kernel_size: int = 7
    residual_kernel_size: int = 3
    last_kernel_size: int = 3
    dilation_base: int = 2
    true_skip: bool = True
    ratios: tuple[int, ...] = (8, 6, 5, 4)
    codebook_dim: int = 256
    cardinality: int = 2048
    total_codebooks: int = 32
    semantic_codebooks: int = 1
    d_model: int = 512
    num_heads: int = 8
    num_layers: int = 8
    context: int = 250
    dim_feedforward: int = 2048
    max_period: float = 10_000.0
    has_layer_scale: bool = True

    @property
    def frame_samples(self) -> int:
        """Samples in one frame."""
        return round(self.sample_rate_hz / self.frame_rate_hz)

    @property
    def hop_samples(self) -> int:
        """Samples per transformer step."""
        return math.prod(self.ratios)

    @property
    def steps_per_frame(self) -> int:
        """Transformer steps in one frame."""
        return self.frame_samples // self.hop_samples

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> MimiConfig:
        """Read the mapping that moshi calls `mimi_config`.

        Args:
            raw: Keys sample_rate, channels, frame_rate, seanet, quantizer, transformer. A key that is left out takes
                the released codec's value.

        Raises:
            ConfigError: A key is unknown, or a value is one that no code here computes.

        Source: the arguments of moshi 0.2.13 `get_mimi(mimi_config=...)`.
        """
        if not isinstance(raw, Mapping):
            raise ConfigError(f"a Mimi configuration must be an object, got {type(raw).__name__}")
        if unknown := sorted(set(raw) - _TOP):
            raise ConfigError(f"Mimi configuration has unknown keys {unknown}; known are {sorted(_TOP)}")
        if raw.get("channels", 1) != 1:
            raise ConfigError(f"Mimi configuration: channels is {raw['channels']!r}; only 1 (mono) is supported")
        seanet = _section(raw, "seanet", _SEANET)
        quantizer = _section(raw, "quantizer", _QUANTIZER)
        transformer = _section(raw, "transformer", _TRANSFORMER)
        _check_widths(seanet, quantizer, transformer)
        return cls(
            sample_rate_hz=_number(raw, "sample_rate", 24_000, int),
            frame_rate_hz=_number(raw, "frame_rate", 12.5, float),
            dimension=_integer(seanet, "seanet", "dimension"),
            n_filters=_integer(seanet, "seanet", "n_filters"),
            n_residual_layers=_integer(seanet, "seanet", "n_residual_layers"),
            compress=_integer(seanet, "seanet", "compress"),
            kernel_size=_integer(seanet, "seanet", "kernel_size"),
            residual_kernel_size=_integer(seanet, "seanet", "residual_kernel_size"),
            last_kernel_size=_integer(seanet, "seanet", "last_kernel_size"),
            dilation_base=_integer(seanet, "seanet", "dilation_base"),
            true_skip=bool(seanet["true_skip"]),
            ratios=_ratios(seanet["ratios"]),
            codebook_dim=_integer(quantizer, "quantizer", "dimension"),
            cardinality=_integer(quantizer, "quantizer", "bins"),
            total_codebooks=_integer(quantizer, "quantizer", "n_q"),
            semantic_codebooks=_integer(quantizer, "quantizer", "n_q_semantic"),
            d_model=_integer(transformer, "transformer", "d_model"),
            num_heads=_integer(transformer, "transformer", "num_heads"),
            num_layers=_integer(transformer, "transformer", "num_layers"),
            context=_integer(transformer, "transformer", "context"),
            dim_feedforward=_integer(transformer, "transformer", "dim_feedforward"),
            max_period=_number(transformer, "max_period", 10_000.0, float),
            has_layer_scale=transformer["layer_scale"] is not None,
        )

    @classmethod
    def from_file(cls, path: str | Path) -> MimiConfig:
        """Read a JSON file with the keys of `from_dict`.

        Raises:
            ConfigError: The file is missing, is not JSON, or its content is refused.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot read the Mimi configuration: {error}") from error
        try:
            return cls.from_dict(raw)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping that moshi 0.2.13 `get_mimi(mimi_config=...)` takes; `from_dict` reads it back."""
        seanet = {key: value for key, value in _SEANET.items() if key not in ("activation_params", "norm_params")} | {
            "dimension": self.dimension,
            "n_filters": self.n_filters,
            "n_residual_layers": self.n_residual_layers,
            "compress": self.compress,
            "dilation_base": self.dilation_base,
            "kernel_size": self.kernel_size,
            "residual_kernel_size": self.residual_kernel_size,
            "last_kernel_size": self.last_kernel_size,
            "ratios": list(self.ratios),
            "true_skip": self.true_skip,
        }
        quantizer = {
            "dimension": self.codebook_dim,
            "n_q": self.total_codebooks,
            "n_q_semantic": self.semantic_codebooks,
            "bins": self.cardinality,
            "input_dimension": self.dimension,
            "output_dimension": self.dimension,
        }
        transformer = {key: value for key, value in _TRANSFORMER.items() if key != "kv_repeat"} | {
            "d_model": self.d_model,
            "num_heads": self.num_heads,
            "num_layers": self.num_layers,
            "layer_scale": 0.01 if self.has_layer_scale else None,
            "context": self.context,
            "max_period": self.max_period,
            "dim_feedforward": self.dim_feedforward,
            "input_dimension": self.dimension,
            "output_dimensions": [self.dimension],
        }
        return {
            "sample_rate": self.sample_rate_hz,
            "channels": 1,
            "frame_rate": self.frame_rate_hz,
            "seanet": seanet,
            "quantizer": quantizer,
            "transformer": transformer,
        }


def _section(raw: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one section over its defaults, refusing unknown keys and values with one supported setting."""
    given = raw.get(name, {})
    if not isinstance(given, Mapping):
        raise ConfigError(f"Mimi configuration: {name} must be an object, got {type(given).__name__}")
    if unknown := sorted(set(given) - set(defaults) - _IGNORED[name]):
        raise ConfigError(f"Mimi configuration: {name} has unknown keys {unknown}")
    merged = dict(defaults) | dict(given)
    for key, value in _FIXED[name].items():
        if merged[key] != value:
            raise ConfigError(f"Mimi configuration: {name}.{key} is {merged[key]!r}; only {value!r} is supported")
    return merged


def _check_widths(seanet: Mapping[str, Any], quantizer: Mapping[str, Any], transformer: Mapping[str, Any]) -> None:
    """Refuse sections whose latents are of different widths."""
    expected = seanet["dimension"]
    found = {
        "quantizer.input_dimension": quantizer["input_dimension"],
        "quantizer.output_dimension": quantizer["output_dimension"],
        "transformer.input_dimension": transformer["input_dimension"],
        "transformer.output_dimensions": transformer["output_dimensions"],
    }
    for key, value in found.items():
        if value != expected and list(value if isinstance(value, (list, tuple)) else []) != [expected]:
            raise ConfigError(f"Mimi configuration: {key} is {value!r}; it must agree with seanet.dimension {expected}")


def _integer(section: Mapping[str, Any], name: str, key: str) -> int:
    value = section[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"Mimi configuration: {name}.{key} is {value!r}; it must be a whole number")
    return value


def _number(section: Mapping[str, Any], key: str, default: float, kind: type[int] | type[float]) -> Any:
    value = section.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or kind(value) != value:
        raise ConfigError(f"Mimi configuration: {key} is {value!r}; it must be a positive number")
    return kind(value)


def _ratios(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(type(ratio) is int and ratio > 0 for ratio in value):
        raise ConfigError(f"Mimi configuration: seanet.ratios is {value!r}; it must be a list of positive integers")
    return tuple(value)
