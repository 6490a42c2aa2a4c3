"""A tiny agent and mined segments on which alignment runs in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mine_cases
import sft_case
from duologue.model.config import LMConfig
from duologue.model.lm import LanguageModel
from duologue.untrained import small_config, write_untrained_bundle
from duologue_align.corpus.conversation import Channel
from duologue_align.rl.scenes import Scene
from duologue_align.segments.codes import Codec
from duologue_align.segments.dataset import MiningOptions, mine
from duologue_align.segments.rules import MiningRules
from duologue_align.segments.segment import Segment

CONFIG: LMConfig = replace(
    small_config(),
    dim=32,
    num_heads=2,
    num_layers=2,
    card=64,
    context=400,
    depformer_dim=16,
    depformer_num_heads=2,
    depformer_num_layers=1,
    depformer_dim_feedforward=48,
)
"""Moshi's structure and streams, next to nothing of its width."""


def write_agent(folder: Path, *, seed: int = 0, config: LMConfig = CONFIG) -> Path:
    """Write an untrained bundle of the tiny shape; return its folder."""
    mimi = {**sft_case.MIMI, "quantizer": {**sft_case.MIMI["quantizer"], "bins": config.card}}
    write_untrained_bundle(folder, seed=seed, config=config, mimi_config=mimi)
    return folder


def write_segments(folder: Path, agent: Path, *, conversations: int = 4) -> Path:
    """Record conversations of exactly known timing and mine them; return the mined folder."""
    for number in range(conversations):
        shift = 0.08 * number
        spans = {
            "user": [(start + shift, end + shift) for start, end in mine_cases.USER],
            "agent": [(start + shift, end + shift) for start, end in mine_cases.AGENT],
        }
        mine_cases.write_stereo(folder / "calls" / f"{_NAMES[number]}.wav", **spans)  # type: ignore[arg-type]
    rules = MiningRules(detector="level", dev_share=0.25, test_share=0.25, context_s=4.0)
    mine([folder / "calls"], folder / "mined", MiningOptions(rules=rules, codec=Codec.find(agent)))
    return folder / "mined"


_NAMES = ("cat", "bob", "abe", "dee")
"""The split of a conversation hangs on its name: two to train on, one dev, one test."""


def scene(
    config: LMConfig, *, frames: int, window: int, given: int = 0, seed: int = 0, axis: str = "turn", **changes: Any
) -> Scene:
    """Return a scene of random codes whose last `window` frames are its segment."""
    draw = np.random.default_rng(seed)
    streams = draw.integers(0, config.card, (config.num_streams, frames))
    streams[0] = draw.choice([0, 3, 3, 7, 9], frames)
    place = Channel(path=Path("none.wav"))
    segment = Segment(
        id=f"s{seed}",
        axis=axis,  # type: ignore[arg-type]
        split="train",
        conversation="c",
        is_swapped=False,
        start_s=0.0,
        end_s=round(window * 0.08, 2),
        user=place,
        agent=place,
    )
    user = streams[1 + config.dep_q : 1 + config.dep_q + config.user_q, given:]
    return Scene(segment=segment, **{"given": streams[:, :given], "embeddings": None, "user": user, **changes})


def model(config: LMConfig, *, seed: int = 0) -> Any:
    """Return a language model with lively random weights."""
    torch.manual_seed(seed)
    made = LanguageModel(config).eval().requires_grad_(False)
    for linear in [made.text_linear, *made.linears]:
        linear.weight.mul_(4.0)
    return made
