"""From rewards to advantages and from advantages to a loss: pure functions of tensors.

Suffixes name the axes of a tensor: G rollouts of a group, B of a batch, C reward components, T frames, M tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def standardise(scores: Tensor, *, std_floor: float = 0.0) -> Tensor:
    """Return z-scores within a group: (score - mean) / max(std, std_floor), the population's std.

    Args:
        scores: Shape [G]; NaN where there is no score.
        std_floor: Least divisor, against noise that is blown up; 0 is the paper's rule.

    Returns:
        Shape [G]; 0 where there is no score, and for everyone if all scores are the same.

    Source: arXiv 2606.11167 section 3.2; which std the paper leaves open.
    """
    is_known = ~torch.isnan(scores)
    known = scores[is_known]
    out = torch.zeros_like(scores)
    if len(known) > 1:
        centred = known - known.mean()
        std = centred.square().mean().sqrt()
        if bool(std > _SAME):
            out[is_known] = centred / std.clamp(min=std_floor)
    return out


def decoupled_advantages(scores: Tensor, weights: Tensor, *, std_floor: float = 0.0) -> Tensor:
    """Return the weighted sum of each component's own z-scores.

    Args:
        scores: Shape [C, G]; NaN where a component has nothing to say.
        weights: Shape [C].
        std_floor: See `standardise`.

    Returns:
        Shape [G].

    Source: reward-decoupled normalisation, arXiv 2601.05242; arXiv 2606.11167 section 3.4 with weights 1.
    """
    return torch.stack(
        [weight * standardise(row, std_floor=std_floor) for row, weight in zip(scores, weights, strict=True)]
    ).sum(0)


def batch_standardise(advantages: Tensor, mean_square: Tensor) -> Tensor:
    """Return advantages, shape [B], divided by their root mean square over the whole step; zeros stay zeros.

    Source: the final normalisation of arXiv 2601.05242; groups are centred already.
    """
    scale = mean_square.sqrt()
    return advantages / scale if bool(scale > _SAME) else advantages


def kept_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float, kept: int, padding_bias: Tensor) -> Tensor:
    """Return log-probabilities under the truncated, tempered distribution that `duologue.model.sampling.draw` samples.

    The tokens themselves always count as kept: one that the present policy would cut off was drawn by an earlier
    policy, and keeps a gradient.

    Args:
        logits: Shape [M, V].
        tokens: Shape [M].
        temperature: Divisor, > 0.
        kept: Most likely tokens that may be drawn.
        padding_bias: Added to the logits, shape [V].
    """
    biased = logits.float() + padding_bias
    chosen = biased.gather(1, tokens[:, None])
    if kept < biased.shape[1]:
        with torch.no_grad():
            least = biased.topk(kept, dim=1).values[:, -1:]
            is_cut = (biased < least).scatter(1, tokens[:, None], False)
        biased = biased.masked_fill(is_cut, float("-inf"))
    return (chosen / temperature)[:, 0] - torch.logsumexp(biased / temperature, dim=1)


def exact_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Return KL[policy || reference] over the full vocabulary at every token, shape [M], for logits [M, V].

    Both distributions are whole and untempered: under truncation the divergence would be infinite as soon as the
    sets of kept tokens differ.
    Source: arXiv 2606.11167 section 3.2.
    """
    policy, reference = torch.log_softmax(logits.float(), 1), torch.log_softmax(reference_logits.float(), 1)
    return (policy.exp() * (policy - reference)).sum(1)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the whole distribution at every token in nats, shape [M], for logits [M, V]."""
    logprobs = torch.log_softmax(logits.float(), 1)
    return -(logprobs.exp() * logprobs).sum(1)


def clipped_surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, low: float, high: float) -> Tensor:
    """Return min(ratio A, clip(ratio, 1 - low, 1 + high) A), all of one shape.

    Source: arXiv 1707.06347; `high` above `low` is clip-higher, arXiv 2503.14476.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    return torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def is_clipped(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, low: float, high: float) -> Tensor:
    """Return where `clipped_surrogate` gives no gradient, bool."""
    ratio = torch.exp(logprobs - old_logprobs)
    return ((advantages > 0) & (ratio > 1 + high)) | ((advantages < 0) & (ratio < 1 - low))


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each row over its masked tokens, shape [B], for values and mask [B, T]; 0 for an empty row."""
    count = mask.sum(1).clamp(min=1)
    return torch.where(mask, values, 0.0).sum(1) / count


def adapted_beta(beta: float, kl: float, *, target: float, least: float, most: float) -> float:
    """Return the coefficient of the KL for the next step.

    It grows by up to a tenth while the divergence is above the target and shrinks while it is below.

    Args:
        beta: Present coefficient.
        kl: Mean divergence of this step.
        target: Wanted divergence; 0 keeps the coefficient.
        least: Lower bound.
        most: Upper bound.

    Source: the controller of arXiv 1909.08593 section 2.2, errors clipped to 0.2 and gained by half.
    """
    if target <= 0:
        return beta
    error = min(0.2, max(-0.2, kl / target - 1))
    return min(most, max(least, beta * (1 + 0.5 * error)))


_SAME = 1e-6
"""Standard deviations below this are rounding."""
