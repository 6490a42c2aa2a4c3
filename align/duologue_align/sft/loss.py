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
        decision_temperature: Temperature at which the model is going to be sampled; see `text_cross_entropy`.
        listening: In the total, the loss of the user's words as a head on the temporal transformer tells them; 0 for no
            such head. The head is thrown away: what stays is a model that listened for words.

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
    decision_temperature: float = 1.0
    listening: float = 0.0

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in self.__slots__}
        for name, value in values.items():
            if not 0 <= value < 1e6:
                raise ConfigError(f"loss.{name} is {value}; it must be 0 or more")
        if not self.decision_temperature:
            raise ConfigError("loss.decision_temperature is 0; it must be above 0")
        if self.word + self.padding + self.end_padding == 0 or self.semantic + self.acoustic == 0:
            raise ConfigError("loss: all targets of a stream weigh nothing")


def target_weights(targets: Tensor, config: LMConfig, weights: LossWeights) -> Tensor:
    """Return the weight of every target within its stream, float32, in the shape of the targets.

    Args:
        targets: Text tokens, agent codes and, where they are learnt, the user's text tokens, shape
            [B, 1 + dep_q or 2 + dep_q, T]; outside the vocabularies (-1, or an initial token) where there is nothing
            to predict.
        config: Shape of the model.
        weights: How much each kind counts.
    """
    text, audio, heard = split_streams(targets, config)
    levels = torch.full((config.dep_q, 1), weights.acoustic, device=targets.device)
    levels[0] = weights.semantic
    of_audio = levels * is_token(audio, config.card)
    return torch.cat([_text_weights(text, config, weights), of_audio, _text_weights(heard, config, weights)], dim=1)


def split_streams(streams: Tensor, config: LMConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Split [B, S, T] into the agent's text, S = 1, its codes, S = dep_q, and the user's text, S = 1 or 0."""
    text, audio, heard = torch.tensor_split(streams, (1, 1 + config.dep_q), dim=1)
    return text, audio, heard


def _text_weights(text: Tensor, config: LMConfig, weights: LossWeights) -> Tensor:
    found = torch.full(text.shape, weights.word, device=text.device)
    found = torch.where(text == config.existing_text_padding_id, weights.padding, found)
    found = torch.where(text == config.existing_text_end_padding_id, weights.end_padding, found)
    return found * is_token(text, config.text_card)


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
    text, codes, heard = split_streams(targets, config)
    text = text[:, 0]
    is_word = is_token(text, config.text_card)
    for silent in (config.existing_text_padding_id, config.existing_text_end_padding_id):
        is_word &= text != silent
    near = functional.max_pool1d(functional.pad(is_word.float(), (10, 1)), 12, stride=1) > 0
    kept = near | (torch.rand(text.shape) < share).to(text.device)
    return torch.cat([targets[:, :1], torch.where(kept[:, None], codes, NO_TOKEN), heard], dim=1)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of every target in float32, in nats, 0 where there is none.

    Args:
        logits: Shape [..., card].
        targets: Shape [...]; outside the vocabulary where there is nothing to predict.
    """
    card = logits.shape[-1]
    kept = torch.where(is_token(targets, card), targets, -100).flatten()
    losses = functional.cross_entropy(logits.reshape(-1, card).float(), kept, ignore_index=-100, reduction="none")
    return losses.view(targets.shape)


def text_cross_entropy(logits: Tensor, targets: Tensor, config: LMConfig, temperature: float) -> Tensor:
    """Return the cost of every text target in nats, 0 where there is none: when to speak apart from what to say.

    Sampling below temperature 1 makes a model say what it is surer of, which is wanted, and speak less often, because
    most of the text is PAD, which is not. So the choice between PAD, EPAD and a word is learnt at the temperature at
    which the model will be sampled, and the word, given that there is one, at temperature 1.

    Args:
        logits: Shape [..., text_card].
        targets: Shape [...]; outside the vocabulary where there is nothing to predict.
        config: Shape of the model.
        temperature: Of the choice; 1 gives the usual cross-entropy.
    """
    silent = [config.existing_text_padding_id, config.existing_text_end_padding_id]
    logits = logits.float()
    words = logits.clone()
    words[..., silent] = -torch.inf
    kinds = torch.cat([logits[..., silent] / temperature, (words / temperature).logsumexp(-1, keepdim=True)], dim=-1)
    kind = torch.full_like(targets, len(silent))
    for number, token in enumerate(silent):
        kind = torch.where(targets == token, number, kind)
    is_text = is_token(targets, config.text_card)
    of_kind = cross_entropy(kinds, torch.where(is_text, kind, NO_TOKEN))
    return of_kind + cross_entropy(words, torch.where(kind == len(silent), targets, NO_TOKEN))


def stream_sums(values: Tensor, config: LMConfig) -> Tensor:
    """Sum [B, 1 + dep_q or 2 + dep_q, T] over each of text, audio and the user's text; shape [3]."""
    return torch.stack([part.sum() for part in split_streams(values, config)])


def total_loss(sums: Tensor, whole: Tensor, weights: LossWeights) -> Tensor:
    """Return the loss to minimise: text, audio and the user's text, each over the sum of its weights.

    Args:
        sums: `stream_sums` of losses times weights over a part of the batch, shape [3].
        whole: `stream_sums` of the weights over the whole batch, so that parts add up to the loss of the whole.
        weights: Gives the share of each.
    """
    shares = sums.new_tensor([weights.text, weights.audio, weights.listening])
    return (shares * sums / whole.clamp(min=1e-9)).sum()


def is_token(targets: Tensor, card: int) -> Tensor:
    """Return which targets lie in a vocabulary of `card` tokens."""
    return (targets > NO_TOKEN) & (targets < card)
