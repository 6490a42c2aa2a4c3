"""The supervised stage from recordings to a bundle that converses: one command each, stopped, resumed, overfitted."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

import sft_case  # noqa: E402
from duologue import DuplexAgent  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.engine.onnx_engine import OnnxEngine  # noqa: E402
from duologue.errors import ConfigError  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ  # noqa: E402
from duologue_align import cli  # noqa: E402
from duologue_align.sft import run as sft_run  # noqa: E402
from duologue_align.sft.journal import read_journal  # noqa: E402
from duologue_align.sft.settings import SftSettings  # noqa: E402
from duologue_align.sft.shards import Codes  # noqa: E402
from duologue_align.sft.trainer import SftTrainer  # noqa: E402

TIMES = ("frames_per_s", "tokens_per_s", "seconds")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    sft_case.write_codes(folder)
    return folder


def settings_of(case: Path, *changes: str) -> SftSettings:
    return SftSettings.load(case / "preset.toml", changes)


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def test_three_commands_make_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = sft_case.write_corpus(tmp_path / "data", 2)
    codec = sft_case.write_codec(tmp_path / "codec")
    (tmp_path / "preset.toml").write_text(sft_case.PRESET)
    tokenizer, codes, out = (str(tmp_path / name) for name in ("t/tokenizer.model", "codes", "run"))
    pieces = str(sft_case.PIECES)
    assert cli.main(["tokenizer", "--data", str(data), "--out", tokenizer, "--pieces", pieces]) == 0
    encode = ["encode", "--data", str(data), "--codec", str(codec), "--tokenizer", tokenizer, "--out", codes]
    assert cli.main([*encode, "--quiet"]) == 0
    train = ["sft", str(tmp_path / "preset.toml"), "--data", codes, "--out", out, "--steps", "4", "--device", "cpu"]
    train += ["--threads", "1", "--set", "run.samples_every=4", "--set", "run.samples=1", "--set", "run.sample_s=1"]
    capsys.readouterr()
    assert cli.main([*train, "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["is_finished"]
    assert result["step"] == 4

    rows = read_journal(out)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    valid = [row["valid"] for row in rows if "valid" in row]
    assert len(valid) == 2
    assert {"loss", "text_word", "text_padding", "text_end_padding", "semantic", "acoustic_7"} <= valid[-1].keys()
    assert valid[-1] == result["valid"]
    (sample,) = (tmp_path / "run" / "samples" / "000004").glob("*.wav")
    stereo, rate = soundfile.read(sample)
    assert (stereo.shape, rate) == ((12 * FRAME_SAMPLES, 2), SAMPLE_RATE_HZ)
    assert not list((tmp_path / "run" / "samples" / "000004").glob(".*"))

    bundle = tmp_path / "run" / "bundle"
    names = {"config.json", "model.safetensors", "mimi.safetensors", "mimi_config.json", "tokenizer.model", "step.onnx"}
    assert {path.name for path in bundle.iterdir()} == names
    agent = DuplexAgent.load(bundle)
    with agent.session(seed=0) as session:
        frames = [session.step(np.zeros(FRAME_SAMPLES, dtype=np.float32)) for _ in range(5)]
    assert frames[-1].agent_codes is not None

    # The bundle is a model to begin with.
    again = ["sft", str(tmp_path / "preset.toml"), "--data", codes, "--out", str(tmp_path / "more"), "--steps", "1"]
    assert cli.main([*again, "--init", str(bundle), "--device", "cpu", "--threads", "1", "--quiet"]) == 0
    first = read_journal(tmp_path / "more")[0]["loss"]
    assert first < rows[0]["loss"]


def test_a_stopped_run_resumes_to_the_same_curve_and_weights(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(case, "run.save_every=100")
    whole = sft_run.train(settings, case / "codes", tmp_path / "whole")
    assert whole.is_finished

    taken = SftTrainer.train_step

    def stopping(self: SftTrainer, batch: Any, done: float) -> dict[str, float]:
        row = taken(self, batch, done)
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    monkeypatch.setattr(SftTrainer, "train_step", stopping)
    half = sft_run.train(settings, case / "codes", tmp_path / "half")
    assert (half.step, half.is_finished, half.bundle) == (4, False, None)
    monkeypatch.setattr(SftTrainer, "train_step", taken)
    # A row that was logged after the checkpoint is dropped.
    with (tmp_path / "half" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    resumed = sft_run.train(settings, case / "codes", tmp_path / "half", is_resumed=True)
    assert resumed.is_finished
    assert resumed.valid == whole.valid
    assert timeless(read_journal(tmp_path / "half")) == timeless(read_journal(tmp_path / "whole"))
    weights = [(tmp_path / name / "bundle" / "model.safetensors").read_bytes() for name in ("half", "whole")]
    assert weights[0] == weights[1]


def test_a_run_is_neither_overwritten_nor_resumed_as_another(case: Path, tmp_path: Path) -> None:
    settings = settings_of(case, "run.steps=2")
    sft_run.train(settings, case / "codes", tmp_path / "run")
    with pytest.raises(ConfigError, match="--resume"):
        sft_run.train(settings, case / "codes", tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run\.batch"):
        sft_run.train(settings_of(case, "run.batch=2"), case / "codes", tmp_path / "run", is_resumed=True)
    with pytest.raises(ConfigError, match=r"loss\.semantic"):
        sft_run.train(settings_of(case, "loss.semantic=1"), case / "codes", tmp_path / "run", is_resumed=True)
    longer = settings_of(case, "run.steps=3")
    assert sft_run.train(longer, case / "codes", tmp_path / "run", is_resumed=True).step == 3
    assert sft_run.train(longer, case / "codes", tmp_path / "run", is_resumed=True).is_finished


def test_a_diverged_run_ends_with_a_word(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = SftTrainer.train_step
    monkeypatch.setattr(SftTrainer, "train_step", lambda self, *rest: {**taken(self, *rest), "loss": float("nan")})
    with pytest.raises(ConfigError, match=r"diverged.*learning_rate"):
        sft_run.train(settings_of(case), case / "codes", tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_finished_bundle_is_replaced_whole_and_a_foreign_folder_refused(case: Path, tmp_path: Path) -> None:
    from duologue.model.lm import LanguageModel
    from duologue_align.sft.bundle import write_bundle

    index = Codes(case / "codes").index
    model = LanguageModel(settings_of(case).lm_config(card=index.card, text_card=index.text_card))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match="neither an empty folder nor one with a config"):
        write_bundle(model, case / "codes", tmp_path / "full")
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        write_bundle(model, case / "codes", tmp_path / "bundle", dtype=dtype)
        values = sum(parameter.numel() for parameter in model.parameters())
        assert size * values < (tmp_path / "bundle" / "model.safetensors").stat().st_size < size * values + 50_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "full"]


def test_a_dialogue_learnt_by_heart_is_spoken_by_the_runtime(tmp_path: Path) -> None:
    """What training aligns is what inference plays: the engine, hearing the user's codes, says the agent's part."""
    codes_folder = sft_case.write_codes(tmp_path, 1, seconds=3.0)
    changes = ["run.steps=80", "run.batch=2", "run.window_frames=36", "run.log_every=20", "run.valid_every=1000"]
    changes += ["loss.semantic=1", "optimiser.learning_rate=0.01", "optimiser.weight_decay=0", "run.save_every=1000"]
    settings = SftSettings.load(tmp_path / "preset.toml", changes)
    result = sft_run.train(settings, codes_folder, tmp_path / "run", valid=codes_folder)
    losses = [row["loss"] for row in read_journal(tmp_path / "run") if "loss" in row]
    assert losses[-1] < 0.1 * losses[0]
    codes = Codes(codes_folder).read(0).astype(np.int32)
    assert len(np.unique(codes[1:9], axis=1).T) > 25, "the agent's part must be worth learning"
    assert result.bundle is not None
    engine = OnnxEngine.load(Checkpoint.open(result.bundle))
    stream = engine.stream(seed=0, sampling=Sampling(temperature_text=0, temperature_audio=0))
    outputs = [stream.step(np.ascontiguousarray(user)) for user in codes[9:-1].T]
    # Call n completes frame n: text and codes, the acoustic ones one call after the semantic.
    found = np.stack([[out.text_token, *out.agent_codes] for out in outputs[1:] if out.agent_codes is not None])
    agreement = (found == codes[:9, 1 : 1 + len(found)].T)[:35].mean()
    assert agreement > 0.95
