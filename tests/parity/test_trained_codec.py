"""The trainable Mimi writes files that moshi and the native codec read as the same codec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
loaders = pytest.importorskip("moshi.models.loaders")

from duologue.codec import Mimi, MimiConfig  # noqa: E402
from duologue.errors import ConfigError, WeightsError  # noqa: E402
from duologue_align.codec.network import MimiNetwork, evaluating  # noqa: E402
from duologue_align.codec.weights import CONFIG_NAME, WEIGHTS_NAME, load_mimi, released_tensors, save_mimi  # noqa: E402

SMALL = MimiConfig(
    n_filters=8,
    dimension=48,
    d_model=48,
    num_heads=3,
    num_layers=2,
    dim_feedforward=96,
    codebook_dim=16,
    cardinality=64,
    total_codebooks=8,
)
FRAMES = 40


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sound(frames: int, seed: int = 0) -> torch.Tensor:
    """Return noise in bursts of different colours, shape [1, 1, T]."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(frames * 1920)
    slow = np.repeat(rng.uniform(0, 0.3, frames * 4), 480)
    tone = np.sin(np.cumsum(np.repeat(rng.uniform(0.02, 0.4, frames * 2), 960)))
    return torch.from_numpy(((0.3 * noise + tone) * slow).astype(np.float32))[None, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec with started codebooks and layer scales that let the transformers matter."""
    torch.manual_seed(0)
    network = MimiNetwork(SMALL, layer_scale=0.3).eval()
    with evaluating(network):
        latents = network.latents(sound(400, seed=1))[0].T
    network.quantizer.start(latents, torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("codec")
    save_mimi(network, path)
    return path


@pytest.fixture(scope="module")
def reference(folder: Path) -> object:
    config = MimiConfig.from_file(folder / CONFIG_NAME)
    return loaders.get_mimi(folder / WEIGHTS_NAME, config.to_dict(), num_codebooks=8)


def test_codes_and_samples_equal_moshis_offline(folder: Path, reference: object) -> None:
    network, pcm = load_mimi(folder), sound(FRAMES)
    codes = network.encode(pcm)
    with torch.no_grad():
        assert torch.equal(codes, reference.encode(pcm))  # type: ignore[attr-defined]
        theirs = reference.decode(codes)  # type: ignore[attr-defined]
    assert codes.shape == (1, 8, FRAMES)
    assert all(len(codes[0, k].unique()) > 5 for k in range(8))
    ours = network.decode(codes)
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() < 1e-4


def test_more_than_the_context_equals_moshis_offline(folder: Path, reference: object) -> None:
    """Beyond 250 transformer steps the window cuts the oldest keys off."""
    network, pcm = load_mimi(folder), sound(150, seed=3)
    codes = network.encode(pcm)
    with torch.no_grad():
        assert torch.equal(codes, reference.encode(pcm))  # type: ignore[attr-defined]


def test_the_native_stream_gives_the_same_codes_and_samples(folder: Path) -> None:
    network, pcm = load_mimi(folder), sound(FRAMES)
    codes = network.encode(pcm)
    samples = network.decode(codes)[0, 0].numpy()
    stream = Mimi.load(folder / WEIGHTS_NAME, config=SMALL).stream()
    for t in range(FRAMES):
        frame = pcm[0, 0, t * 1920 : (t + 1) * 1920].numpy()
        np.testing.assert_array_equal(stream.encode_step(frame), codes[0, :, t].numpy())
        decoded = stream.decode_step(codes[0, :, t].numpy().astype(np.int32))
        assert np.abs(decoded - samples[t * 1920 : (t + 1) * 1920]).max() < 1e-4


def test_float16_weights_are_the_same_codec_for_every_reader(folder: Path, tmp_path: Path) -> None:
    save_mimi(load_mimi(folder), tmp_path, dtype="float16")
    assert (tmp_path / WEIGHTS_NAME).stat().st_size < 0.6 * (folder / WEIGHTS_NAME).stat().st_size
    network, pcm = load_mimi(tmp_path), sound(FRAMES)
    codes = network.encode(pcm)
    mimi = loaders.get_mimi(tmp_path / WEIGHTS_NAME, SMALL.to_dict(), num_codebooks=8)
    stream = Mimi.load(tmp_path / WEIGHTS_NAME, config=SMALL).stream()
    with torch.no_grad():
        assert torch.equal(codes, mimi.encode(pcm))
    for t in range(FRAMES):
        frame = pcm[0, 0, t * 1920 : (t + 1) * 1920].numpy()
        np.testing.assert_array_equal(stream.encode_step(frame), codes[0, :, t].numpy())


def test_training_forward_equals_encode_then_decode(folder: Path) -> None:
    from duologue_align.codec.quantizer import Dropout

    network, pcm = load_mimi(folder), sound(12)
    everything = Dropout(kept=torch.tensor([8]), is_bypassed=torch.tensor([False]))
    with torch.no_grad():
        output, _, quantized = network(pcm, everything)
    assert quantized is not None
    assert torch.equal(quantized.codes, network.encode(pcm))
    assert (output - network.decode(quantized.codes)).abs().max() < 1e-4


def test_the_released_shape_gives_the_released_names_and_shapes(shared_dir: Path) -> None:
    """So whatever reads the released file (rustymimi among them) reads ours of that size."""
    with torch.device("meta"):
        network = MimiNetwork(MimiConfig())
    network = network.to_empty(device="cpu")
    ours = {name: list(tensor.shape) for name, tensor in released_tensors(network).items()}
    lines = (shared_dir / "fixtures" / "mimi_tensors_released.txt").read_text().splitlines()
    found = (re.fullmatch(r"(\S+) \(([\d, ]*)\) F32", line) for line in lines)
    theirs = {row[1]: [int(size) for size in row[2].split(",") if size] for row in found if row}
    assert len(theirs) == 318
    assert ours == theirs


def test_weights_that_are_not_finite_are_refused(folder: Path, tmp_path: Path) -> None:
    network = load_mimi(folder)
    network.decoder.model[0].conv["conv"].bias.data[0] = 1e6
    with pytest.raises(WeightsError, match=r"decoder\.model\.0.*not finite in float16"):
        save_mimi(network, tmp_path, dtype="float16")
    with pytest.raises(ConfigError, match="float32 or float16"):
        save_mimi(network, tmp_path, dtype="int8")
    with pytest.raises(ConfigError, match="cannot read"):
        load_mimi(tmp_path)


def test_weights_of_another_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / CONFIG_NAME).read_text().replace('"bins": 64', '"bins": 32')
    (tmp_path / CONFIG_NAME).write_text(text)
    (tmp_path / WEIGHTS_NAME).write_bytes((folder / WEIGHTS_NAME).read_bytes())
    with pytest.raises(WeightsError, match="does not fit"):
        load_mimi(tmp_path)
