"""Small language models in every shape the family uses, built in moshi and read back by duologue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig

KYUTAI_TINY = LMConfig(
    dim=16,
    num_heads=1,
    num_layers=2,
    text_card=48,
    card=32,
    n_q=3,
    dep_q=3,
    delays=(0, 1, 2, 4),
    context=4,
    hidden_scale=1,
    depformer_dim=16,
    depformer_num_heads=1,
    depformer_num_layers=2,
    depformer_gating="silu",
    depformer_multi_linear=True,
    depformer_weights_per_step=True,
    depformer_weights_per_step_schedule=(0, 1, 1),
    depformer_low_rank_embeddings=8,
)
"""Shape of the parity fixture."""

MOSHI_LIKE = LMConfig(
    dim=32,
    num_heads=4,
    num_layers=3,
    text_card=40,
    card=24,
    n_q=16,
    dep_q=8,
    delays=(0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1),
    context=10,
    hidden_scale=4.125,
    gating="silu",
    norm="rms_norm_f32",
    positional_embedding="rope",
    depformer_dim=16,
    depformer_num_heads=2,
    depformer_num_layers=2,
    depformer_dim_feedforward=66,
    depformer_gating="silu",
    depformer_pos_emb="none",
    depformer_multi_linear=True,
    depformer_weights_per_step=True,
)

SHAPES = {
    "moshi": MOSHI_LIKE,
    "long_delays": replace(
        MOSHI_LIKE, n_q=6, dep_q=3, delays=(0, 0, 1, 2, 0, 2, 1), norm="layer_norm", max_period=100_000.0
    ),
    "grouped_heads": replace(
        MOSHI_LIKE,
        kv_repeat=2,
        depformer_kv_repeat=2,
        gating="gelu",
        norm="rms_norm",
        layer_scale=0.3,
        depformer_layer_scale=0.2,
        depformer_dim_feedforward=(66, 48, 64),
        depformer_weights_per_step_schedule=(0, 1, 2, 2, 2, 2, 2, 2),
        depformer_norm="layer_norm",
    ),
    "shared_depth": replace(
        MOSHI_LIKE,
        positional_embedding="sin_rope",
        gating="none",
        depformer_gating="none",
        depformer_pos_emb="rope",
        depformer_multi_linear=False,
        depformer_weights_per_step=False,
        norm="layer_norm_f32",
    ),
}


def moshi_model(config: LMConfig, *, seed: int = 0, gain: float = 1.0) -> Any:
    """Build moshi's own model with random weights whose norms and scales differ from their initial values."""
    import torch
    from moshi.models.lm import LMModel

    torch.manual_seed(seed)
    model = LMModel(device="cpu", dtype=torch.float32, **config.to_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() != 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for linear in model.linears:
            linear.weight.mul_(gain)
    return model.eval()


def checkpoint_of(model: Any, config: LMConfig, path: Path) -> Checkpoint:
    """Store moshi's weights under moshi's new names and open the file."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return Checkpoint.open(path, config=config)
