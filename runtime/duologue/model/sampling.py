"""Drawing a token from logits with the noise given as input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """Sampling settings as device scalars, so that a captured graph reads their current values.

    Attributes:
        temperature_text: Divisor of the text logits, > 0, shape [].
        temperature_audio: Divisor of the audio logits, > 0, shape [].
        kept_text: Ranks that may be drawn, <= the width of the text noise, int64, shape [].
        kept_audio: The same for the audio.
        padding_bias: Added to the logit of PAD, shape [].
        is_ranked: Whether noise belongs to ranks. Without, it belongs to nothing and as many candidates are kept as it
            is wide: they need not be put in order, which takes half the time.
    """

    temperature_text: Tensor
    temperature_audio: Tensor
    kept_text: Tensor
    kept_audio: Tensor
    padding_bias: Tensor
    is_ranked: bool = True


def draw(
    logits: Tensor, noise: Tensor, temperature: Tensor, kept: Tensor, *, is_ranked: bool = True
) -> tuple[Tensor, Tensor]:
    """Sample by the Gumbel-max rule over the most likely tokens.

    Args:
        logits: Shape [B, C].
        noise: Gumbel noise per rank, shape [B, K], K <= C; zeros for the most likely token.
        temperature: Divisor, > 0, shape [].
        kept: Ranks that may be drawn, in [1, K], shape [].
        is_ranked: See `DrawSettings`; without, `kept` must be K.

    Returns:
        Tokens and their log-probabilities under the kept, tempered distribution, each shape [B].

    Source: Gumbel-max; the distribution is that of moshi 0.2.13 utils/sampling.py (softmax, then top-k).
    """
    ranks = noise.shape[1]
    values, ids = torch.topk(logits.float(), ranks, dim=-1, sorted=is_ranked)
    tempered = values / temperature
    if is_ranked:
        dropped = torch.arange(ranks, device=logits.device) >= kept
        tempered = tempered.masked_fill(dropped, float("-inf"))
    rank = (tempered + noise).argmax(dim=-1, keepdim=True)
    logprob = torch.log_softmax(tempered, dim=-1).gather(1, rank)
    return ids.gather(1, rank)[:, 0], logprob[:, 0]
