"""The supervised loss against a slow NumPy reading of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lm_cases  # noqa: E402
from duologue.errors import ConfigError  # noqa: E402
from duologue_align.sft.loss import (  # noqa: E402
    LossWeights,
    cross_entropy,
    stream_sums,
    target_weights,
    text_cross_entropy,
    thin_silence,
    total_loss,
)

CONFIG = lm_cases.MOSHI_LIKE
BATCH, LENGTH = 3, 7


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of the two text streams, shape [B, 2, T, text_card], of the codes, and the targets."""
    draw = np.random.default_rng(seed)
    text_logits = draw.standard_normal((BATCH, 2, LENGTH, CONFIG.text_card)).astype(np.float32) * 3
    audio_logits = draw.standard_normal((BATCH, CONFIG.dep_q, LENGTH, CONFIG.card)).astype(np.float32) * 3
    targets = draw.integers(0, CONFIG.card, (BATCH, 2 + CONFIG.dep_q, LENGTH))
    targets[:, [0, -1]] = draw.choice([0, 3, 5, 39], (BATCH, 2, LENGTH))
    targets[1, -1] = -1  # nobody wrote down what this user says
    targets[0, 1:, 0] = CONFIG.card  # initial tokens are not predicted
    targets[0, 0, 0] = CONFIG.text_card
    targets[2, :, 5:] = -1
    return text_logits, audio_logits, targets


def test_a_word_is_chosen_at_1_and_whether_there_is_one_at_the_temperature_of_sampling() -> None:
    logits = torch.from_numpy(example(5)[0])
    targets = torch.from_numpy(example(5)[2])[:, [0, -1]]
    torch.testing.assert_close(text_cross_entropy(logits, targets, CONFIG, 1.0), cross_entropy(logits, targets))
    found = text_cross_entropy(logits, targets, CONFIG, 0.7).numpy()
    for place in np.ndindex(targets.shape):
        own, target = logits[place].numpy().astype(np.float64), int(targets[place])
        drawn = np.exp(own / 0.7) / np.exp(own / 0.7).sum()
        words = [token for token in range(CONFIG.text_card) if token not in (0, 3)]
        expected = 0.0
        if target in (0, 3):
            expected = -np.log(drawn[target])
        elif 0 <= target < CONFIG.text_card:
            expected = -np.log(drawn[words].sum()) - np.log(np.exp(own[target]) / np.exp(own[words]).sum())
        assert found[place] == pytest.approx(expected, rel=1e-4)


def slow_loss(text_logits: np.ndarray, audio_logits: np.ndarray, targets: np.ndarray, weights: LossWeights) -> float:
    def entropy(logits: np.ndarray, target: int) -> float:
        shifted = logits.astype(np.float64) - logits.max()
        return float(np.log(np.exp(shifted).sum()) - shifted[target])

    text, text_weight, audio, audio_weight = [0.0, 0.0], [0.0, 0.0], 0.0, 0.0
    for b in range(BATCH):
        for t in range(LENGTH):
            for side, target in enumerate((targets[b, 0, t], targets[b, -1, t])):
                if 0 <= target < CONFIG.text_card:
                    weight = {3: weights.padding, 0: weights.end_padding}.get(int(target), weights.word)
                    text[side] += weight * entropy(text_logits[b, side, t], target)
                    text_weight[side] += weight
            for k in range(CONFIG.dep_q):
                code = targets[b, 1 + k, t]
                if 0 <= code < CONFIG.card:
                    weight = weights.semantic if k == 0 else weights.acoustic
                    audio += weight * entropy(audio_logits[b, k, t], code)
                    audio_weight += weight
    heard = weights.listening * text[1] / text_weight[1]
    return weights.text * text[0] / text_weight[0] + weights.audio * audio / audio_weight + heard


def token_losses(text_logits: torch.Tensor, audio_logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    text = cross_entropy(text_logits, targets[:, [0, -1]])
    return torch.cat([text[:, :1], cross_entropy(audio_logits, targets[:, 1:-1]), text[:, 1:]], dim=1)


def loss_of(text_logits: np.ndarray, audio_logits: np.ndarray, targets: np.ndarray, weights: LossWeights) -> float:
    wanted = torch.from_numpy(targets)
    losses = token_losses(torch.from_numpy(text_logits), torch.from_numpy(audio_logits), wanted)
    counts = target_weights(wanted, CONFIG, weights)
    return float(total_loss(stream_sums(losses * counts, CONFIG), stream_sums(counts, CONFIG), weights))


@pytest.mark.parametrize(
    "weights",
    [
        LossWeights(),
        LossWeights(padding=0.1, end_padding=2.0, word=0.7, semantic=3.0, acoustic=0.2, text=0.5, audio=4.0),
        LossWeights(semantic=0.0),
        LossWeights(listening=0.3),
    ],
)
def test_the_loss_is_the_slow_one(weights: LossWeights) -> None:
    case = example()
    assert loss_of(*case, weights) == pytest.approx(slow_loss(*case, weights), rel=1e-6)


def test_the_defaults_are_moshi_finetunes() -> None:
    defaults = LossWeights()
    assert (defaults.padding, defaults.end_padding, defaults.word) == (0.5, 0.5, 1.0)
    assert (defaults.semantic, defaults.acoustic, defaults.text, defaults.audio) == (100.0, 1.0, 1.0, 1.0)


def test_parts_add_up_to_the_whole() -> None:
    weights = LossWeights(listening=0.5)
    text_logits, audio_logits, targets = (torch.from_numpy(array) for array in example(3))
    counts = target_weights(targets, CONFIG, weights)
    whole = stream_sums(counts, CONFIG)
    parts = []
    for row in range(BATCH):
        one = slice(row, row + 1)
        losses = token_losses(text_logits[one], audio_logits[one], targets[one])
        parts.append(total_loss(stream_sums(losses * counts[one], CONFIG), whole, weights))
    assert float(sum(parts)) == pytest.approx(loss_of(*example(3), weights), rel=1e-6)


def test_nothing_to_predict_costs_nothing_and_gives_no_gradient() -> None:
    text_logits, audio_logits, targets = (torch.from_numpy(array) for array in example())
    text_logits.requires_grad_(True)
    none = torch.full_like(targets, -1)
    counts = target_weights(none, CONFIG, LossWeights())
    sums = stream_sums(token_losses(text_logits, audio_logits, none) * counts, CONFIG)
    loss = total_loss(sums, stream_sums(counts, CONFIG), LossWeights())
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(text_logits.grad.abs().max()) == 0


@pytest.mark.parametrize("change", [{"semantic": -1.0}, {"padding": float("nan")}, {"semantic": 0.0, "acoustic": 0.0}])
def test_senseless_weights_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="loss"):
        replace(LossWeights(), **change)


def test_thinning_keeps_the_codes_around_words_and_a_share_of_the_others() -> None:
    pad = CONFIG.existing_text_padding_id
    targets = torch.ones(1, 1 + CONFIG.dep_q, 4000, dtype=torch.int64)
    targets[:, 0] = pad
    targets[:, 0, 100] = 5
    torch.manual_seed(0)
    thinned = thin_silence(targets, CONFIG, 0.2)
    kept = (thinned[0, 1:] >= 0).all(dim=0)
    assert torch.equal(kept, (thinned[0, 1:] >= 0).any(dim=0))
    assert kept[99:111].all()
    assert 0.17 < float(kept[200:].float().mean()) < 0.23
    assert torch.equal(thinned[:, 0], targets[:, 0])
    assert (targets[:, 1:] == 1).all()
