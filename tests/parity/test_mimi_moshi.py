"""Our Mimi against moshi's PyTorch one: small configurations, long input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from codec_cases import SMALL, TINY, decode_all, encode_all, recorded_frames, synthetic_frames, write_mimi
from duologue.codec import Mimi, MimiConfig
from duologue.codec.reference import MoshiCodec

torch = pytest.importorskip("torch")
loaders = pytest.importorskip("moshi.models").loaders

DURATION_S = 30.0

VARIANTS = {
    "dilated": replace(TINY, n_residual_layers=3, dilation_base=3),
    "no_residual_layers": replace(TINY, n_residual_layers=0),
    "convolved_skip": replace(TINY, true_skip=False, n_residual_layers=2),
    "no_layer_scale": replace(TINY, has_layer_scale=False),
    "projected_transformer": replace(TINY, d_model=48, num_heads=4),
    "odd_widths": replace(TINY, n_filters=6, dimension=37, d_model=44, num_heads=2, codebook_dim=9, cardinality=101),
    "two_semantic": replace(TINY, semantic_codebooks=2),
    "one_step_a_frame": replace(TINY, frame_rate_hz=25.0),
    "four_steps_a_frame": replace(TINY, frame_rate_hz=6.25, context=18),
    "other_strides": replace(TINY, ratios=(5, 4, 2), sample_rate_hz=16_000, frame_rate_hz=100.0, compress=4),
    "other_kernels": replace(TINY, kernel_size=5, residual_kernel_size=5, last_kernel_size=7),
    "short_period": replace(TINY, max_period=50.0, num_layers=2),
}


@pytest.fixture(scope="module")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimi(tmp_path_factory.mktemp("small"), SMALL)


def check_streaming(path: Path, config: MimiConfig, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    ours = Mimi.load(path, config=config).stream()
    theirs = MoshiCodec(path, config=config)
    codes = encode_all(ours, frames)
    expected = encode_all(theirs, frames)
    assert np.mean(codes == expected) >= 0.999
    np.testing.assert_allclose(decode_all(ours, expected), decode_all(theirs, expected), rtol=0, atol=1e-4)
    return codes


def test_streams_like_moshi_on_synthetic_speech(small_path: Path) -> None:
    codes = check_streaming(small_path, SMALL, synthetic_frames(DURATION_S))
    assert min(len(np.unique(column)) for column in codes.T) >= 100


def test_streams_like_moshi_on_recorded_speech(small_path: Path, shared_dir: Path) -> None:
    frames = recorded_frames(shared_dir / "data" / "real_calls" / "call49_caller.wav", DURATION_S)
    codes = check_streaming(small_path, SMALL, frames)
    assert min(len(np.unique(column)) for column in codes.T) >= 100


def test_exact_window_is_moshi_offline(small_path: Path) -> None:
    frames = synthetic_frames(DURATION_S)
    stream = Mimi.load(small_path, config=SMALL).stream(window="exact")
    model = loaders.get_mimi(str(small_path), SMALL.to_dict(), num_codebooks=8)
    with torch.inference_mode():
        expected = model.encode(torch.from_numpy(frames.reshape(1, 1, -1)))
        pcm = model.decode(expected)[0, 0].numpy()
    codes = expected[0].T.numpy().astype(np.int32)
    assert np.mean(encode_all(stream, frames) == codes) >= 0.999
    np.testing.assert_allclose(decode_all(stream, codes).ravel(), pcm, rtol=0, atol=1e-4)


def test_windows_differ_once_the_context_is_full(small_path: Path) -> None:
    frames = synthetic_frames(14.0)
    mimi = Mimi.load(small_path, config=SMALL)
    streams = [mimi.stream(window=window) for window in ("moshi", "exact", "rustymimi")]
    latents = np.stack([[stream.latent_step(frame) for frame in frames] for stream in streams])
    full = SMALL.context // SMALL.steps_per_frame
    for a, b in ((0, 1), (0, 2), (1, 2)):
        np.testing.assert_array_equal(latents[a, : full - 1], latents[b, : full - 1])
        assert np.abs(latents[a, full + 1 :] - latents[b, full + 1 :]).max() > 1e-4


@pytest.mark.parametrize("name", VARIANTS)
def test_any_configuration(name: str, tmp_path: Path) -> None:
    config = VARIANTS[name]
    check_streaming(write_mimi(tmp_path, config), config, synthetic_frames(4.0, config))


@pytest.mark.parametrize("num_codebooks", [1, 2, 10])
def test_any_number_of_codebooks(num_codebooks: int, tmp_path: Path) -> None:
    path = write_mimi(tmp_path)
    frames = synthetic_frames(2.0)
    ours = Mimi.load(path, config=TINY, num_codebooks=num_codebooks).stream()
    theirs = MoshiCodec(path, config=TINY, num_codebooks=num_codebooks)
    codes = encode_all(ours, frames)
    assert codes.shape[1] == num_codebooks
    np.testing.assert_array_equal(codes, encode_all(theirs, frames))
    np.testing.assert_allclose(decode_all(ours, codes), decode_all(theirs, codes), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_late_positions_still_agree(tmp_path: Path) -> None:
    """Six and a half minutes in, past the end of rustymimi's tables."""
    path = write_mimi(tmp_path)
    frames = synthetic_frames(20.0)
    ours = Mimi.load(path, config=TINY).stream()
    theirs = MoshiCodec(path, config=TINY)
    for _ in range(20):
        codes, expected = encode_all(ours, frames), encode_all(theirs, frames)
    assert np.mean(codes == expected) >= 0.999
