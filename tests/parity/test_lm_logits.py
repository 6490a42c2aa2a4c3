"""Teacher-forced logits against moshi 0.2.13."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("moshi")

from safetensors.torch import load_file  # noqa: E402

import lm_cases  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue.model.load import load_model  # noqa: E402

TOLERANCE = 1e-5
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def largest_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    assert torch.equal(found.isnan(), expected.isnan())
    return float((found - expected).nan_to_num().abs().max())


def test_kyutai_fixture(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures" / "moshi_tiny_lm"
    checkpoint = Checkpoint.open(folder / "test_lm_model.safetensors", config=lm_cases.KYUTAI_TINY)
    expected = load_file(folder / "test_lm_out.safetensors")
    with torch.no_grad():
        output = load_model(checkpoint)(load_file(folder / "test_lm_codes.safetensors")["codes"])
    assert torch.equal(output.mask, expected["mask"])
    assert torch.equal(output.text_mask, expected["text_mask"])
    # The fixture stores zeros where moshi's own test masks.
    found, text = output.logits[output.mask], output.text_logits[output.text_mask]
    assert largest_difference(found, expected["logits"][output.mask]) <= TOLERANCE
    assert largest_difference(text, expected["text_logits"][output.text_mask]) <= TOLERANCE


@pytest.mark.parametrize("shape", lm_cases.SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_random_models(shape: str, seed: int, tmp_path: Path) -> None:
    config = lm_cases.SHAPES[shape]
    reference = lm_cases.moshi_model(config, seed=seed)
    model = load_model(lm_cases.checkpoint_of(reference, config, tmp_path / "model.safetensors"))
    codes = torch.randint(0, config.card, (2, config.num_streams, 25))
    codes[1, :, 20:] = -1
    with torch.no_grad():
        expected, output = reference(codes), model(codes)
    assert torch.equal(output.mask, expected.mask)
    assert torch.equal(output.text_mask, expected.text_mask)
    assert largest_difference(output.logits, expected.logits) <= TOLERANCE
    assert largest_difference(output.text_logits, expected.text_logits) <= TOLERANCE


def test_gradients_reach_every_weight(tmp_path: Path) -> None:
    config = lm_cases.MOSHI_LIKE
    reference = lm_cases.moshi_model(config)
    model = load_model(lm_cases.checkpoint_of(reference, config, tmp_path / "model.safetensors")).train()
    codes = torch.randint(0, config.card, (2, config.num_streams, 12))

    def loss_of(output: object) -> torch.Tensor:
        return output.logits[output.mask].logsumexp(-1).mean() + output.text_logits[output.text_mask].square().mean()

    loss_of(model(codes)).backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    assert all(grad.abs().max() > 0 for grad in plain.values())
    model.zero_grad()
    model.transformer.checkpointing = model.depformer.checkpointing = True
    loss_of(model(codes)).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, plain[name], atol=1e-6), name
