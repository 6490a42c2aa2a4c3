"""Prompt layout, and voice files from strangers."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lm_cases
from duologue.errors import ConfigError, WeightsError
from duologue.model.config import LMConfig
from duologue.model.personaplex import SILENCE_CODES, SINE_CODES, make_prompt, role_text
from duologue.model.voice_file import VoicePrompt, read_tensors, read_voice

CONFIG = LMConfig.moshi_7b()


def test_order_is_voice_silence_role_silence() -> None:
    voice = np.arange(8 * 5).reshape(8, 5)
    tokens = make_prompt(CONFIG, role_tokens=[7, 8, 9], voice_codes=voice).tokens
    assert tokens.shape == (5 + 6 + 3 + 6, 17)
    assert tokens[:, 0].tolist() == [3] * 11 + [7, 8, 9] + [3] * 6
    assert np.array_equal(tokens[:5, 1:9], voice.T)
    assert (tokens[5:, 1:9] == SILENCE_CODES).all()
    assert (tokens[:, 9:] == SINE_CODES).all()


def test_voice_file_frames_come_from_its_cache() -> None:
    cache = np.arange(17 * 4).reshape(17, 4)
    voice = VoicePrompt(embeddings=np.zeros((6, CONFIG.dim), np.float32), cache=cache)
    prompt = make_prompt(CONFIG, voice=voice)
    assert prompt.embeddings is voice.embeddings
    assert prompt.tokens.shape == (7 + 12, 17)
    # Frame 6 of a stream without delay is at position 6, in column 6 % 4; with delay 1 in column 7 % 4.
    assert (prompt.tokens[6, [0, 1, 9]] == cache[[0, 1, 9], 2]).all()
    assert (prompt.tokens[6, 2:9] == cache[2:9, 3]).all()
    assert (prompt.tokens[5, 10:] == cache[10:, 2]).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Be kind.", "<system> Be kind. <system>"),
        ("  Be kind. ", "<system> Be kind. <system>"),
        ("<system> Be kind. <system>", "<system> Be kind. <system>"),
        ("<system>", "<system> <system> <system>"),
    ],
)
def test_role_is_tagged_once(text: str, expected: str) -> None:
    assert role_text(text) == expected


def test_wrong_prompts_are_refused() -> None:
    with pytest.raises(ConfigError, match="8 \\+ 8 codebooks of 2048"):
        make_prompt(lm_cases.MOSHI_LIKE)
    with pytest.raises(ConfigError, match="role token 32000"):
        make_prompt(CONFIG, role_tokens=[32000])
    with pytest.raises(ConfigError, match="voice codes"):
        make_prompt(CONFIG, voice_codes=np.zeros((7, 3), int))
    voice = VoicePrompt(embeddings=np.zeros((6, CONFIG.dim), np.float32), cache=np.zeros((17, 4), np.int64))
    with pytest.raises(ConfigError, match="not both"):
        make_prompt(CONFIG, voice_codes=np.zeros((8, 3), int), voice=voice)


def archive(path: Path, parts: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(f"voice/{name}", content)
    return path


class Dangerous:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('executed')",))


def saved_by_torch(path: Path, values: Any) -> Path:
    torch = pytest.importorskip("torch")
    torch.save(values, path)
    return path


def test_reads_what_torch_saves(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "f": base,
        "transposed": base.T,
        "slice": base[1:3, 2:5],
        "bf16": base.bfloat16(),
        "half": base.half(),
        "long": torch.arange(5),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7.0),
        "gradient": torch.nn.Parameter(base).data.requires_grad_(True),
    }
    found = read_tensors(saved_by_torch(tmp_path / "v.pt", tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        expected = tensor.detach()
        expected = expected.float().numpy() if expected.is_floating_point() else expected.numpy()
        assert found[name].shape == expected.shape
        assert found[name].dtype == expected.dtype
        assert np.array_equal(found[name], expected), name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_in_a_voice_file_is_not_executed(protocol: int, tmp_path: Path) -> None:
    path = archive(tmp_path / "v.pt", {"data.pkl": pickle.dumps({"embeddings": Dangerous()}, protocol=protocol)})
    with pytest.raises(WeightsError, match=r"nothing is executed|instruction STACK_GLOBAL"):
        read_tensors(path)


def test_code_hidden_in_a_saved_dictionary_is_not_executed(tmp_path: Path) -> None:
    path = saved_by_torch(tmp_path / "v.pt", {"embeddings": Dangerous()})
    with pytest.raises(WeightsError, match=r"refers to '.*exec'"):
        read_tensors(path)


@pytest.mark.parametrize("values", [[1, 2], {"x": 1}, {"x": [1]}, {1: 2}, "text", {"x": {"y": 1}}])
def test_other_objects_are_refused(values: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        read_tensors(saved_by_torch(tmp_path / "v.pt", values))


def tensor_pickle(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *, count: int = 4) -> bytes:
    """A dictionary of one float tensor, as torch writes it, with a description of our choosing."""
    out = io.BytesIO()
    write = out.write
    write(
        b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    )
    write(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(count) + b"tQ" + number(offset))
    write(b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, strides)) + b"t\x89ccollections\n")
    write(b"OrderedDict\n)RtRs.")
    return out.getvalue()


def number(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def test_a_handmade_description_is_understood(tmp_path: Path) -> None:
    data = np.arange(4, dtype="<f4")
    path = archive(tmp_path / "v.pt", {"data.pkl": tensor_pickle(0, (2, 2), (1, 2)), "data/0": data.tobytes()})
    assert np.array_equal(read_tensors(path)["x"], data.reshape(2, 2).T)


@pytest.mark.parametrize(
    "description",
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (1 << 40,), (0,)),
        (0, (1 << 20,), (0,)),
        (1 << 60, (1,), (1,)),
    ],
)
def test_tensors_outside_their_storage_are_refused(description: Any, tmp_path: Path) -> None:
    parts = {"data.pkl": tensor_pickle(*description), "data/0": np.zeros(4, "<f4").tobytes()}
    with pytest.raises(WeightsError, match="not a dictionary of tensors"):
        read_tensors(archive(tmp_path / "v.pt", parts))


def test_archives_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = {"data.pkl": tensor_pickle(0, (4,), (1,)), "data/0": np.zeros(4, "<f4").tobytes()}
    path = tmp_path / "v.pt"
    with pytest.raises(WeightsError, match="compressed"):
        read_tensors(archive(path, good, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(WeightsError, match="lacks the part"):
        read_tensors(archive(path, {"data.pkl": good["data.pkl"]}))
    with pytest.raises(WeightsError, match="should have 4 values"):
        read_tensors(archive(path, {**good, "data/0": b"1234"}))
    with pytest.raises(WeightsError, match="big-endian"):
        read_tensors(archive(path, {**good, "byteorder": b"big"}))
    with pytest.raises(WeightsError, match="holds 0 pickles"):
        read_tensors(archive(path, {"other": b""}))
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError, match="cannot be read as a voice file"):
        read_tensors(path)
    with pytest.raises(WeightsError, match="cannot be read as a voice file"):
        read_tensors(tmp_path / "missing.pt")


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_pickle_crashes_the_walker(tmp_path_factory: pytest.TempPathFactory, noise: bytes, cut: int) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.pt"
    good = tensor_pickle(0, (4,), (1,))
    for content in (noise, good[:cut] + noise + good[cut:], good[:cut]):
        archive(path, {"data.pkl": content, "data/0": np.zeros(4, "<f4").tobytes()})
        try:
            read_tensors(path)
        except WeightsError:
            continue


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6), st.integers(0, 2000))
def test_no_damage_to_the_archive_crashes(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    parts = {"data.pkl": tensor_pickle(0, (4,), (1,)), "data/0": np.zeros(4, "<f4").tobytes()}
    data = bytearray(archive(path, parts).read_bytes())
    for place, value in edits:
        data[place % len(data)] = value
    path.write_bytes(bytes(data[: max(cut, 1)]))
    with contextlib.suppress(WeightsError):
        read_tensors(path)


def test_voice_files_of_another_model_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    good = {"embeddings": torch.zeros(3, 1, 1, CONFIG.dim), "cache": torch.zeros(1, 17, 4, dtype=torch.int64)}
    voice = read_voice(saved_by_torch(tmp_path / "v.pt", good), CONFIG)
    assert voice.embeddings.shape == (3, CONFIG.dim)
    assert voice.cache.shape == (17, 4)
    for change, message in (
        ({"embeddings": torch.zeros(3, 1, 1, 16)}, "expected \\(N, 1, 1, 4096\\)"),
        ({"cache": torch.zeros(1, 17, 5, dtype=torch.int64)}, "expected \\(1, 17, 4\\)"),
        ({"embeddings": torch.full((3, 1, 1, CONFIG.dim), float("nan"))}, "finite"),
        ({"embeddings": torch.zeros(0, 1, 1, CONFIG.dim)}, "at least one"),
    ):
        with pytest.raises(WeightsError, match=message):
            read_voice(saved_by_torch(tmp_path / "v.pt", good | change), CONFIG)
    with pytest.raises(WeightsError, match="expected 'embeddings' and 'cache'"):
        read_voice(saved_by_torch(tmp_path / "v.pt", {"cache": good["cache"]}), CONFIG)
