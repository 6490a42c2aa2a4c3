"""The model's configuration: what is read, what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

import lm_cases
from duologue.errors import ConfigError
from duologue.model.config import LMConfig
from duologue.model.layout import is_dialogue, with_slices


def test_round_trip() -> None:
    for config in (LMConfig.moshi_7b(), lm_cases.KYUTAI_TINY, *lm_cases.SHAPES.values()):
        assert LMConfig.from_dict(config.to_dict()) == config


def test_reads_the_released_keys() -> None:
    """The keys of kyutai's moshi_7b_202409.json, with the bundle's own keys beside them."""
    keys = {
        **LMConfig.moshi_7b().to_dict(),
        "depformer_causal": True,
        "depformer_context": 8,
        "moshi_name": "model.safetensors",
        "model_type": "moshi",
        "lm_gen_config": {"temp": 0.8},
        "lora": False,
        "cross_attention": False,
        "conditioners": {},
        "fuser": None,
        "quantize": False,
    }
    assert LMConfig.from_dict(keys) == LMConfig.moshi_7b()


def test_depth_keys_default_to_the_temporal_ones() -> None:
    keys = LMConfig.moshi_7b().to_dict()
    for key in ("depformer_num_layers", "depformer_gating", "depformer_max_period", "depformer_layer_scale"):
        del keys[key]
    config = LMConfig.from_dict({**keys, "max_period": 5.0, "kv_repeat": 2})
    assert (config.depformer_num_layers, config.depformer_gating) == (32, "silu")
    assert (config.depformer_max_period, config.depformer_kv_repeat) == (5.0, 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("surprise", 1),
        ("quantize", True),
        ("cross_attention", True),
        ("conditioners", {"description": {}}),
        ("fuser", {"sum": []}),
        ("demux_second_stream", True),
        ("norm_emb", True),
        ("bias_proj", True),
        ("extra_heads_num_heads", 4),
        ("text_card_out", 5),
        ("causal", False),
        ("norm", "batch_norm"),
        ("gating", "maxout"),
        ("positional_embedding", "alibi"),
        ("dim", 0),
        ("dim", 1 << 40),
        ("dim", "4096"),
        ("dim", True),
        ("dim", 4096.0),
        ("num_heads", 3),
        ("kv_repeat", 3),
        ("dep_q", 17),
        ("dep_q", 0),
        ("delays", [0]),
        ("delays", [0] * 16 + [-1]),
        ("delays", [0] * 16 + [10**9]),
        ("delays", "none"),
        ("hidden_scale", float("nan")),
        ("hidden_scale", 1e9),
        ("layer_scale", "big"),
        ("max_period", 0),
        ("existing_text_padding_id", 32000),
        ("depformer_weights_per_step_schedule", [0, 1]),
        ("depformer_weights_per_step_schedule", [0] * 7 + [9]),
        ("depformer_dim_feedforward", [1024]),
        ("depformer_dim_feedforward", 1),
        ("depformer_gating", "none"),
        ("depformer_multi_linear", 1),
        ("depformer_low_rank_embeddings", 0),
    ],
)
def test_wrong_values_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        LMConfig.from_dict({**LMConfig.moshi_7b().to_dict(), key: value})


@pytest.mark.parametrize("key", ["dim", "delays", "context", "depformer_num_heads"])
def test_missing_keys_are_named(key: str) -> None:
    keys = LMConfig.moshi_7b().to_dict()
    del keys[key]
    with pytest.raises(ConfigError, match=f"lacks the key '{key}'"):
        LMConfig.from_dict(keys)


def test_dialogue_models_have_two_equal_halves() -> None:
    assert is_dialogue(LMConfig.moshi_7b())
    assert not is_dialogue(lm_cases.KYUTAI_TINY)
    wide = with_slices(LMConfig.moshi_7b(), 16)
    assert (wide.dep_q, wide.user_q, with_slices(wide, 8)) == (16, 0, LMConfig.moshi_7b())
    with pytest.raises(ConfigError, match="dep_q"):
        with_slices(lm_cases.SHAPES["grouped_heads"], 16)
