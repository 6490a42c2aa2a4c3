"""Folders that moshi 0.2.13 loads: the untrained bundle, what we save, adapters fused and apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("moshi")

from duologue.errors import ConfigError  # noqa: E402
from duologue.model import Checkpoint  # noqa: E402
from duologue.model.lm import LanguageModel  # noqa: E402
from duologue.model.load import load_model, merge_lora  # noqa: E402
from duologue.model.lora_linear import LoraLinear, attach_lora  # noqa: E402
from duologue.model.save import save_checkpoint  # noqa: E402
from duologue.untrained import write_untrained_bundle  # noqa: E402

TOLERANCE = 1e-5
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "small"
    write_untrained_bundle(folder, seed=0)
    return folder


def moshi_info(folder: Path) -> Any:
    """Open a local folder as moshi's server does when every file is given by path."""
    from moshi.models.loaders import CheckpointInfo

    keys = json.loads((folder / "config.json").read_text())
    return CheckpointInfo.from_hf_repo(
        "local/folder",
        moshi_weights=folder / keys["moshi_name"],
        mimi_weights=folder / keys["mimi_name"],
        tokenizer=folder / keys["tokenizer_name"],
        config_path=folder / "config.json",
        mimi_config_path=folder / keys["mimi_config_name"],
        lora_weights=folder / keys["lora_name"] if "lora_name" in keys else None,
    )


def logits(model: Any, codes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output = model(codes)
    text = output.text_logits.flatten(1)
    return torch.cat([text, output.logits.nan_to_num().flatten(1)], dim=1)


def some_codes(config: Any) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, config.card, (1, config.num_streams, 12)))


def adapted(folder: Path) -> LanguageModel:
    """The bundle's model with adapters on every linear layer."""
    model = load_model(Checkpoint.open(folder))
    torch.manual_seed(0)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(attach_lora(model, name, rank=4, scaling=0.7).lora_B.weight, std=0.02)
    return model.eval()


def test_moshi_loads_the_untrained_bundle(bundle: Path) -> None:
    info, checkpoint = moshi_info(bundle), Checkpoint.open(bundle)
    codes = some_codes(checkpoint.config)
    expected = logits(info.get_moshi("cpu", torch.float32), codes)
    assert (logits(load_model(checkpoint), codes) - expected).abs().max() <= TOLERANCE
    assert info.get_text_tokenizer().get_piece_size() == checkpoint.config.text_card
    mimi = info.get_mimi("cpu")
    with torch.no_grad(), mimi.streaming(1):
        found = mimi.encode(torch.zeros(1, 1, 1920))
    assert found.shape == (1, checkpoint.config.user_q, 1)
    assert mimi.cardinality == checkpoint.config.card


def test_the_untrained_agent_is_not_degenerate(bundle: Path) -> None:
    """Mostly silent text with words in it, diverse codes that depend on the user."""
    from duologue.engine.torch_engine import TorchEngine

    checkpoint = Checkpoint.open(bundle)
    engine, random = TorchEngine.load(checkpoint), np.random.default_rng(0)
    heard, deaf = engine.stream(seed=0), engine.stream(seed=0)
    texts, codes, differing = [], [], 0
    for _ in range(80):
        output = heard.step(random.integers(0, checkpoint.config.card, 8).astype(np.int32))
        other = deaf.step(np.zeros(8, dtype=np.int32))
        texts.append(output.text_token)
        if output.agent_codes is not None and other.agent_codes is not None:
            codes.append(output.agent_codes)
            differing += int((output.agent_codes != other.agent_codes).sum())
    padding = np.mean([token in (0, 3) for token in texts])
    assert 0.5 < padding < 0.97
    assert all(len(set(column)) > 20 for column in np.stack(codes, axis=1))
    assert differing > 0.5 * len(codes) * 8


def test_what_we_save_is_what_we_loaded(bundle: Path, tmp_path: Path) -> None:
    source = Checkpoint.open(bundle)
    save_checkpoint(load_model(source), tmp_path / "saved", source=source)
    saved = Checkpoint.open(tmp_path / "saved")
    assert saved.config == source.config
    assert saved.tensors.keys() == source.tensors.keys()
    for name in source.tensors:
        assert np.array_equal(saved.numpy(name), source.numpy(name)), name
    for part in ("mimi.safetensors", "mimi_config.json", "tokenizer.model"):
        assert (tmp_path / "saved" / part).read_bytes() == (bundle / part).read_bytes()
    with pytest.raises(ConfigError, match="not an empty folder"):
        save_checkpoint(load_model(source), tmp_path / "saved")
    with pytest.raises(ConfigError, match="'fused' or 'apart'"):
        save_checkpoint(load_model(source), tmp_path / "other", lora="both")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_moshi_loads_what_we_save(dtype: str, bundle: Path, tmp_path: Path) -> None:
    source = Checkpoint.open(bundle)
    save_checkpoint(load_model(source, dtype=dtype), tmp_path / "saved", source=source)
    saved = Checkpoint.open(tmp_path / "saved")
    assert saved.tensors["emb.0.weight"].dtype == {"float32": "F32", "bfloat16": "BF16"}[dtype]
    codes = some_codes(source.config)
    expected = logits(moshi_info(tmp_path / "saved").get_moshi("cpu", torch.float32), codes)
    found = logits(load_model(saved), codes)
    assert (found - expected).abs().max() <= TOLERANCE


def test_adapters_apart_load_in_moshi_and_here(bundle: Path, tmp_path: Path) -> None:
    source, model = Checkpoint.open(bundle), adapted(bundle)
    codes = some_codes(source.config)
    before = logits(load_model(source), codes)
    expected = logits(model, codes)
    assert (expected - before).abs().max() > 0.1
    save_checkpoint(model, tmp_path / "apart", source=source, lora="apart")
    again = Checkpoint.open(tmp_path / "apart")
    apart = load_model(again, fuse_lora=False)
    assert any(isinstance(module, LoraLinear) for module in apart.modules())
    assert torch.equal(logits(apart, codes), expected)
    fused = load_model(again)
    assert not any(isinstance(module, LoraLinear) for module in fused.modules())
    assert (logits(fused, codes) - expected).abs().max() <= 10 * TOLERANCE
    moshi = moshi_info(tmp_path / "apart").get_moshi("cpu", torch.float32)
    assert (logits(moshi, codes) - expected).abs().max() <= TOLERANCE


def test_adapters_fused_load_in_moshi(bundle: Path, tmp_path: Path) -> None:
    source, model = Checkpoint.open(bundle), adapted(bundle)
    codes = some_codes(source.config)
    save_checkpoint(model, tmp_path / "fused", source=source)
    merge_lora(model)
    expected = logits(model, codes)
    assert "lora" not in json.loads((tmp_path / "fused" / "config.json").read_text())
    moshi = moshi_info(tmp_path / "fused").get_moshi("cpu", torch.float32)
    assert (logits(moshi, codes) - expected).abs().max() <= TOLERANCE


def test_torch_free_reading_fuses_the_same(bundle: Path, tmp_path: Path) -> None:
    source, model = Checkpoint.open(bundle), adapted(bundle)
    save_checkpoint(model, tmp_path / "apart", source=source, lora="apart")
    merge_lora(model)
    checkpoint = Checkpoint.open(tmp_path / "apart")
    expected = model.get_submodule("depformer.layers.1.self_attn.in_projs.3").weight.detach().numpy()
    rows = expected.shape[0]
    found = checkpoint.numpy("depformer.layers.1.self_attn.in_proj_weight")[3 * rows : 4 * rows]
    assert np.allclose(found, expected, atol=1e-6)
