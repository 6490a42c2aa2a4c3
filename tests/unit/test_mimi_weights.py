"""Weight files: what is accepted, and how everything else is refused."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from codec_cases import TINY, encode_all, synthetic_frames, write_mimi
from duologue.codec import Mimi
from duologue.errors import DuologueError, WeightsError

Tensors = dict[str, npt.NDArray[np.float32]]
LAYER = "encoder_transformer.transformer.layers.0."
CODEBOOK = "quantizer.rvq_rest.vq.layers.2._codebook."


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimi(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tensors(path: Path) -> Tensors:
    return load_file(path)


def rewritten(tensors: Tensors, folder: Path, edit: Callable[[Tensors], None]) -> Path:
    changed = {name: value.copy() for name, value in tensors.items()}
    edit(changed)
    save_file(changed, folder / "edited.safetensors")
    return folder / "edited.safetensors"


def test_missing_tensor(tensors: Tensors, tmp_path: Path) -> None:
    def edit(t: Tensors) -> None:
        del t[f"{LAYER}norm1.bias"]

    path = rewritten(tensors, tmp_path, edit)
    with pytest.raises(WeightsError, match=r"tensor '.*layers\.0\.norm1\.bias' is missing; expected shape \[32\]"):
        Mimi.load(path, config=TINY)


def test_wrong_shape(tensors: Tensors, tmp_path: Path) -> None:
    def edit(t: Tensors) -> None:
        t["encoder.model.3.conv.conv.weight"] = np.zeros((16, 8, 7), np.float32)

    path = rewritten(tensors, tmp_path, edit)
    expected = r"tensor 'encoder\.model\.3\.conv\.conv\.weight': expected shape \[16, 8, 8\], found \[16, 8, 7\]"
    with pytest.raises(WeightsError, match=expected):
        Mimi.load(path, config=TINY)


def test_unknown_tensor(tensors: Tensors, tmp_path: Path) -> None:
    def edit(t: Tensors) -> None:
        t["encoder.model.99.bias"] = np.zeros(3, np.float32)

    path = rewritten(tensors, tmp_path, edit)
    with pytest.raises(WeightsError, match=r"tensor 'encoder\.model\.99\.bias' \[3\] has no place"):
        Mimi.load(path, config=TINY)


def test_another_configuration(path: Path) -> None:
    with pytest.raises(WeightsError, match=r"layers\.1\..*is missing"):
        Mimi.load(path, config=replace(TINY, num_layers=2))
    with pytest.raises(WeightsError, match=r"layers\.8\..*has no place"):
        Mimi.load(path, config=replace(TINY, total_codebooks=9))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tensors: Tensors, tmp_path: Path, value: float) -> None:
    def edit(t: Tensors) -> None:
        t[f"{LAYER}linear1.weight"][5, 7] = value

    path = rewritten(tensors, tmp_path, edit)
    with pytest.raises(WeightsError, match=r"linear1\.weight': expected finite values"):
        Mimi.load(path, config=TINY)


def test_whole_numbers(tensors: Tensors, tmp_path: Path) -> None:
    def edit(t: Tensors) -> None:
        t[f"{LAYER}norm1.bias"] = np.zeros(32, np.int32)  # type: ignore[assignment]

    path = rewritten(tensors, tmp_path, edit)
    with pytest.raises(WeightsError, match=r"norm1\.bias': expected F32, F16 or BF16, found I32"):
        Mimi.load(path, config=TINY)


def test_half_precision_is_converted(tensors: Tensors, tmp_path: Path) -> None:
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    save_file(halves, tmp_path / "half.safetensors")
    save_file({name: value.astype(np.float32) for name, value in halves.items()}, tmp_path / "full.safetensors")
    frames = synthetic_frames(1.0)
    found, expected = (
        np.stack([stream.latent_step(frame) for frame in frames])
        for stream in (Mimi.load(tmp_path / f"{name}.safetensors", config=TINY).stream() for name in ("half", "full"))
    )
    np.testing.assert_array_equal(found, expected)


def test_bfloat16_is_converted(tensors: Tensors, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    halves = {name: torch.from_numpy(value).bfloat16() for name, value in tensors.items()}
    save_torch(halves, tmp_path / "half.safetensors")
    save_torch({name: value.float() for name, value in halves.items()}, tmp_path / "full.safetensors")
    codes = [
        encode_all(Mimi.load(tmp_path / f"{name}.safetensors", config=TINY).stream(), synthetic_frames(1.0))
        for name in ("half", "full")
    ]
    np.testing.assert_array_equal(codes[0], codes[1])


def test_other_names_of_the_same_tensors(path: Path, tensors: Tensors, tmp_path: Path) -> None:
    def edit(t: Tensors) -> None:
        t[f"{LAYER}self_attn.in_projs.0.weight"] = t.pop(f"{LAYER}self_attn.in_proj_weight")
        t[f"{LAYER}self_attn.out_projs.0.weight"] = t.pop(f"{LAYER}self_attn.out_proj.weight")
        t[f"{CODEBOOK}inited"] = t.pop(f"{CODEBOOK}_initialized")
        t[f"{CODEBOOK}cluster_size"] = t.pop(f"{CODEBOOK}cluster_usage")
        t[f"{CODEBOOK}embed_avg"] = t.pop(f"{CODEBOOK}embedding_sum")

    renamed = rewritten(tensors, tmp_path, edit)
    frames = synthetic_frames(1.0)
    found, expected = (encode_all(Mimi.load(file, config=TINY).stream(), frames) for file in (renamed, path))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("length", [0, 7, 8, 100, 5000, -1])
def test_truncated_file(path: Path, tmp_path: Path, length: int) -> None:
    content = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(content[: length if length >= 0 else len(content) - 1])
    with pytest.raises(WeightsError, match=r"cut\.safetensors: .*(truncated|too short)"):
        Mimi.load(cut, config=TINY)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot open: No such file"):
        Mimi.load(tmp_path / "missing.safetensors", config=TINY)
    with pytest.raises(WeightsError, match="not a file"):
        Mimi.load(tmp_path, config=TINY)
    wave = tmp_path / "x.safetensors"
    wave.write_bytes(b"RIFF" + bytes(5000))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        Mimi.load(wave, config=TINY)


def test_a_damaged_header_never_crashes(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    json.loads(content[8 : 8 + length])
    chance = random.Random(5)
    file = tmp_path / "damaged.safetensors"
    refusals: list[DuologueError] = []
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(8 + length)] = chance.randrange(256)
        file.write_bytes(damaged)
        try:
            Mimi.load(file, config=TINY)
        except DuologueError as error:
            refusals.append(error)
    assert len(refusals) > 100
    assert all(isinstance(error, WeightsError) and str(file) in str(error) for error in refusals)
