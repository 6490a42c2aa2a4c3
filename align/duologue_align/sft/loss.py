"""What a prediction of text and codes costs: pure functions with moshi-finetune's weights as defaults."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from duologue.errors import ConfigError
from duologue.model.config import NO_TOKEN, LMConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """How much each target counts; all are relative within their stream, `text` and `audio` between the two.

    Attributes:
        padding: Text targets that are PAD.
        end_padding: Text targets that are EPAD.
        word: All other text targets.
        semantic: Targets of the agent's first codebook.
        acoustic: Targets of each of its other codebooks.
        text: The text loss in the total.
        audio: The audio loss in the total.

    Raises:
        ConfigError: A weight is negative, or a whole stream weighs nothing.

    Source: moshi-finetune's text_padding_weight 0.5 and first_codebook_weight_multiplier 100.
    """

    padding: float = 0.5
    end_padding: float = 0.5
    word: float = 1.0
    semantic: float = 100.0
    acoustic: float = 1.0
    text: float = 1.0
    audio: float = 1.0

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in self.__slots__}
        for name, value in values.items():
            if not 0 <= value < 1e6:
                raise ConfigError(f"loss.{name} is {value}; it must be 0 or more")
        if self.word + self.padding + self.end_padding == 0 or self.semantic + self.acoustic == 0:
            raise ConfigError("loss: all targets of a stream weigh nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedLoss:
    """Weighted sums over a part of a batch, and the sums of their weights, each a scalar tensor.

    Attributes:
        text: Sum of the text losses times their weights.
        audio: The same for the agent's codes.
        text_weight: Sum of the text weights.
        audio_weight: Sum of the audio weights.
    """

    text: Tensor
    audio: Tensor
    text_weight: Tensor
    audio_weight: Tensor


def target_weights(targets: Tensor, config: LMConfig, weights: LossWeights) -> tuple[Tensor, Tensor]:
    """Return the weight of every target.

    Args:
        targets: Text tokens and agent codes, shape [B, 1 + dep_q, T]; outside the vocabularies (-1, or an initial
            token) where there is nothing to predict.
        config: Shape of the model.
        weights: How much each kind counts.

    Returns:
        Text weights, shape [B, T], and audio weights, shape [B, dep_q, T], float32.
    """
    text, audio = targets[:, 0], targets[:, 1:]
    of_text = torch.full(text.shape, weights.word, device=text.device)
    of_text = torch.where(text == config.existing_text_padding_id, weights.padding, of_text)
    of_text = torch.where(text == config.existing_text_end_padding_id, weights.end_padding, of_text)
    of_text = of_text * _is_token(text, config.text_card)
    levels = torch.full((audio.shape[1], 1), weights.acoustic, device=audio.device)
    levels[0] = weights.semantic
    return of_text, levels * _is_token(audio, config.card)


def thin_silence(targets: Tensor, config: LMConfig, share: float) -> Tensor:
    """Take the agent's codes out of the targets of most frames in which it says nothing.

    Silence is half of a conversation and soon learnt, and the codes of a frame cost as much as all the rest of it. A
    frame is silent when no word began in the 10 frames (0.8 s) before it or the one behind it.

    Args:
        targets: As for `target_weights`.
        config: Shape of the model.
        share: Of the silent frames, drawn from torch's global generator, that stay targets.

    Returns:
        A copy of the targets with no token in the codes that are left out.
    """
    text = targets[:, 0]
    is_word = _is_token(text, config.text_card)
    for silent in (config.existing_text_padding_id, config.existing_text_end_padding_id):
        is_word &= text != silent
    near = functional.max_pool1d(functional.pad(is_word.float(), (10, 1)), 12, stride=1) > 0
    kept = near | (torch.rand(text.shape) < share).to(text.device)
    return torch.cat([targets[:, :1], torch.where(kept[:, None], targets[:, 1:], NO_TOKEN)], dim=1)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of every target in float32, in nats, 0 where there is none.

    Args:
        logits: Shape [..., card].
        targets: Shape [...]; outside the vocabulary where there is nothing to predict.
    """
    card = logits.shape[-1]
    kept = torch.where(_is_token(targets, card), targets, -100).flatten()
    losses = functional.cross_entropy(logits.reshape(-1, card).float(), kept, ignore_index=-100, reduction="none")
    return losses.view(targets.shape)


def weighted_loss(losses: Tensor, of_text: Tensor, of_audio: Tensor) -> WeightedLoss:
    """Sum cross-entropies, shape [B, 1 + dep_q, T], under the weights of `target_weights`."""
    return WeightedLoss(
        text=(losses[:, 0] * of_text).sum(),
        audio=(losses[:, 1:] * of_audio).sum(),
        text_weight=of_text.sum(),
        audio_weight=of_audio.sum(),
    )


def total_loss(sums: WeightedLoss, text_weight: Tensor, audio_weight: Tensor, weights: LossWeights) -> Tensor:
    """Return the loss to minimise: text and audio, each over the sum of its weights.

    Args:
        sums: Weighted sums over a part of the batch.
        text_weight: Sum of the text weights over the whole batch, so that parts add up to the loss of the whole.
        audio_weight: The same for the audio.
        weights: Gives the share of text and audio.
    """
    text = sums.text / text_weight.clamp(min=1e-9)
    audio = sums.audio / audio_weight.clamp(min=1e-9)
    return weights.text * text + weights.audio * audio


def _is_token(targets: Tensor, card: int) -> Tensor:
    return (targets > NO_TOKEN) & (targets < card)
