"""Untrained weights: deterministic, audible, diverse; and the signal that calibrates them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codec_cases import SMALL, TINY, decode_all, encode_all, synthetic_frames, write_mimi
from duologue.codec import Mimi
from duologue.codec.speechlike import speechlike
from duologue.codec.untrained import make_untrained_mimi, write_untrained_mimi
from duologue.errors import WeightsError


def test_same_seed_same_tensors() -> None:
    first, again, other = (make_untrained_mimi(TINY, seed=seed) for seed in (4, 4, 5))
    assert first.keys() == again.keys() == other.keys()
    for name, value in first.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, again[name])
    assert any(not np.array_equal(value, other[name]) for name, value in first.items())


def test_small_codec_is_diverse_and_audible(tmp_path: Path) -> None:
    stream = Mimi.load(write_mimi(tmp_path, SMALL), config=SMALL).stream()
    codes = encode_all(stream, synthetic_frames(30.0))
    assert min(len(np.unique(column)) for column in codes.T) >= 100
    pcm = decode_all(stream, codes)
    assert 0.05 < np.sqrt(np.mean(pcm**2)) < 0.2
    assert np.abs(pcm).max() < 1.0


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot write"):
        write_untrained_mimi(tmp_path / "missing" / "mimi.safetensors", TINY)


def test_speechlike_signal() -> None:
    pcm = speechlike(12.0, seed=1)
    assert (pcm.shape, pcm.dtype) == ((288_000,), np.float32)
    assert np.abs(pcm).max() <= 1.0
    assert 0.05 < np.sqrt(np.mean(pcm**2)) < 0.15
    np.testing.assert_array_equal(pcm, speechlike(12.0, seed=1))
    loudness = np.sqrt(np.mean(pcm.reshape(-1, 720) ** 2, axis=1))
    assert np.quantile(loudness, 0.02) < 0.1 * np.quantile(loudness, 0.95)
