"""What training leaves becomes what the runtime and moshi load, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adapter_case import CARD, EVERYTHING, write_adapter, write_base  # noqa: E402
from duologue import AgentConfig, DuplexAgent  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue_align.cli import main  # noqa: E402

GREEDY = Sampling(temperature_text=0, temperature_audio=0)
FRAMES = 60
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("export") / "base")


def export(source: Path, out: Path, base: Path, *more: str) -> Path:
    assert main(["export", str(source), "--out", str(out), "--base", str(base), *more]) == 0
    return out


def users() -> np.ndarray:
    return np.random.default_rng(0).integers(0, CARD, (FRAMES, 8), dtype=np.int32)


def spoken(folder: Path, *, adapter: Path | None = None) -> list[list[int]]:
    config = AgentConfig(adapters=(str(adapter),) if adapter else ())
    stream = DuplexAgent.load(folder, config).engine.stream(
        seed=0, sampling=GREEDY, adapter=adapter.name if adapter else None
    )
    outputs = [stream.step(user) for user in users()]
    return [[output.text_token, *output.agent_codes.tolist()] for output in outputs if output.agent_codes is not None]


def spoken_by_moshi(folder: Path, *, adapter: Path | None = None) -> list[list[int]]:
    """Greedy tokens of moshi 0.2.13, every file given by path as its server takes them."""
    from moshi.models.lm import LMGen
    from moshi.models.loaders import CheckpointInfo

    names: dict[str, Any] = json.loads((folder / "config.json").read_text())
    info = CheckpointInfo.from_hf_repo(
        "local/folder",
        moshi_weights=folder / names["moshi_name"],
        mimi_weights=folder / names["mimi_name"],
        tokenizer=folder / names["tokenizer_name"],
        mimi_config_path=folder / names["mimi_config_name"],
        config_path=(adapter or folder) / "config.json",
        lora_weights=adapter / "lora.safetensors" if adapter else None,
    )
    assert info.get_text_tokenizer().get_piece_size() == info.get_moshi("cpu", torch.float32).text_card
    assert info.get_mimi("cpu").cardinality == CARD
    generator, said = LMGen(info.get_moshi("cpu", torch.float32), use_sampling=False), []
    with torch.no_grad(), generator.streaming(1):
        for user in users():
            tokens = generator.step(torch.from_numpy(user.astype(np.int64))[None, :, None])
            if tokens is not None:
                said.append(tokens[0, :, 0].tolist())
    return said


@pytest.mark.parametrize(("form", "dtype"), [("peft", "float32"), ("moshi", "bfloat16")])
def test_a_merged_bundle_speaks_the_same_here_and_in_moshi(form: str, dtype: str, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("moshi")
    adapter = write_adapter(tmp_path / "adapter", base, form=form, prefix=EVERYTHING)
    bundle = export(adapter, tmp_path / "bundle", base, "--dtype", dtype)
    here = spoken(bundle)
    assert here == spoken_by_moshi(bundle)
    assert here != spoken(base)
    assert len({tuple(frame) for frame in here}) > 5
    stored = Checkpoint.open(bundle)
    assert {ref.dtype for ref in stored.tensors.values()} == {{"float32": "F32", "bfloat16": "BF16"}[dtype]}
    assert stored.step_graph_path is not None
    assert not stored.lora
    if dtype == "float32":
        adapted = Checkpoint.open(base, lora=adapter)
        assert all(np.array_equal(stored.numpy(name), adapted.numpy(name)) for name in stored.tensors)


@pytest.mark.parametrize("form", ["peft", "moshi"])
def test_an_adapter_alone_is_switched_to_here_and_loaded_by_moshi(form: str, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("moshi")
    adapter = write_adapter(tmp_path / "adapter", base, form=form, prefix=EVERYTHING, scaling=0.5)
    small = export(adapter, tmp_path / "polite", base, "--lora-only", "--dtype", "float32")
    assert sorted(path.name for path in small.iterdir()) == ["config.json", "lora.safetensors"]
    here = spoken(base, adapter=small)
    assert here == spoken_by_moshi(base, adapter=small)
    assert here == spoken(export(adapter, tmp_path / "bundle", base, "--dtype", "float32"))
    assert here == spoken(export(small, tmp_path / "again", base, "--dtype", "float32"))


def test_a_run_folder_and_a_whole_model_are_sources_too(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "run" / "adapter", base)
    from_run = export(tmp_path / "run", tmp_path / "bundle", base, "--dtype", "float32")
    assert Checkpoint.open(from_run).numpy("text_linear.weight").shape == (512, 64)
    halved = export(from_run, tmp_path / "halved", tmp_path / "nowhere", "--dtype", "bfloat16")
    rounded = torch.from_numpy(Checkpoint.open(from_run).numpy("emb.0.weight")).bfloat16().float().numpy()
    assert np.array_equal(Checkpoint.open(halved).numpy("emb.0.weight"), rounded)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_export_leaves_the_old_bundle_and_nothing_else(
    error: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    bundle = export(adapter, tmp_path / "bundle", base)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}

    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr("duologue.engine.onnx_engine.write_step_graph", stop)
    command = ["export", str(adapter), "--base", str(base), "--dtype", "float32", "--out"]
    expected = 130 if error is KeyboardInterrupt else 2
    assert main([*command, str(bundle)]) == expected
    assert main([*command, str(tmp_path / "fresh")]) == expected
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "bundle"]
    assert capsys.readouterr().err.count("\n") == 2


PEFT = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
WRONG_PEFT = {
    "DoRA": ({**PEFT, "use_dora": True}, "use_dora is not supported"),
    "several ranks": ({**PEFT, "rank_pattern": {"a": 2}}, "rank_pattern is not supported"),
    "no LoRA": ({**PEFT, "peft_type": "IA3"}, "peft_type 'IA3'"),
    "biases": ({**PEFT, "bias": "all"}, "bias 'all'"),
    "no rank": ({**PEFT, "r": None}, "must be numbers"),
    "another rank": ({**PEFT, "r": 5}, "expected (5,"),
}


@pytest.mark.parametrize("case", WRONG_PEFT)
def test_an_adapter_that_is_not_plain_lora_is_refused_in_one_line(
    case: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, form="peft")
    keys, message = WRONG_PEFT[case]
    (adapter / "adapter_config.json").write_text(json.dumps(keys))
    assert main(["export", str(adapter), "--base", str(base), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_bad_input_is_refused_in_one_line(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    diary = tmp_path / "diary"
    diary.mkdir()
    (diary / "a.txt").write_text("mine")
    for arguments, message in (
        ([str(tmp_path / "nowhere")], "no adapter at"),
        ([str(diary)], "holds no weights"),
        ([str(adapter), "--out", str(diary)], "exists and is neither an empty folder"),
        ([str(base), "--lora-only"], "an adapter of one rank is needed"),
    ):
        assert main(["export", "--base", str(base), "--out", str(tmp_path / "out"), *arguments]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1
    assert [path.name for path in diary.iterdir()] == ["a.txt"]


def test_rank_stabilised_scaling_is_peft_s(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, form="peft")
    (adapter / "adapter_config.json").write_text(json.dumps({**PEFT, "use_rslora": True}))
    assert Checkpoint.open(base, lora=adapter).lora_scaling == 4.0
