"""What a torch step reads, assembled on the host: sampling settings, noise and user codes of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from duologue.config import Sampling
from duologue.engine.base import NoiseSource, StepNoise
from duologue.model.config import UNGENERATED, LMConfig
from duologue.model.generate import StepInputs
from duologue.model.sampling import DrawSettings


def draw_settings(sampling: Sampling, config: LMConfig, device: torch.device | str) -> DrawSettings:
    """Return sampling settings as device scalars."""
    is_greedy_text, is_greedy_audio = sampling.temperature_text == 0, sampling.temperature_audio == 0
    return DrawSettings(
        temperature_text=torch.tensor(1.0 if is_greedy_text else sampling.temperature_text, device=device),
        temperature_audio=torch.tensor(1.0 if is_greedy_audio else sampling.temperature_audio, device=device),
        kept_text=torch.tensor(sampling.kept_text(config), device=device),
        kept_audio=torch.tensor(sampling.kept_audio(config), device=device),
        padding_bias=torch.tensor(float(sampling.padding_bias), device=device),
    )


def batch_inputs(
    user_codes: npt.ArrayLike,
    *,
    noise: Sequence[StepNoise],
    sampling: Sampling,
    config: LMConfig,
    device: torch.device | str,
    is_live: npt.ArrayLike | None = None,
) -> StepInputs:
    """Assemble a step's inputs.

    Args:
        user_codes: Shape [B, user_q].
        noise: One draw per row, all with the same sampling settings (`NoiseSource.draw`).
        sampling: Those settings.
        config: Model shape.
        device: Where to.
        is_live: Rows to advance, shape [B]; None for all.
    """
    codes = torch.as_tensor(np.asarray(user_codes), dtype=torch.int64, device=device)
    live = np.ones(len(noise), dtype=bool) if is_live is None else np.asarray(is_live, dtype=bool)
    return StepInputs(
        user_codes=codes,
        forced=torch.full((len(noise), 1 + config.dep_q), UNGENERATED, device=device),
        noise_text=torch.from_numpy(np.stack([item.text for item in noise])).to(device),
        noise_audio=torch.from_numpy(np.stack([item.audio for item in noise])).to(device),
        is_live=torch.from_numpy(live).to(device),
        settings=draw_settings(sampling, config, device),
    )


def draw_batch(seeds: Sequence[int], frame: int, sampling: Sampling, config: LMConfig) -> list[StepNoise]:
    """Return one row of noise per seed for a call."""
    return [NoiseSource(seed).draw(frame, sampling, config) for seed in seeds]
