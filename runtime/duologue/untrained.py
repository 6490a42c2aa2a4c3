"""A complete small Moshi-family bundle with seeded random weights, for demos, tests and benchmarks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.errors import ConfigError
from duologue.model.config import LMConfig
from duologue.model.layout import Shape, tensor_shapes
from duologue.model.small_tokenizer import train_small_tokenizer
from duologue.replacing import replacing_folder

Array = npt.NDArray[np.float32]

SMALL_MIMI: dict[str, Any] = {
    "sample_rate": 24000,
    "channels": 1,
    "frame_rate": 12.5,
    "seanet": {
        "channels": 1,
        "dimension": 128,
        "causal": True,
        "n_filters": 16,
        "n_residual_layers": 1,
        "activation": "ELU",
        "compress": 2,
        "dilation_base": 2,
        "disable_norm_outer_blocks": 0,
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 3,
        "norm": "none",
        "pad_mode": "constant",
        "ratios": [8, 6, 5, 4],
        "true_skip": True,
    },
    "quantizer": {"dimension": 64, "n_q": 8, "bins": 512, "input_dimension": 128, "output_dimension": 128},
    "transformer": {
        "d_model": 128,
        "num_heads": 4,
        "num_layers": 2,
        "causal": True,
        "layer_scale": 0.01,
        "context": 250,
        "conv_layout": True,
        "max_period": 10000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 512,
        "input_dimension": 128,
        "output_dimensions": [128],
    },
}
"""Codec of the small bundle, under the keys of moshi's mimi configuration: an eighth of the released one's work."""

_TEXT_CARD = 512
_FILE_NAMES = {
    "moshi_name": "model.safetensors",
    "mimi_name": "mimi.safetensors",
    "mimi_config_name": "mimi_config.json",
    "tokenizer_name": "tokenizer.model",
    "model_type": "moshi",
}


def small_config() -> LMConfig:
    """Return the shape of the small bundle: Moshi's structure and streams at about 9 million weights."""
    return LMConfig(
        dim=256,
        num_heads=8,
        num_layers=4,
        text_card=_TEXT_CARD,
        card=SMALL_MIMI["quantizer"]["bins"],
        n_q=16,
        dep_q=8,
        delays=(0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1),
        context=250,
        hidden_scale=3.0,
        gating="silu",
        norm="rms_norm_f32",
        positional_embedding="rope",
        depformer_dim=128,
        depformer_num_heads=4,
        depformer_num_layers=2,
        depformer_dim_feedforward=384,
        depformer_gating="silu",
        depformer_pos_emb="none",
        depformer_multi_linear=True,
        depformer_weights_per_step=True,
    )


def write_untrained_bundle(
    folder: str | Path, *, seed: int = 0, config: LMConfig | None = None, mimi_config: dict[str, Any] | None = None
) -> None:
    """Write a folder that loads here and in moshi: config.json, language model, codec and tokenizer.

    The weights are random but shaped so that the agent behaves plausibly: text is mostly PAD, audio codes are
    diverse and depend on the user. The same arguments give the same bytes.

    Args:
        folder: Where to; must not exist or be empty. It appears whole or not at all.
        seed: Seed of every weight.
        config: Another shape of the language model; its `card` must be the codec's.
        mimi_config: Another codec, under moshi's keys.

    Raises:
        ConfigError: The folder holds something else, or the two configurations do not fit each other.
    """
    target, shape, codec = Path(folder), config or small_config(), mimi_config or SMALL_MIMI
    if codec["quantizer"]["bins"] != shape.card:
        raise ConfigError(f"the codec has {codec['quantizer']['bins']} codes, the model expects {shape.card}")
    with replacing_folder(target) as work:
        _fill(work, seed, shape, codec)


def random_weights(config: LMConfig, *, seed: int) -> dict[str, Array]:
    """Draw every tensor of a language model, under its released name.

    Args:
        config: Its shape.
        seed: Same seed, same weights.
    """
    draw = np.random.Generator(np.random.Philox(key=seed))
    weights = {name: _initial(name, shape, config, draw) for name, shape in tensor_shapes(config).items()}
    _favour_padding(weights, config, draw)
    return weights


def _fill(work: Path, seed: int, config: LMConfig, codec: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    from duologue.codec.config import MimiConfig
    from duologue.codec.untrained import write_untrained_mimi

    save_file(random_weights(config, seed=seed), work / _FILE_NAMES["moshi_name"])
    write_untrained_mimi(work / _FILE_NAMES["mimi_name"], MimiConfig.from_dict(codec), seed=seed)
    (work / _FILE_NAMES["mimi_config_name"]).write_text(json.dumps(codec, indent=1), encoding="utf-8")
    (work / _FILE_NAMES["tokenizer_name"]).write_bytes(train_small_tokenizer(config.text_card))
    keys = {**config.to_dict(), **_FILE_NAMES}
    (work / "config.json").write_text(json.dumps(keys, indent=1), encoding="utf-8")


def _initial(name: str, shape: Shape, config: LMConfig, draw: np.random.Generator) -> Array:
    if name.endswith(".alpha") or (len(shape) == 1 and name.endswith(".weight")):
        return np.ones(shape, dtype=np.float32)
    if name.endswith(".bias"):
        return np.zeros(shape, dtype=np.float32)
    if name.endswith(".scale"):
        scale = config.depformer_layer_scale if name.startswith("depformer.") else config.layer_scale
        return np.full(shape, scale, dtype=np.float32)
    return draw.standard_normal(shape, dtype=np.float32) * np.float32(_deviation(name, shape, config))


def _deviation(name: str, shape: Shape, config: LMConfig) -> float:
    fan_in = 1 / math.sqrt(shape[1])
    if name.startswith("emb."):
        return 1 / math.sqrt(config.n_q)
    if "emb" in name.split(".")[0] and "low_rank" not in name:
        return 1.0
    # Branches that add to the residual stream shrink with depth, or the input would drown.
    if name.endswith(("out_proj.weight", "linear_out.weight", "linear2.weight")):
        return fan_in / math.sqrt(2 * config.num_layers)
    # The depth transformer's output is not normalised: this spreads the audio logits over a few dozen likely codes.
    return 1.5 * fan_in if name.startswith("linears.") else fan_in


def _favour_padding(weights: dict[str, Array], config: LMConfig, draw: np.random.Generator) -> None:
    """Give every hidden state one shared direction, and let PAD and EPAD read it as a bias."""
    direction = draw.standard_normal(config.dim, dtype=np.float32)
    direction /= np.linalg.norm(direction)
    weights["text_emb.weight"] += np.float32(math.sqrt(config.dim)) * direction
    for token, gain in ((config.existing_text_padding_id, 9.0), (config.existing_text_end_padding_id, 6.0)):
        weights["text_linear.weight"][token] += np.float32(gain / math.sqrt(config.dim)) * direction
