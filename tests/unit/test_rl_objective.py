"""Advantages and the loss against slow NumPy versions of the formulas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from duologue.model.sampling import DrawSettings, draw  # noqa: E402
from duologue_align.rl import objective  # noqa: E402

Floats = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def slow_z(scores: list[float], floor: float) -> list[float]:
    known = [score for score in scores if not np.isnan(score)]
    mean = sum(known) / len(known)
    std = (sum((score - mean) ** 2 for score in known) / len(known)) ** 0.5
    if std < 1e-6:
        return [0.0] * len(scores)
    return [0.0 if np.isnan(score) else (score - mean) / max(std, floor) for score in scores]


@pytest.mark.parametrize("floor", [0.0, 2.5])
def test_standardise(floor: float) -> None:
    scores = [1.0, 4.0, float("nan"), -2.0, 4.0]
    found = objective.standardise(torch.tensor(scores, dtype=torch.float64), std_floor=floor)
    np.testing.assert_allclose(found.numpy(), slow_z(scores, floor), atol=1e-12)


@pytest.mark.parametrize("scores", [[0.3, 0.3, 0.3], [float("nan")] * 3, [float("nan"), 2.0, float("nan")]])
def test_a_group_that_agrees_has_no_advantage(scores: list[float]) -> None:
    assert objective.standardise(torch.tensor(scores)).tolist() == [0.0] * 3


def test_decoupled_advantages_do_not_let_one_component_drown_another() -> None:
    scores, weights = rng().normal(size=(3, 6)) * [[1.0], [100.0], [0.01]], [1.0, 0.5, 2.0]
    expected = sum(w * np.array(slow_z(row.tolist(), 0.0)) for w, row in zip(weights, scores, strict=True))
    found = objective.decoupled_advantages(torch.from_numpy(scores), torch.tensor(weights, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), expected)
    shrunk = objective.decoupled_advantages(torch.from_numpy(scores * [[1.0], [1e-3], [1.0]]), torch.tensor(weights))
    np.testing.assert_allclose(shrunk.numpy(), expected, rtol=1e-6)


def test_batch_standardise() -> None:
    values = rng().normal(size=7) * 3
    found = objective.batch_standardise(torch.from_numpy(values), torch.from_numpy(values).square().mean())
    np.testing.assert_allclose(found.numpy(), values / np.sqrt(np.mean(values**2)))
    zeros = torch.zeros(3)
    assert objective.batch_standardise(zeros, zeros.mean()).tolist() == [0.0] * 3


def slow_kept_logprob(logits: Floats, token: int, temperature: float, kept: int, bias: Floats) -> float:
    biased = logits + bias
    allowed = set(np.argsort(-biased)[:kept].tolist()) | {token}
    weights = {index: np.exp(biased[index] / temperature) for index in allowed}
    return float(np.log(weights[token] / sum(weights.values())))


@pytest.mark.parametrize("kept", [1, 4, 11])
def test_kept_logprobs(kept: int) -> None:
    logits, tokens = rng(1).normal(size=(9, 11)) * 2, rng(2).integers(0, 11, 9)
    bias = np.zeros(11)
    bias[3] = 0.7
    found = objective.kept_logprobs(
        torch.from_numpy(logits),
        torch.from_numpy(tokens),
        temperature=0.7,
        kept=kept,
        padding_bias=torch.from_numpy(bias).float(),
    )
    expected = [slow_kept_logprob(row, token, 0.7, kept, bias) for row, token in zip(logits, tokens, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_kept_logprobs_are_those_of_the_sampler() -> None:
    """What rollouts store and what the update computes is one number."""
    logits = torch.from_numpy(rng(3).normal(size=(64, 40)) * 2).float()
    noise = -torch.empty(64, 9).exponential_(generator=torch.Generator().manual_seed(0)).log()
    settings = DrawSettings(
        temperature_text=torch.tensor(0.7),
        temperature_audio=torch.tensor(1.0),
        kept_text=torch.tensor(9),
        kept_audio=torch.tensor(9),
        padding_bias=torch.tensor(0.0),
    )
    tokens, drawn = draw(logits, noise, settings.temperature_text, settings.kept_text)
    found = objective.kept_logprobs(logits, tokens, temperature=0.7, kept=9, padding_bias=torch.zeros(40))
    torch.testing.assert_close(found, drawn)


def test_a_token_that_the_policy_would_cut_off_by_now_keeps_a_gradient() -> None:
    logits = torch.tensor([[5.0, 4.0, -1.0]], requires_grad=True)
    found = objective.kept_logprobs(logits, torch.tensor([2]), temperature=1.0, kept=2, padding_bias=torch.zeros(3))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert logits.grad is not None
    assert float(logits.grad[0, 2]) > 0.9


def test_exact_kl_and_entropy() -> None:
    logits, other = rng(4).normal(size=(2, 5, 8))

    def slow_softmax(row: Floats) -> Floats:
        return np.exp(row) / np.exp(row).sum()

    pairs = [(slow_softmax(a), slow_softmax(b)) for a, b in zip(logits, other, strict=True)]
    kl = [sum(p[i] * np.log(p[i] / q[i]) for i in range(8)) for p, q in pairs]
    ent = [-sum(p[i] * np.log(p[i]) for i in range(8)) for p, _ in pairs]
    found = objective.exact_kl(torch.from_numpy(logits), torch.from_numpy(other))
    np.testing.assert_allclose(found.numpy(), kl, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(objective.entropy(torch.from_numpy(logits)).numpy(), ent, rtol=1e-4)


def slow_surrogate(new: float, old: float, gain: float, low: float, high: float) -> tuple[float, bool]:
    ratio = np.exp(new - old)
    cut = min(max(ratio, 1 - low), 1 + high)
    return min(ratio * gain, cut * gain), (gain > 0 and ratio > 1 + high) or (gain < 0 and ratio < 1 - low)


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28)])
def test_clipped_surrogate(low: float, high: float) -> None:
    new, old, gains = rng(5).normal(size=(3, 200)) * 0.4
    expected = [slow_surrogate(*row, low, high) for row in zip(new, old, gains, strict=True)]
    arguments = [torch.from_numpy(item) for item in (new, old, gains)]
    found = objective.clipped_surrogate(*arguments, low=low, high=high)
    np.testing.assert_allclose(found.numpy(), [value for value, _ in expected])
    assert objective.is_clipped(*arguments, low=low, high=high).tolist() == [clipped for _, clipped in expected]
    assert any(clipped for _, clipped in expected)


def test_clipped_tokens_give_no_gradient() -> None:
    new = torch.tensor([0.5, 0.1, -0.5, -0.1], requires_grad=True)
    gains = torch.tensor([1.0, 1.0, -1.0, -1.0])
    objective.clipped_surrogate(new, torch.zeros(4), gains, low=0.2, high=0.2).sum().backward()
    assert new.grad is not None
    assert (new.grad != 0).tolist() == [False, True, False, True]


def test_token_mean_counts_each_rollout_alike() -> None:
    values = torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert objective.token_mean(values, mask).tolist() == [2.0, 5.0, 0.0]


def test_adapted_beta_steers_towards_the_target() -> None:
    limits = {"target": 0.01, "least": 1e-3, "most": 0.2}
    assert objective.adapted_beta(0.1, 0.05, **limits) == pytest.approx(0.1 * 1.1)
    assert objective.adapted_beta(0.1, 0.0, **limits) == pytest.approx(0.1 * 0.9)
    assert objective.adapted_beta(0.1, 0.0101, **limits) == pytest.approx(0.1 * 1.005)
    assert objective.adapted_beta(0.2, 1.0, **limits) == 0.2
    assert objective.adapted_beta(1e-3, 0.0, **limits) == 1e-3
    assert objective.adapted_beta(0.1, 5.0, target=0.0, least=0.0, most=1.0) == 0.1
