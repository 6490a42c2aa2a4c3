"""Loss per stream on held-out dialogues, always on the same windows."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duologue.model.config import LMConfig
from duologue.model.lm import LanguageModel
from duologue_align.sft.loss import LossWeights, target_weights, total_loss, weighted_loss
from duologue_align.sft.shards import Codes
from duologue_align.sft.trainer import TeacherForcing
from duologue_align.sft.windows import positions_of


def held_out_windows(codes: Codes, config: LMConfig, *, numbers: list[int], length: int, count: int) -> Tensor:
    """Return windows for validation, int64, shape [N, 1 + n_q, length + 1], N <= count.

    They lie end to end in the given dialogues, taken in turns so that few windows still see many dialogues.
    """
    places = [(part, number) for number in numbers for part in range(max(1, -(-(codes.frames(number) - 1) // length)))]
    chosen = sorted(places)[:count]
    parts = [positions_of(codes, number, part * length, length, config) for part, number in chosen]
    return torch.from_numpy(np.stack(parts))


@torch.no_grad()
def validate(
    model: LanguageModel,
    windows: Tensor,
    weights: LossWeights,
    *,
    batch: int,
    autocast: AbstractContextManager[Any],
) -> dict[str, float]:
    """Score a model.

    Args:
        model: In evaluation mode.
        windows: From `held_out_windows`.
        weights: Of the total.
        batch: Windows per pass.
        autocast: Context of mixed precision.

    Returns:
        "loss" as in training; mean losses in nats "text_word", "text_padding" (PAD), "text_end_padding" (EPAD),
        "semantic", "acoustic" and "acoustic_1" onwards; NaN where there was nothing to predict.
    """
    config, scorer = model.config, TeacherForcing(model)
    losses, targets = [], []
    for part in torch.split(windows, batch):
        targets.append(part[:, : 1 + config.dep_q, 1:])
        with autocast:
            losses.append(scorer(part.to(model.device), targets[-1].to(model.device)).float().cpu())
    return stream_losses(torch.cat(losses), torch.cat(targets), config, weights)


def stream_losses(losses: Tensor, targets: Tensor, config: LMConfig, weights: LossWeights) -> dict[str, float]:
    """Break token losses, shape [B, 1 + dep_q, T], down by stream; see `validate`."""
    of_text, of_audio = target_weights(targets, config, weights)
    sums = weighted_loss(losses, of_text, of_audio)
    found = {"loss": float(total_loss(sums, sums.text_weight, sums.audio_weight, weights))}
    text = targets[:, 0]
    is_padding = text == config.existing_text_padding_id
    is_end = text == config.existing_text_end_padding_id
    is_text = (text >= 0) & (text < config.text_card)
    kinds = {"text_word": is_text & ~is_padding & ~is_end, "text_padding": is_padding, "text_end_padding": is_end}
    for name, mask in kinds.items():
        found[name] = _mean(losses[:, 0], mask)
    is_code = (targets[:, 1:] >= 0) & (targets[:, 1:] < config.card)
    found["semantic"] = _mean(losses[:, 1], is_code[:, 0])
    found["acoustic"] = _mean(losses[:, 2:], is_code[:, 1:])
    for level in range(1, config.dep_q):
        found[f"acoustic_{level}"] = _mean(losses[:, 1 + level], is_code[:, level])
    return found


def _mean(losses: Tensor, mask: Tensor) -> float:
    return float(losses[mask].mean()) if bool(mask.any()) else float("nan")
