"""Model folders: every form that is read, and every defect that is refused by name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import lm_cases
from duologue.config import Sampling
from duologue.errors import ConfigError, WeightsError
from duologue.model import hub
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig
from duologue.model.layout import canonical_name, linear_slots, tensor_shapes, with_slices
from duologue.model.storage import MAX_HEADER_BYTES, read_index
from duologue.untrained import random_weights

CONFIG = lm_cases.MOSHI_LIKE
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def weights() -> Arrays:
    return random_weights(CONFIG, seed=0)


def write_folder(folder: Path, tensors: Arrays, config: LMConfig | None = CONFIG, **keys: Any) -> Path:
    folder.mkdir(exist_ok=True)
    if tensors:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors")
    if config is not None or keys:
        stated = config.to_dict() if config is not None else {}
        (folder / "config.json").write_text(json.dumps({**stated, **keys}))
    return folder


def split_attention(tensors: Arrays, config: LMConfig) -> Arrays:
    """Rename to moshi's newer layout: one tensor per linear layer."""
    renamed = {name: value for name, value in tensors.items() if "_proj" not in name}
    for module, slot in linear_slots(config).items():
        if "_projs." in module:
            renamed[f"{module}.weight"] = tensors[slot.tensor][slot.row : slot.row + slot.out_features]
    return renamed


def assert_holds(checkpoint: Checkpoint, tensors: Arrays) -> None:
    assert set(checkpoint.tensors) == set(tensors)
    for name, value in tensors.items():
        assert np.array_equal(checkpoint.numpy(name), value), name


@pytest.mark.parametrize(
    ("fixture", "config"),
    [
        ("lm_tensors_moshi_depq8.txt", LMConfig.moshi_7b()),
        ("lm_tensors_personaplex_depq16.txt", with_slices(LMConfig.moshi_7b(), 16)),
    ],
)
def test_layout_is_the_released_one(shared_dir: Path, fixture: str, config: LMConfig) -> None:
    released = {}
    for line in (shared_dir / "fixtures" / fixture).read_text().splitlines():
        name, _, rest = line.partition(" (")
        released[name] = tuple(int(size) for size in rest.split(")")[0].split(",") if size.strip())
    assert tensor_shapes(config) == released


def test_lora_addresses_every_linear_layer_of_moshi() -> None:
    assert 2 * len(linear_slots(LMConfig.moshi_7b())) == 674


def test_reads_released_and_newer_names(weights: Arrays, tmp_path: Path) -> None:
    old = Checkpoint.open(write_folder(tmp_path / "old", weights))
    new = Checkpoint.open(write_folder(tmp_path / "new", split_attention(weights, CONFIG)))
    assert_holds(old, weights)
    assert_holds(new, weights)
    name = "depformer.layers.0.self_attn.in_proj_weight"
    assert old.tensors[name].is_contiguous
    assert len(new.tensors[name].blocks) == CONFIG.dep_q
    assert old.config == CONFIG


def test_a_model_says_how_it_is_to_be_sampled(weights: Arrays, tmp_path: Path) -> None:
    assert Checkpoint.open(write_folder(tmp_path / "plain", weights)).sampling == Sampling()
    stated = {"temp": 0.6, "temp_text": 1, "top_k_text": 50, "cfg_coef": 1.0}
    found = Checkpoint.open(write_folder(tmp_path / "own", weights, lm_gen_config=stated)).sampling
    assert found == Sampling(temperature_audio=0.6, temperature_text=1, top_k_text=50)
    for number, wrong in enumerate([{"temp": "warm"}, [0.7]]):
        bad = Checkpoint.open(write_folder(tmp_path / f"bad{number}", weights, lm_gen_config=wrong))
        with pytest.raises(ConfigError, match=r"temperature_audio|lm_gen_config"):
            _ = bad.sampling


def test_byte_ranges_point_at_the_values(weights: Arrays, tmp_path: Path) -> None:
    ref = Checkpoint.open(write_folder(tmp_path / "m", weights)).tensors["text_linear.weight"]
    data = ref.path.read_bytes()[ref.offset : ref.offset + ref.nbytes]
    assert np.array_equal(np.frombuffer(data, "<f4").reshape(ref.shape), weights["text_linear.weight"])


def test_reads_shards(weights: Arrays, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", {})
    names = sorted(weights)
    weight_map = {name: f"part-{index % 3}.safetensors" for index, name in enumerate(names)}
    for part in set(weight_map.values()):
        save_file({name: weights[name] for name in names if weight_map[name] == part}, folder / part)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert_holds(Checkpoint.open(folder), weights)
    assert_holds(Checkpoint.open(index), weights)
    (folder / "part-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"part-1\.safetensors"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_reads_half_precision(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((5, 7), dtype=np.float32)
    if dtype == "BF16":
        stored = (values.view(np.uint32) >> 16).astype("<u2")
        expected = (stored.astype(np.uint32) << 16).view(np.float32)
    else:
        stored = values.astype("<f2")
        expected = stored.astype(np.float32)
    path = raw_file(tmp_path, {"x": {"dtype": dtype, "shape": [5, 7], "data_offsets": [0, 70]}}, stored.tobytes())
    assert np.array_equal(read_index(path)["x"].read_float32(), expected)


@pytest.mark.parametrize("stated", [8, 16, None])
def test_personaplex_shows_the_agents_eight_slices(stated: int | None, tmp_path: Path) -> None:
    full = with_slices(CONFIG, 16)
    tensors = random_weights(full, seed=1)
    config = None if stated is None else with_slices(CONFIG, stated)
    folder = write_folder(tmp_path / "m", tensors, config, model_type="personaplex", version="7b-v1")
    if stated is None:
        # Without a shape in config.json the released 7B is assumed, and this small model is not one.
        with pytest.raises(WeightsError, match=r"'emb\.0\.weight' has shape \(25, 32\); expected \(2049, 4096\)"):
            Checkpoint.open(folder)
        return
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.config == CONFIG
    assert checkpoint.tensors.keys() == tensor_shapes(CONFIG).keys()
    name = "depformer.layers.1.self_attn.in_proj_weight"
    assert np.array_equal(checkpoint.numpy(name), tensors[name][: tensor_shapes(CONFIG)[name][0]])
    assert np.array_equal(checkpoint.numpy("linears.7.weight"), tensors["linears.7.weight"])


def test_a_model_without_user_streams_keeps_all_slices(shared_dir: Path) -> None:
    path = shared_dir / "fixtures" / "moshi_tiny_lm" / "test_lm_model.safetensors"
    checkpoint = Checkpoint.open(path, config=lm_cases.KYUTAI_TINY)
    assert checkpoint.config.dep_q == 3
    assert checkpoint.mimi_path is None


def lora_file(path: Path, config: LMConfig, *, rank: int = 3, packed: bool = False) -> Arrays:
    random = np.random.default_rng(5)
    tensors = {}
    for module, slot in linear_slots(config).items():
        tensors[f"{module}.lora_A.weight"] = random.standard_normal((rank, slot.in_features), dtype=np.float32)
        tensors[f"{module}.lora_B.weight"] = random.standard_normal((slot.out_features, rank), dtype=np.float32)
    stored = dict(tensors)
    if packed:
        for name in [name for name in tensors if "_projs.0." in name]:
            stem, _, side = name.partition("_projs.0.")
            parts = [
                stored.pop(f"{stem}_projs.{index}.{side}")
                for index in range(len(tensors))
                if f"{stem}_projs.{index}.{side}" in stored
            ]
            stored[f"{stem}_proj.{side}"] = np.concatenate(parts)
    save_file(stored, path)
    return tensors


@pytest.mark.parametrize("packed", [False, True])
def test_lora_is_added_on_reading(packed: bool, weights: Arrays, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", weights, lora=True, lora_rank=3, lora_scaling=0.5)
    updates = lora_file(folder / "lora.safetensors", CONFIG, packed=packed)
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.lora.keys() == linear_slots(CONFIG).keys()
    for module, slot in linear_slots(CONFIG).items():
        rows = slice(slot.row, slot.row + slot.out_features)
        update = updates[f"{module}.lora_B.weight"] @ updates[f"{module}.lora_A.weight"]
        assert np.allclose(checkpoint.numpy(slot.tensor)[rows], weights[slot.tensor][rows] + 0.5 * update, atol=1e-5)
    assert np.array_equal(checkpoint.numpy("text_linear.weight", fuse_lora=False), weights["text_linear.weight"])


def test_lora_from_elsewhere_brings_its_own_scaling(weights: Arrays, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "base", weights)
    adapter = write_folder(tmp_path / "tuned", {}, CONFIG, lora=True, lora_rank=3, lora_scaling=0.25)
    updates = lora_file(adapter / "lora.safetensors", CONFIG)
    checkpoint = Checkpoint.open(folder, lora=adapter / "lora.safetensors")
    update = updates["text_linear.lora_B.weight"] @ updates["text_linear.lora_A.weight"]
    assert checkpoint.lora_scaling == 0.25
    assert np.allclose(checkpoint.numpy("text_linear.weight"), weights["text_linear.weight"] + 0.25 * update, atol=1e-5)
    (adapter / "config.json").write_text(json.dumps({"lora_rank": 5}))
    with pytest.raises(WeightsError, match=r"expected \(5, \d+\)"):
        Checkpoint.open(folder, lora=adapter / "lora.safetensors")


def test_lora_of_sixteen_slices_is_narrowed_too(tmp_path: Path) -> None:
    full = with_slices(CONFIG, 16)
    folder = write_folder(tmp_path / "m", random_weights(full, seed=1), full, lora=True, lora_rank=3)
    updates = lora_file(folder / "lora.safetensors", full, packed=True)
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.lora.keys() == linear_slots(CONFIG).keys()
    module = "depformer.layers.0.self_attn.in_projs.7"
    assert np.array_equal(checkpoint.lora[module].a.read(), updates[f"{module}.lora_A.weight"])


def test_lora_file_may_replace_embeddings(weights: Arrays, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", weights)
    save_file({"text_emb.weight": weights["text_emb.weight"] + 1}, tmp_path / "adapter.safetensors")
    checkpoint = Checkpoint.open(folder, lora=tmp_path / "adapter.safetensors")
    assert np.array_equal(checkpoint.numpy("text_emb.weight"), weights["text_emb.weight"] + 1)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"text_linear.lora_A.weight": np.zeros((3, 32), np.float32)}, r"'text_linear\.lora_B\.weight' is missing"),
        ({"nothing.lora_A.weight": np.zeros((3, 32), np.float32)}, r"'nothing\.lora_A\.weight' \(3, 32\) fits no"),
        ({"emb.0.weight": np.zeros((3, 32), np.float32)}, r"'emb\.0\.weight' \(3, 32\) fits no"),
        (
            {
                "text_linear.lora_A.weight": np.zeros((3, 32), np.float32),
                "text_linear.lora_B.weight": np.zeros((40, 4), np.float32),
            },
            r"'text_linear\.lora_B\.weight' has shape \(40, 4\); expected \(40, 3\)",
        ),
    ],
)
def test_wrong_lora_is_refused(tensors: Arrays, message: str, weights: Arrays, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", weights)
    save_file(tensors, tmp_path / "adapter.safetensors")
    with pytest.raises(WeightsError, match=message):
        Checkpoint.open(folder, lora=tmp_path / "adapter.safetensors")


def drop(name: str) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def put(name: str, *shape: int) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {**tensors, name: np.zeros(shape, dtype=np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("out_norm.alpha"), r"'out_norm\.alpha' is missing; expected shape \(1, 1, 32\)"),
        (put("out_norm.alpha", 1, 1, 31), r"'out_norm\.alpha' has shape \(1, 1, 31\); expected \(1, 1, 32\)"),
        (put("mystery.weight", 2), r"unknown tensor 'mystery\.weight' \(2,\)"),
        (put("text_linear.weight_scb", 2), r"unknown tensor 'text_linear\.weight_scb'"),
        (put("transformer.layers.0.self_attn.in_projs.0.weight", 96, 32), r"in_proj_weight.* are \[0\]"),
        (put("transformer.layers.0.self_attn.in_projs.5.weight", 96, 32), r"in_proj_weight.* are \[5\]"),
        (put("transformer.layers.0.self_attn.in_proj.weight", 96, 32), r"stored twice"),
    ],
)
def test_wrong_tensors_are_refused(
    change: Callable[[Arrays], Arrays], message: str, weights: Arrays, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        Checkpoint.open(write_folder(tmp_path / "m", change(weights)))


def raw_file(folder: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "raw.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"x": ENTRY}, b"1234567", r"truncated: tensor 'x' should end at byte \d+, the file has \d+"),
        ({"x": {**ENTRY, "dtype": "I8"}}, b"12345678", r"found 'I8'; quantised checkpoints are not read"),
        ({"x": {**ENTRY, "dtype": 3}}, b"12345678", "expected dtype"),
        ({"x": {**ENTRY, "shape": [-2]}}, b"12345678", "shape must be"),
        ({"x": {**ENTRY, "shape": [1 << 61, 1 << 61]}}, b"12345678", "expected .* bytes"),
        ({"x": {**ENTRY, "shape": [True, 2]}}, b"12345678", "shape must be"),
        ({"x": {**ENTRY, "data_offsets": [8, 0]}}, b"12345678", "ordered"),
        ({"x": {**ENTRY, "data_offsets": [0, 4]}}, b"12345678", "expected 8 bytes"),
        ({"x": 7}, b"", "must be an object"),
        ({"x": ENTRY, "y": ENTRY}, b"12345678", "overlaps"),
        ([], b"", "must be a JSON object"),
        (b"{", b"", "not valid JSON"),
        (b"\xff", b"", "not valid JSON"),
        (b"[" * 100_000, b"", "not valid JSON"),
        (b'{"a":1,"a":2}', b"", "twice"),
        (b'{"a":NaN}', b"", "NaN"),
        (b'{"a":' + b"9" * 5000 + b"}", b"", "not valid JSON"),
    ],
)
def test_damaged_files_are_refused(header: Any, data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        read_index(raw_file(tmp_path, header, data))


@pytest.mark.parametrize("length", [2**64 - 1, MAX_HEADER_BYTES + 1, 1000])
def test_a_header_longer_than_the_file_is_not_read(length: int, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="truncated"):
        read_index(raw_file(tmp_path, {}, length=length))


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    for content in (data, struct.pack("<Q", len(data)) + data):
        path.write_bytes(content)
        try:
            read_index(path)
        except WeightsError:
            continue


def test_missing_things_say_what_to_do(tmp_path: Path, weights: Arrays) -> None:
    with pytest.raises(WeightsError, match="give a folder"):
        Checkpoint.open(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="holds no weights"):
        Checkpoint.open(write_folder(tmp_path / "empty", {}))
    with pytest.raises(WeightsError, match=r"'mimi\.safetensors' as 'mimi_name'"):
        Checkpoint.open(write_folder(tmp_path / "m", weights, mimi_name="mimi.safetensors"))
    with pytest.raises(WeightsError, match=r"lora\.safetensors does not exist"):
        Checkpoint.open(write_folder(tmp_path / "l", weights, lora=True))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a\\b", "file:///etc/passwd", "", 7, "a\0b"])
def test_config_names_only_files_inside_the_folder(name: Any, tmp_path: Path, weights: Arrays) -> None:
    with pytest.raises(ConfigError, match="only files inside the folder"):
        Checkpoint.open(write_folder(tmp_path / "m", weights, mimi_name=name))


def test_finds_the_parts_by_stated_and_default_names(tmp_path: Path, weights: Arrays) -> None:
    folder = write_folder(tmp_path / "m", weights, mimi_name="codec.safetensors", mimi_config_name="codec.json")
    for name in ("codec.safetensors", "codec.json", "tokenizer_spm_32k_3.model", "step.onnx"):
        (folder / name).write_bytes(b"")
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.mimi_path == folder / "codec.safetensors"
    assert checkpoint.mimi_config_path == folder / "codec.json"
    assert checkpoint.tokenizer_path == folder / "tokenizer_spm_32k_3.model"
    assert checkpoint.step_graph_path == folder / "step.onnx"
    assert checkpoint.lora_path is None


def test_canonical_names() -> None:
    assert canonical_name("a.self_attn.in_projs.3.weight") == ("a.self_attn.in_proj_weight", 3)
    assert canonical_name("a.self_attn.out_projs.0.weight") == ("a.self_attn.out_proj.weight", 0)
    assert canonical_name("a.self_attn.in_proj.weight") == ("a.self_attn.in_proj_weight", None)
    assert canonical_name("emb.0.weight") == ("emb.0.weight", None)


def fake_cache(root: Path, repo: str, files: dict[str, bytes]) -> None:
    commit = "0" * 40
    folder = root / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)


def test_hub_names_use_the_offline_cache(tmp_path: Path, weights: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    source = write_folder(tmp_path / "source", weights, mimi_name="hf://someone/codec/mimi.safetensors")
    fake_cache(tmp_path, "someone/talker", {path.name: path.read_bytes() for path in source.iterdir()})
    fake_cache(tmp_path, "someone/codec", {"mimi.safetensors": b""})
    checkpoint = Checkpoint.open(hub.resolve("hf://someone/talker"))
    assert_holds(checkpoint, weights)
    assert checkpoint.mimi_path is not None
    assert checkpoint.mimi_path.name == "mimi.safetensors"
    with pytest.raises(WeightsError, match="cannot fetch hf://someone/missing"):
        hub.resolve("hf://someone/missing")


@pytest.mark.parametrize("name", ["hf://alone", "hf://a/b/c", "hf://../b", "hf://a/..", "hf://a b/c"])
def test_malformed_hub_names_are_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="form hf://owner/name"):
        hub.resolve(name)
    with pytest.raises(WeightsError, match="form hf://owner/name"):
        hub.fetch_file(name.replace("/c", ""))


def test_resolve_takes_paths(tmp_path: Path) -> None:
    assert hub.resolve(tmp_path) == tmp_path
    with pytest.raises(WeightsError, match="no model at"):
        hub.resolve(tmp_path / "nothing")
