"""The quantiser's codebooks: start, moving averages, restart, dropout and gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from duologue.codec import MimiConfig  # noqa: E402
from duologue_align.codec.codebook import Codebook  # noqa: E402
from duologue_align.codec.quantizer import Dropout, SplitQuantizer  # noqa: E402

CONFIG = MimiConfig(dimension=12, d_model=12, codebook_dim=6, cardinality=16, total_codebooks=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def started() -> SplitQuantizer:
    torch.manual_seed(0)
    quantizer = SplitQuantizer(CONFIG)
    quantizer.start(torch.randn(400, 12, generator=generator(1)), generator(2))
    return quantizer


def latents(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 12, 5, generator=generator(3))


def everything(batch: int = 3, **changes: torch.Tensor) -> Dropout:
    values = {"kept": torch.full((batch,), 4), "is_bypassed": torch.zeros(batch, dtype=torch.bool)}
    return Dropout(**(values | changes))


def test_k_means_finds_well_separated_clusters() -> None:
    centres = torch.randn(8, 4, generator=generator()) * 20
    vectors = centres.repeat(50, 1) + 0.1 * torch.randn(400, 4, generator=generator(1))
    book = Codebook(32, 4)
    book.start(vectors, generator(2))
    assert float(book._initialized) == 1.0
    distance = torch.cdist(centres, book.embedding).min(dim=1).values
    assert float(distance.max()) < 0.5
    assert torch.equal(book.nearest(book.embedding), torch.arange(32))


def test_moving_average_ends_at_the_mean_of_what_chose_an_entry() -> None:
    book = Codebook(2, 3)
    book.embedding_sum.copy_(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]))
    vectors = torch.tensor([[2.0, 1, 0], [4.0, 1, 0], [-3.0, 0, 0]])
    for _ in range(200):
        book.learn(vectors, book.nearest(vectors), decay=0.9)
    torch.testing.assert_close(book.embedding, torch.tensor([[3.0, 1, 0], [-3.0, 0, 0]]))
    torch.testing.assert_close(book.cluster_usage, torch.tensor([2.0, 1.0]))


def test_entries_nobody_chooses_are_put_onto_data() -> None:
    book = Codebook(4, 2)
    book.embedding_sum.copy_(torch.tensor([[0.0, 0], [1, 1], [900, 900], [-900, 900]]))
    book.cluster_usage.copy_(torch.tensor([1.0, 1.0, 0.001, 0.002]))
    before = book.embedding.clone()
    vectors = torch.rand(50, 2, generator=generator())
    assert int(book.restart(vectors, 0.1, generator(1))) == 2
    torch.testing.assert_close(book.embedding[:2], before[:2])
    assert bool(((book.embedding[2:] >= 0) & (book.embedding[2:] <= 1)).all())
    assert int(book.restart(vectors, 0.1, generator(1))) == 0


def test_decode_of_codes_is_what_the_decoder_reads_in_training() -> None:
    quantizer, x = started(), latents()
    quantized = quantizer(x, everything())
    torch.testing.assert_close(quantized.latents, quantizer.decode(quantized.codes))
    assert torch.equal(quantized.codes, quantizer.encode(x))
    assert quantized.codes.shape == (3, 4, 5)


def test_more_codebooks_code_more_closely() -> None:
    """Each acoustic codebook codes what the ones before it left over."""
    chain, x = started().rvq_rest, torch.randn(1, 12, 300, generator=generator(5))
    vectors = chain.residuals(x, chain.encode(x))
    norms = [float(residual.square().mean()) for residual in vectors]
    assert norms[0] > 1.3 * norms[1] > 1.5 * norms[2]


def test_dropout_keeps_the_first_codebooks_of_each_clip() -> None:
    quantizer, x = started(), latents()
    kept = quantizer(x, everything(kept=torch.tensor([1, 2, 4])))
    full = quantizer(x, everything())
    assert torch.equal(kept.codes, full.codes)
    torch.testing.assert_close(kept.latents[0], quantizer.rvq_first.decode(full.codes[:, :1])[0])
    both = quantizer.rvq_first.decode(full.codes[:, :1]) + quantizer.rvq_rest.output_proj(
        quantizer.rvq_rest.codebooks[0].lookup(full.codes[:, 1]).transpose(1, 2)
    )
    torch.testing.assert_close(kept.latents[1], both[1])
    torch.testing.assert_close(kept.latents[2], full.latents[2])


def test_bypassed_clips_are_projected_but_not_quantised() -> None:
    quantizer, x = started(), latents()
    mixed = quantizer(x, everything(is_bypassed=torch.tensor([True, False, False])))
    chains = (quantizer.rvq_first, quantizer.rvq_rest)
    expected = sum(chain.output_proj(chain.input_proj(x)) for chain in chains)
    torch.testing.assert_close(mixed.latents[0], expected[0])
    torch.testing.assert_close(mixed.latents[1:], quantizer(x, everything()).latents[1:])


def test_gradients_pass_straight_through_and_commitment_pulls_towards_the_entries() -> None:
    quantizer = started()
    x = latents().requires_grad_()
    quantized = quantizer(x, everything())
    (gradient,) = torch.autograd.grad(quantized.latents.sum(), x, retain_graph=True)
    chains = (quantizer.rvq_first, quantizer.rvq_rest)
    slopes = sum(chain.output_proj.weight[:, :, 0].sum(0) @ chain.input_proj.weight[:, :, 0] for chain in chains)
    torch.testing.assert_close(gradient[0, :, 0], slopes)
    (pull,) = torch.autograd.grad(quantized.commitment, x)
    with torch.no_grad():
        nearer = quantizer(x - 0.05 * pull / pull.norm(), everything())
    assert nearer.commitment < quantized.commitment.detach()


def test_learning_lowers_the_distance_to_the_data() -> None:
    quantizer = started()
    x = 3 * torch.randn(40, 12, 10, generator=generator(7))
    distances = []
    for step in range(60):
        with torch.no_grad():
            quantized = quantizer(x, Dropout(kept=torch.full((40,), 4), is_bypassed=torch.zeros(40, dtype=torch.bool)))
        distances.append(quantized.commitment.item())
        quantizer.learn(x, quantized.codes, decay=0.8, restart_below=0.1, generator=generator(step))
    assert distances[-1] < 0.6 * distances[0]
    assert all(len(quantized.codes[:, k].unique()) == 16 for k in range(4))


def test_a_codebook_started_from_many_vectors_follows_small_batches() -> None:
    """The encoder moves on after the start; entries that weigh thousands of vectors would be left behind."""
    vectors = torch.randn(2000, 4, generator=generator())
    book = Codebook(16, 4)
    book.start(vectors, generator(1), per_step=20)
    assert float(book.cluster_usage.sum()) == pytest.approx(20.0)
    for step in range(100):
        batch = torch.randn(20, 4, generator=generator(step)) + 3.0
        codes = book.nearest(batch)
        book.learn(batch, codes, decay=0.9)
        if step % 5 == 0:
            book.restart(batch, 0.1, generator(step))
    assert len(book.nearest(torch.randn(400, 4, generator=generator(7)) + 3.0).unique()) == 16
