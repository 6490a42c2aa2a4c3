"""Loss per stream on held-out dialogues, always on the same windows."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duologue.model.config import LMConfig
from duologue_align.sft.loss import LossWeights, is_token, split_streams, stream_sums, target_weights, total_loss
from duologue_align.sft.shards import Codes
from duologue_align.sft.trainer import TeacherForcing
from duologue_align.sft.windows import window_tokens


def held_out_windows(codes: Codes, config: LMConfig, *, numbers: list[int], length: int, count: int) -> Tensor:
    """Return windows for validation, int64, shape [N, 2 + n_q, length + 1], N <= count.

    They lie end to end in the given dialogues, taken in turns so that few windows still see many dialogues.
    """
    places = [(part, number) for number in numbers for part in range(max(1, -(-(codes.frames(number) - 1) // length)))]
    chosen = sorted(places)[:count]
    parts = [window_tokens(codes, number, part * length, length, config) for part, number in chosen]
    return torch.from_numpy(np.stack(parts))


@torch.no_grad()
def validate(
    scorer: TeacherForcing,
    windows: Tensor,
    weights: LossWeights,
    *,
    batch: int,
    autocast: AbstractContextManager[Any],
) -> dict[str, float]:
    """Score a model.

    Args:
        scorer: In evaluation mode.
        windows: From `held_out_windows`.
        weights: Of the total.
        batch: Windows per pass.
        autocast: Context of mixed precision.

    Returns:
        "loss" as in training; mean losses in nats "text_word", "text_padding" (PAD), "text_end_padding" (EPAD),
        "semantic", "acoustic" and "acoustic_1" onwards, and "listening_word" of the user's words where they are learnt;
        NaN where there was nothing to predict.
    """
    config, device = scorer.model.config, scorer.model.device
    losses, targets = [], []
    for part in torch.split(windows, batch):
        targets.append(scorer.targets(part))
        with autocast:
            losses.append(scorer(part.to(device), targets[-1].to(device)).float().cpu())
    return stream_losses(torch.cat(losses), torch.cat(targets), config, weights)


def stream_losses(losses: Tensor, targets: Tensor, config: LMConfig, weights: LossWeights) -> dict[str, float]:
    """Break token losses down by stream; shapes as `TeacherForcing.targets`, names as `validate`."""
    counts = target_weights(targets, config, weights)
    sums, whole = stream_sums(losses * counts, config), stream_sums(counts, config)
    found = {"loss": float(total_loss(sums, whole, weights))}
    (text, codes, heard), (text_losses, code_losses, heard_losses) = (
        split_streams(part, config) for part in (targets, losses)
    )
    found["text_word"] = _mean(text_losses, _is_word(text, config))
    found["text_padding"] = _mean(text_losses, text == config.existing_text_padding_id)
    found["text_end_padding"] = _mean(text_losses, text == config.existing_text_end_padding_id)
    is_code = is_token(codes, config.card)
    found["semantic"] = _mean(code_losses[:, 0], is_code[:, 0])
    found["acoustic"] = _mean(code_losses[:, 1:], is_code[:, 1:])
    for level in range(1, config.dep_q):
        found[f"acoustic_{level}"] = _mean(code_losses[:, level], is_code[:, level])
    if heard.shape[1]:
        found["listening_word"] = _mean(heard_losses, _is_word(heard, config))
    return found


def _is_word(text: Tensor, config: LMConfig) -> Tensor:
    is_silent = (text == config.existing_text_padding_id) | (text == config.existing_text_end_padding_id)
    return is_token(text, config.text_card) & ~is_silent


def _mean(losses: Tensor, mask: Tensor) -> float:
    return float(losses[mask].mean()) if bool(mask.any()) else float("nan")
