"""Mimi configurations: released defaults, round trip, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codec_cases import SMALL, TINY
from duologue.codec import Mimi, MimiConfig
from duologue.errors import ConfigError


def test_defaults_are_the_released_codec() -> None:
    assert MimiConfig.from_dict({}) == MimiConfig()
    config = MimiConfig()
    assert (config.frame_samples, config.hop_samples, config.steps_per_frame) == (1920, 960, 2)


@pytest.mark.parametrize("config", [SMALL, TINY, replace(TINY, has_layer_scale=False, true_skip=False)])
def test_round_trip(config: MimiConfig, tmp_path: Path) -> None:
    path = tmp_path / "mimi.json"
    path.write_text(json.dumps(config.to_dict()))
    assert MimiConfig.from_file(path) == config


def test_defaults_are_moshis() -> None:
    loaders = pytest.importorskip("moshi.models").loaders
    assert MimiConfig.from_dict(loaders._mimi_config) == MimiConfig()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"tempo": 3}, r"unknown keys \['tempo'\]"),
        ({"channels": 2}, "only 1"),
        ({"seanet": {"widht": 3}}, r"seanet has unknown keys \['widht'\]"),
        ({"seanet": {"norm": "weight_norm"}}, "seanet.norm is 'weight_norm'; only 'none'"),
        ({"seanet": {"activation": "ReLU"}}, "seanet.activation"),
        ({"seanet": {"activation_params": {"alpha": 0.5}}}, "activation_params"),
        ({"seanet": {"pad_mode": "reflect"}}, "seanet.pad_mode"),
        ({"seanet": {"n_filters": 1.5}}, "n_filters is 1.5"),
        ({"seanet": {"ratios": 8}}, "ratios is 8"),
        ({"seanet": {"dimension": 256}}, "must agree with seanet.dimension 256"),
        ({"seanet": []}, "must be an object"),
        ({"transformer": {"gating": "silu"}}, "transformer.gating"),
        ({"transformer": {"positional_embedding": "sin"}}, "positional_embedding"),
        ({"transformer": {"context": None}}, "context is None"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ([], "must be an object"),
    ],
)
def test_refusals(raw: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MimiConfig.from_dict(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "does not divide into 3 heads"),
        ({"ratios": (7, 6)}, "no multiple of 42"),
        ({"ratios": ()}, "ratios has 0 entries"),
        ({"context": 1}, "shorter than the steps"),
        ({"n_filters": 0}, "n_filters is 0"),
        ({"max_period": 0.0}, "max_period"),
        ({"semantic_codebooks": 10}, "n_q_semantic is 10"),
    ],
)
def test_shapes_that_cannot_be(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Mimi.load(tmp_path / "never_read", config=replace(TINY, **change))


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        MimiConfig.from_file(tmp_path / "missing.json")
    path = tmp_path / "mimi.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"mimi\.json"):
        MimiConfig.from_file(path)
