"""Step graphs on disk: the cache, damage, and what is said when nothing helps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from duologue.engine import onnx_engine
from duologue.engine.graph_file import read_graph, seal_graph
from duologue.engine.onnx_engine import OnnxEngine, write_step_graph
from duologue.errors import WeightsError
from duologue.model.checkpoint import Checkpoint
from duologue.untrained import random_weights, small_config


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(random_weights(small_config(), seed=3), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(small_config().to_dict()), encoding="utf-8")
    return Checkpoint.open(folder)


def step(engine: OnnxEngine) -> int:
    codes = np.zeros(engine.config.user_q, dtype=np.int32)
    return engine.stream(seed=1).step(codes).text_token


def never_built(_: Checkpoint) -> bytes:
    raise AssertionError("the graph was built again")


def test_a_sealed_graph_is_still_a_model(checkpoint: Checkpoint) -> None:
    model = onnx.load_from_string(write_step_graph(checkpoint).read_bytes())
    assert {entry.key for entry in model.metadata_props} == {"duologue.step_graph", "duologue.sha256"}


def test_a_built_graph_is_kept_in_the_cache(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    OnnxEngine.load(checkpoint, cache_dir=cache)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(onnx_engine, "build_step_graph", never_built)
    OnnxEngine.load(checkpoint, cache_dir=cache)


def test_an_unwritable_cache_only_warns(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be", encoding="utf-8")
    step(OnnxEngine.load(checkpoint, cache_dir=blocked))
    assert "not kept" in caplog.text


@pytest.mark.parametrize("place", [0.01, 0.5, 0.999])
def test_a_damaged_cached_graph_is_built_again(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: float,
) -> None:
    cache = tmp_path / "cache"
    expected = step(OnnxEngine.load(checkpoint, cache_dir=cache))
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    damaged = bytearray(whole)
    damaged[int(place * len(whole))] ^= 0x41
    kept.write_bytes(damaged)
    assert step(OnnxEngine.load(checkpoint, cache_dir=cache)) == expected
    assert f"{kept} is damaged" in caplog.text
    assert kept.read_bytes() == whole
    monkeypatch.setattr(onnx_engine, "build_step_graph", never_built)
    OnnxEngine.load(checkpoint, cache_dir=cache)


def test_a_damaged_graph_of_the_folder_is_replaced_by_the_cache(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_step_graph(checkpoint)
    path.write_bytes(path.read_bytes().replace(b"TensorScatter", b"TensorScarier"))
    step(OnnxEngine.load(Checkpoint.open(checkpoint.path), cache_dir=tmp_path / "cache"))
    assert f"{path} is damaged" in caplog.text
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_whole_graph_that_is_refused_is_built_again(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    OnnxEngine.load(checkpoint, cache_dir=tmp_path)
    (kept,) = tmp_path.glob("*.onnx")
    kept.write_bytes(seal_graph(kept.read_bytes().replace(b"TensorScatter", b"TensorScarier")))
    step(OnnxEngine.load(checkpoint, cache_dir=tmp_path))
    assert f"refuses the kept step graph {kept}" in caplog.text
    assert b"TensorScarier" not in kept.read_bytes()


def test_a_graph_that_cannot_be_loaded_is_one_line(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OnnxEngine.load(checkpoint, cache_dir=tmp_path)
    (kept,) = tmp_path.glob("*.onnx")
    broken = kept.read_bytes().replace(b"TensorScatter", b"TensorScarier")
    kept.write_bytes(seal_graph(broken))
    monkeypatch.setattr(onnx_engine, "build_step_graph", lambda _, **more: broken)
    with pytest.raises(WeightsError, match="ONNX Runtime cannot load") as caught:
        OnnxEngine.load(checkpoint, cache_dir=tmp_path)
    assert str(kept) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_graph_and_another_models_graph_are_not_read(tmp_path: Path) -> None:
    assert read_graph(None, "0" * 64) is None
    assert read_graph(tmp_path / "none.onnx", "0" * 64) is None
    (tmp_path / "other.onnx").write_bytes(seal_graph(b"of digest " + b"1" * 64))
    assert read_graph(tmp_path / "other.onnx", "0" * 64) is None
    assert read_graph(tmp_path / "other.onnx", "1" * 64) is not None
