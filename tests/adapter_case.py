"""A tiny base model that loads in moments, and adapters of it, in the forms of moshi and of peft."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import sft_case
from duologue.codec import MimiConfig
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig
from duologue.model.layout import linear_slots
from duologue.untrained import small_config, write_untrained_bundle

CARD = 64
TEMPORAL, EVERYTHING = "transformer.", ""
"""Which linear layers an adapter changes: those whose names begin so."""


def tiny_config() -> LMConfig:
    """Return Moshi's structure at a few hundred thousand weights."""
    return replace(
        small_config(),
        dim=64,
        num_heads=4,
        num_layers=2,
        card=CARD,
        context=50,
        depformer_dim=32,
        depformer_num_layers=1,
        depformer_dim_feedforward=96,
    )


def write_base(folder: Path, *, seed: int = 3) -> Path:
    """Write a base model with codec and tokenizer."""
    write_untrained_bundle(
        folder, seed=seed, config=tiny_config(), mimi_config=MimiConfig.from_dict(sft_case.MIMI).to_dict()
    )
    return folder


def write_adapter(
    folder: Path,
    base: Path,
    *,
    form: str = "moshi",
    prefix: str = TEMPORAL,
    rank: int = 4,
    scaling: float = 2.0,
    seed: int = 1,
) -> Path:
    """Write random updates, large enough to change what is said; `form` is "moshi" or "peft"."""
    draw, tensors = np.random.default_rng(seed), {}
    name_of = "base_model.model.{}.lora_{}.weight" if form == "peft" else "{}.lora_{}.weight"
    for module, slot in linear_slots(Checkpoint.open(base).config).items():
        if module.startswith(prefix):
            shape_a, shape_b = (rank, slot.in_features), (slot.out_features, rank)
            tensors[name_of.format(module, "A")] = (draw.standard_normal(shape_a) * 0.2).astype(np.float32)
            tensors[name_of.format(module, "B")] = (draw.standard_normal(shape_b) * 0.05).astype(np.float32)
    folder.mkdir(parents=True)
    if form == "peft":
        save_file(tensors, folder / "adapter_model.safetensors")
        keys = {"peft_type": "LORA", "r": rank, "lora_alpha": scaling * rank, "bias": "none"}
        (folder / "adapter_config.json").write_text(json.dumps(keys))
    else:
        save_file(tensors, folder / "lora.safetensors")
        (folder / "config.json").write_text(json.dumps({"lora": True, "lora_rank": rank, "lora_scaling": scaling}))
    return folder
