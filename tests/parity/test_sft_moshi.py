"""The supervised stage against moshi 0.2.13: its loss on moshi's logits, its bundle in moshi's loader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("moshi")

import lm_cases  # noqa: E402
import sft_case  # noqa: E402
from duologue.codec import Mimi, MimiConfig  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.engine.onnx_engine import OnnxEngine  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue.model.load import load_model  # noqa: E402
from duologue_align.sft.loss import LossWeights, stream_sums, target_weights, total_loss  # noqa: E402
from duologue_align.sft.run import train  # noqa: E402
from duologue_align.sft.settings import SftSettings  # noqa: E402
from duologue_align.sft.shards import Codes, CodesIndex, write_shard  # noqa: E402
from duologue_align.sft.trainer import TeacherForcing  # noqa: E402
from duologue_align.sft.windows import positions_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
FRAMES = 120


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def moshi_finetune_loss(output: object, codes: torch.Tensor, text_padding_ids: set[int]) -> float:
    """The two losses of moshi-finetune on moshi's own logits, written out: re-aligned codes, masks, weights."""

    def mean(logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor) -> float:
        weights = torch.where(mask, weights, 0.0)
        chosen = torch.where(mask, targets, 0)
        logprobs = logits.double().nan_to_num().log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
        return float(-(logprobs * weights).sum() / weights.sum())

    text, audio = codes[:, :1], codes[:, 1 : 1 + output.logits.shape[1]]
    text_weights = torch.ones(text.shape)
    for token in text_padding_ids:
        text_weights = torch.where(text == token, 0.5, text_weights)
    audio_weights = torch.ones(audio.shape)
    audio_weights[:, 0] = 100.0
    return mean(output.text_logits, text, output.text_mask, text_weights) + mean(
        output.logits, audio, output.mask, audio_weights
    )


@pytest.mark.parametrize("shape", ["moshi", "long_delays", "grouped_heads"])
def test_the_loss_is_moshi_finetunes_on_moshis_logits(shape: str, tmp_path: Path) -> None:
    config = lm_cases.SHAPES[shape]
    reference = lm_cases.moshi_model(config, gain=2.0)
    model = load_model(lm_cases.checkpoint_of(reference, config, tmp_path / "model.safetensors"))
    draw = np.random.default_rng(1)
    limits = np.array([config.text_card] + [config.card] * config.n_q + [config.text_card])[:, None]
    dialogues = [draw.integers(0, limits, (config.num_streams + 1, frames)).astype(np.int16) for frames in (26, 19)]
    for tokens in dialogues:
        tokens[0] = draw.choice([0, 3, 3, 11], tokens.shape[1])
    write_shard(tmp_path / "shard", {str(number): tokens for number, tokens in enumerate(dialogues)})
    rows = tuple((str(number), "shard", tokens.shape[1]) for number, tokens in enumerate(dialogues))
    index = CodesIndex(codebooks=config.dep_q, card=config.card, text_card=config.text_card, source={}, dialogues=rows)
    index.write(tmp_path)
    codes = Codes(tmp_path)

    # Frame 0 is never seen; the shorter dialogue is padded with -1, as moshi-finetune pads it.
    whole = np.full((2, config.num_streams, 25), -1, dtype=np.int64)
    for row, tokens in enumerate(dialogues):
        whole[row, :, : tokens.shape[1] - 1] = tokens[:-1, 1:]
    with torch.no_grad():
        expected = moshi_finetune_loss(reference(torch.from_numpy(whole)), torch.from_numpy(whole), {0, 3})
        windows = torch.from_numpy(np.stack([positions_of(codes, row, 0, 25, config) for row in range(2)]))
        targets = windows[:, : 1 + config.dep_q, 1:]
        losses = TeacherForcing(model)(windows, targets)
        counts = target_weights(targets, config, LossWeights())
        found = total_loss(stream_sums(losses * counts, config), stream_sums(counts, config), LossWeights())
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_trained_bundle_gives_moshis_greedy_tokens(tmp_path: Path) -> None:
    from moshi.models.lm import LMGen
    from moshi.models.loaders import CheckpointInfo

    codes = sft_case.write_codes(tmp_path, 2, seconds=4.0)
    changes = ["run.steps=25", "run.batch=2", "run.weights_dtype=bfloat16", "run.valid_every=100"]
    bundle = train(SftSettings.load(tmp_path / "preset.toml", changes), codes, tmp_path / "run").bundle
    assert bundle is not None
    info = CheckpointInfo.from_hf_repo(
        "local/folder",
        moshi_weights=bundle / "model.safetensors",
        mimi_weights=bundle / "mimi.safetensors",
        tokenizer=bundle / "tokenizer.model",
        config_path=bundle / "config.json",
        mimi_config_path=bundle / "mimi_config.json",
    )
    assert info.get_text_tokenizer().pad_id() == 3
    mimi, lm = info.get_mimi("cpu"), info.get_moshi("cpu", torch.float32)
    ours = Mimi.load(bundle / "mimi.safetensors", config=MimiConfig.from_file(bundle / "mimi_config.json"))
    assert (mimi.cardinality, mimi.num_codebooks) == (ours.cardinality, ours.num_codebooks)

    stream = OnnxEngine.load(Checkpoint.open(bundle)).stream(
        seed=0, sampling=Sampling(temperature_text=0, temperature_audio=0)
    )
    users = np.random.default_rng(0).integers(0, 64, (FRAMES, 8), dtype=np.int32)
    generator, seen = LMGen(lm, use_sampling=False), set()
    with torch.no_grad(), generator.streaming(1):
        for user in users:
            expected = generator.step(torch.from_numpy(user.astype(np.int64))[None, :, None])
            found = stream.step(user)
            if expected is None:
                assert found.agent_codes is None
                continue
            assert [found.text_token, *found.agent_codes.tolist()] == expected[0, :, 0].tolist()
            seen.add(tuple(expected[0, :, 0].tolist()))
    assert len(seen) > 5
