"""A very small codec trained on tones: it learns, stops and goes on to the bit, and refuses what cannot be."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

from duologue.codec import Mimi, MimiConfig  # noqa: E402
from duologue.errors import ConfigError, WeightsError  # noqa: E402
from duologue_align.checkpointing import load_tree  # noqa: E402
from duologue_align.cli import main  # noqa: E402
from duologue_align.codec.acoustic_units import AcousticUnits  # noqa: E402
from duologue_align.codec.loop import RunOptions, train_codec  # noqa: E402
from duologue_align.codec.phones import SLOTS  # noqa: E402
from duologue_align.codec.segments import Batch  # noqa: E402
from duologue_align.codec.settings import CodecTraining  # noqa: E402
from duologue_align.codec.weights import load_mimi  # noqa: E402
from duologue_align.synth import dialogue as dialogue_module  # noqa: E402
from duologue_align.synth.dataset import DatasetConfig, write_dataset  # noqa: E402
from synth_fakes import LINES, ToneSpeaker  # noqa: E402

CHANGES = [
    "model.n_filters=4",
    "model.dimension=24",
    "model.d_model=24",
    "model.num_heads=2",
    "model.num_layers=1",
    "model.dim_feedforward=24",
    "model.codebook_dim=8",
    "model.cardinality=16",
    "model.total_codebooks=8",
    "losses.mel_windows=[512, 128]",
    "losses.mel_bands=[20, 5]",
    "losses.stft_windows=[256]",
    "losses.stft=1.0",
    "losses.adversarial=2.0",
    "losses.features=3.0",
    "discriminator.windows=[256]",
    "discriminator.periods=[3]",
    "discriminator.stft_channels=2",
    "discriminator.period_channels=2",
    "discriminator.start_step=5",
    "discriminator.every=1",
    "discriminator.frames=1",
    "quantizer.start_step=3",
    "quantizer.start_vectors=16",
    "quantizer.restart_every=2",
    "optimiser.warmup_steps=2",
    "optimiser.learning_rate=2e-3",
    "optimiser.average_decay=0.9",
    "run.steps=1000",
    "run.minutes=0",
    "run.freeze_share=0.8",
    "run.precision=float32",
    "run.batch=2",
    "run.clip_frames=4",
    "run.valid_clips=4",
    "run.log_every=1",
    "run.valid_every=1000",
    "run.save_every=1000",
    "run.samples_every=6",
    "run.weights_dtype=float32",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of two "phones": a low tone and a high one."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for number in range(4):
        pieces, phones, at = [], [], 0.0
        while at < 4.0:
            name, hz = ("a", 250.0) if rng.random() < 0.5 else ("s", 2500.0)
            count = int(rng.uniform(0.1, 0.4) * 24_000)
            pieces.append(0.3 * np.sin(2 * np.pi * hz * np.arange(count) / 24_000))
            phones.append([name, [at, at + count / 24_000], "SPEAKER_MAIN"])
            at += count / 24_000
        soundfile.write(folder / f"{number}.wav", np.concatenate(pieces), 24_000)
        (folder / f"{number}.json").write_text(json.dumps({"alignments": [], "phones": phones}))
    return folder


def settings(*changes: str) -> CodecTraining:
    return CodecTraining.load(changes=[*CHANGES, *changes])


def options(data: Path, out: Path, **changes: Any) -> RunOptions:
    values: dict[str, Any] = {"data": [data], "out": out, "show_progress": False, "workers": 1}
    return RunOptions(**(values | changes))


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def checkpoint(out: Path) -> dict[str, Any]:
    tree: dict[str, Any] = load_tree(max((out / "checkpoints").glob("*.safetensors")))
    return tree


def assert_equal(left: Any, right: Any, where: str = "") -> None:
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_equal(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for number, pair in enumerate(zip(left, right, strict=True)):
            assert_equal(*pair, f"{where}[{number}]")
    else:
        assert left == right, where


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps without a stop."""
    out = tmp_path_factory.mktemp("straight")
    result = train_codec(settings("run.steps=10"), options(data, out))
    assert result["is_done"]
    assert result["step"] == 10
    return out


@pytest.mark.parametrize(
    "stop", [2, 4, 7, 9], ids=["before the codebooks", "before the judges", "after both", "when the codes stand still"]
)
def test_a_run_that_stopped_goes_on_to_the_bit(data: Path, straight: Path, tmp_path: Path, stop: int) -> None:
    # The schedule knows the whole length, so the stop is a signal and not a shorter run.
    _stop_after(stop, data, tmp_path)
    assert checkpoint(tmp_path)["trainer"]["step"] == stop
    train_codec(settings("run.steps=10"), options(data, tmp_path, resume=True, workers=2))
    ours, theirs = checkpoint(tmp_path), checkpoint(straight)
    assert_equal(ours["trainer"], theirs["trainer"])
    assert (tmp_path / "mimi.safetensors").read_bytes() == (straight / "mimi.safetensors").read_bytes()
    logged = [[(row["step"], row["mel"]) for row in metrics(out) if "mel" in row] for out in (tmp_path, straight)]
    assert logged[0] == logged[1]


def test_once_frozen_only_the_decoder_learns(data: Path, straight: Path, tmp_path: Path) -> None:
    _stop_after(9, data, tmp_path)
    earlier, later = (checkpoint(out)["trainer"]["average"] for out in (tmp_path, straight))
    codec = [name for name in earlier if name.startswith("network.")]
    changed = {name.split(".")[1] for name in codec if not torch.equal(earlier[name], later[name])}
    assert changed == {"upsample", "decoder_transformer", "decoder"}


DECODER = [
    "run.freeze_share=0.0",
    "run.framed_channel=0",
    "run.lead_frames=2",
    "run.target=none",
    "run.steps=6",
    "losses.phases=4.0",
    "losses.adversarial=0.0",
    "losses.features=0.0",
    "losses.phase_windows=[256]",
]


def test_the_decoder_of_a_trained_codec_goes_on_alone(data: Path, straight: Path, tmp_path: Path) -> None:
    before = load_mimi(straight).state_dict()
    shape = [change for change in CHANGES if not change.startswith(("model.", "quantizer."))]
    begin = CodecTraining.load("decoder", [*shape, *DECODER])
    train_codec(begin, options(data, tmp_path, init=straight, channel=0))
    after = load_mimi(tmp_path).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"upsample", "decoder_transformer", "decoder"}
    assert metrics(tmp_path)[-2]["phases"] > 0


def test_the_first_frames_of_a_clip_are_not_compared(data: Path) -> None:
    from duologue_align.codec.trainer import CodecTrainer

    trainer = CodecTrainer(settings(*DECODER), classes=0, with_units=False, device=torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    output, target = (0.1 * torch.randn(2, 1, 4 * 1920, generator=rng) for _ in range(2))
    output.requires_grad_(True)
    batch = Batch(target, torch.zeros(2, 4, SLOTS, dtype=torch.int64), torch.tensor([True, False]))
    losses, _ = trainer._waveform_losses(output, batch, rng)
    gradient, _ = trainer.balancer.gradient(losses, output)
    assert not gradient[..., : 2 * 1920].any()
    assert gradient[0, :, 2 * 1920 :].any()
    assert gradient[1, :, 2 * 1920 :].any()
    (phases,) = torch.autograd.grad(losses["phases"], output)
    assert phases[0].any()
    assert not phases[1].any()


def test_nothing_but_a_trained_codec_can_be_frozen_from_the_start(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --init"):
        train_codec(settings(*DECODER), options(data, tmp_path))


def _stop_after(steps: int, data: Path, out: Path) -> None:
    from duologue_align.codec.trainer import CodecTrainer

    original = CodecTrainer.train_step

    def counted(self: CodecTrainer, *arguments: Any) -> Any:
        result = original(self, *arguments)
        if self.step == steps:
            signal.raise_signal(signal.SIGTERM)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CodecTrainer, "train_step", counted)
        result = train_codec(settings("run.steps=10"), options(data, out))
    assert result["step"] == steps
    assert not result["is_done"]


def test_the_run_leaves_a_codec_metrics_and_samples(straight: Path) -> None:
    config = MimiConfig.from_file(straight / "mimi_config.json")
    stream = Mimi.load(straight / "mimi.safetensors", config=config).stream()
    assert stream.encode_step(np.zeros(1920, np.float32)).shape == (8,)
    rows = metrics(straight)
    losses = [row for row in rows if "mel" in row]
    assert [row["step"] for row in losses] == list(range(1, 11))
    assert "phones" not in losses[2]
    assert {"commitment", "phones", "phones_right"} <= losses[3].keys()
    assert "judges" not in losses[4]
    assert {"judges", "adversarial", "features"} <= losses[5].keys()
    assert all(np.isfinite(list(row.values())).all() for row in losses)
    checks = [row for row in rows if "valid_mel" in row]
    assert [row["step"] for row in checks] == [0, 10]
    assert len(checks[1]["codes_used"]) == 8
    assert 0 < checks[1]["codes_used"][0] <= 1
    decoded = soundfile.read(straight / "samples" / "step_0000006" / "0_decoded.wav")[0]
    assert len(decoded) == 4 * 1920


def test_discriminators_may_rest_and_are_logged_all_the_same(data: Path, tmp_path: Path) -> None:
    changes = ["run.steps=12", "run.log_every=2", "discriminator.start_step=0", "discriminator.every=3"]
    train_codec(settings(*changes), options(data, tmp_path))
    rows = [row for row in metrics(tmp_path) if "mel" in row]
    # They take part in steps 1, 4, 7 and 10, counted from 1; each line tells of the two steps up to it.
    assert [row["step"] for row in rows if "judges" in row] == [2, 4, 8, 10]
    train_codec(settings(*changes, "losses.adversarial=0", "losses.features=0"), options(data, tmp_path / "none"))
    assert not any("judges" in row for row in metrics(tmp_path / "none"))


def test_it_learns_the_sound_and_the_phones(data: Path, tmp_path: Path) -> None:
    changes = ["run.steps=80", "run.batch=6", "run.clip_frames=2", "run.valid_clips=16", "losses.phones=1.0"]
    changes += ["discriminator.start_step=1000", "optimiser.learning_rate=5e-3"]
    result = train_codec(settings(*changes), options(data, tmp_path))
    first = next(row for row in metrics(tmp_path) if "valid_mel" in row)
    assert result["valid_mel"] < 0.7 * first["valid_mel"]
    assert result["valid_phones_right"] > 0.7, "a guess is right half the time"


def test_units_stand_in_where_nobody_wrote_phones(data: Path, tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for path in data.glob("*.wav"):
        (recordings / path.name).write_bytes(path.read_bytes())
    result = train_codec(settings("run.steps=5", "run.units=8"), options(recordings, tmp_path / "run"))
    assert result["valid_phones_right"] >= 0
    assert checkpoint(tmp_path / "run")["phones"] is None
    with pytest.raises(ConfigError, match="target is phones"):
        train_codec(settings("run.steps=5", "run.target=phones"), options(recordings, tmp_path / "other"))
    result = train_codec(settings("run.steps=5", "run.target=none"), options(recordings, tmp_path / "none"))
    assert "valid_phones_right" not in result


def test_the_phones_of_synthetic_dialogues_are_what_auto_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue_module, "user_text", lambda split: LINES)
    dialogues = DatasetConfig(hours=0.04, seed=3)
    write_dataset(tmp_path / "dialogues", dialogues, speaker=ToneSpeaker(), show_progress=False)
    assert settings().run.target == "auto"
    result = train_codec(settings("run.steps=4"), options(tmp_path / "dialogues", tmp_path / "run"))
    assert checkpoint(tmp_path / "run")["phones"] == ["t"]
    assert result["valid_phones_right_voiced"] >= 0


def test_units_tell_sounds_apart() -> None:
    seconds = torch.arange(24_000) / 24_000
    low, high = (0.3 * torch.sin(2 * torch.pi * hz * seconds) for hz in (200.0, 3000.0))
    pcm = torch.stack([low, high, torch.zeros(24_000)])[:, None][..., : 12 * 1920]
    units = AcousticUnits(6)
    units.start(pcm, torch.Generator().manual_seed(0))
    classes = units(pcm)
    assert classes.shape == (3, 12, 4)
    middle = [set(classes[i, 2:-2].flatten().tolist()) for i in range(3)]
    assert not middle[0] & middle[1]
    assert not middle[0] & middle[2]
    assert not middle[1] & middle[2]


def test_a_folder_with_a_run_is_not_overwritten_and_settings_are_kept(data: Path, straight: Path) -> None:
    with pytest.raises(ConfigError, match="go on with --resume"):
        train_codec(settings("run.steps=10"), options(data, straight))
    with pytest.raises(ConfigError, match=r"losses\.phones is 9\.0 but the run has 0\.2"):
        train_codec(settings("run.steps=10", "losses.phones=9.0"), options(data, straight, resume=True))
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        train_codec(settings("run.steps=10"), options(data, straight, device="tpu"))


def test_a_damaged_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-000000003.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="checkpoint"):
        train_codec(settings("run.steps=10"), options(data, tmp_path, resume=True))


def test_divergence_is_told_and_leaves_the_last_checkpoint(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not finite; lower optimiser\.learning_rate"):
        train_codec(
            settings("run.steps=50", "run.save_every=1", "optimiser.learning_rate=1e30"), options(data, tmp_path)
        )
    assert (tmp_path / "checkpoints").is_dir()


def test_minutes_end_a_run(data: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    result = train_codec(settings("run.steps=0", "run.minutes=0.01"), options(data, tmp_path))
    assert result["is_done"]
    assert result["minutes"] >= 0.01
    assert time.monotonic() - begun < 20
    assert threading.active_count() < 10


def test_the_command_trains_and_resumes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [part for change in CHANGES for part in ("--set", change)]
    arguments = ["train-codec", "--data", str(data), "--out", str(tmp_path), "--device", "cpu", "--quiet", *changes]
    assert main([*arguments, "--steps", "2"]) == 0
    assert main([*arguments, "--steps", "3", "--resume"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["step"] == 3
    assert main([*arguments, "--steps", "3"]) == 2
    assert "go on with --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("run.bach=3", "unknown key"),
        ("run.batch=0", "1 or more"),
        ("run.target=words", "use auto"),
        ("run.minutes=0", "needs an end"),
        ("model.d_model=20", "must equal dimension"),
        ("losses.mel_bands=[1]", "one length"),
        ("run.clip_frames=1", "what is left of a clip must be longer"),
        ("run.lead_frames=11", "what is left of a clip must be longer"),
        ("losses.phase_power=0.0", "phase_power must lie"),
        ("losses.phases=1.0", "needs run.framed_channel"),
        ("quantizer.start_vectors=3", "at least the cardinality"),
        ("run.weights_dtype=int8", "use float16"),
        ("batch=3", "table.key=value"),
    ],
)
def test_presets_that_cannot_be_are_refused(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CodecTraining.load(changes=[change])


def test_the_shipped_preset_is_small_enough_to_ship() -> None:
    from duologue_align.codec.network import MimiNetwork
    from duologue_align.codec.weights import released_tensors

    preset = CodecTraining.load()
    with torch.device("meta"):
        network = MimiNetwork(preset.model)
    tensors = released_tensors(network.to_empty(device="cpu"))
    assert preset.run.weights_dtype == "float16"
    assert 2 * sum(tensor.numel() for tensor in tensors.values()) < 13e6
    assert preset.model.frame_samples == 1920
    assert preset.model.total_codebooks == 8
