"""The ONNX engine against moshi's own generation loop and against the torch engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("moshi")

import lm_cases  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.engine.onnx_engine import OnnxEngine  # noqa: E402
from duologue.engine.torch_engine import TorchEngine  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue.model.config import LMConfig  # noqa: E402
from duologue.types import StepOutput  # noqa: E402

FRAMES = 300
GREEDY = Sampling(temperature_text=0, temperature_audio=0)
SHAPES = {**lm_cases.SHAPES, "kyutai_tiny": lm_cases.KYUTAI_TINY}
# moshi itself cannot stream a depth transformer whose steps share their weights.
MOSHI_SHAPES = [name for name, config in lm_cases.SHAPES.items() if config.depformer_weights_per_step]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(config: LMConfig, folder: Path) -> tuple[Any, Checkpoint]:
    model = lm_cases.moshi_model(config, gain=3.0)
    return model, lm_cases.checkpoint_of(model, config, folder / "model.safetensors")


def user_frames(config: LMConfig, count: int = FRAMES, *, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.card, (count, config.user_q), dtype=np.int32)


def frame_of(output: StepOutput) -> list[int] | None:
    return None if output.agent_codes is None else [output.text_token, *output.agent_codes.tolist()]


def moshi_frames(model: Any, frames: np.ndarray) -> list[list[int] | None]:
    from moshi.models.lm import LMGen

    found: list[list[int] | None] = []
    generator = LMGen(model, use_sampling=False)
    with torch.no_grad(), generator.streaming(1):
        for codes in frames:
            output = generator.step(torch.from_numpy(codes.astype(np.int64))[None, :, None])
            found.append(None if output is None else output[0, :, 0].tolist())
    return found


@pytest.mark.parametrize("name", MOSHI_SHAPES)
def test_greedy_tokens_equal_moshis(name: str, tmp_path: Path) -> None:
    config = SHAPES[name]
    model, checkpoint = build(config, tmp_path)
    frames = user_frames(config)
    stream = OnnxEngine.load(checkpoint).stream(seed=0, sampling=GREEDY)
    found = [frame_of(stream.step(codes)) for codes in frames]
    assert found == moshi_frames(model, frames)
    assert found[: config.max_delay] == [None] * config.max_delay
    assert len({tuple(frame) for frame in found if frame}) > FRAMES // 10, "the model only repeats itself"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(top_k_text=0, top_k_audio=5, padding_bias=1.5)])
def test_tokens_and_logprobs_equal_the_torch_engines(name: str, sampling: Sampling, tmp_path: Path) -> None:
    config = SHAPES[name]
    _, checkpoint = build(config, tmp_path)
    frames = user_frames(config)
    onnx, torch_ = (engine.load(checkpoint).stream(seed=11, sampling=sampling) for engine in (OnnxEngine, TorchEngine))
    for index, codes in enumerate(frames):
        one, two = onnx.step(codes), torch_.step(codes)
        assert frame_of(one) == frame_of(two), f"frame {index}"
        np.testing.assert_allclose(one.logprobs, two.logprobs, rtol=0, atol=1e-4, err_msg=f"frame {index}")


@pytest.mark.parametrize("name", ["moshi", "long_delays"])
def test_prefill_and_forced_text_equal_the_torch_engines(name: str, tmp_path: Path) -> None:
    config = SHAPES[name]
    _, checkpoint = build(config, tmp_path)
    frames, draw = user_frames(config, 40), np.random.default_rng(2)
    prompt = draw.integers(0, [config.text_card] + [config.card] * config.n_q, (23, config.num_streams))
    given = draw.standard_normal((5, config.dim)).astype(np.float32)
    onnx, torch_ = (engine.load(checkpoint).stream(seed=11) for engine in (OnnxEngine, TorchEngine))
    for index, codes in enumerate(frames):
        if index in (0, 7):
            onnx.prefill(prompt, embeddings=given if index == 0 else None)
            torch_.prefill(prompt, embeddings=given if index == 0 else None)
        forced = int(draw.integers(config.text_card)) if index % 3 == 0 else None
        one, two = (stream.step(codes, forced_text=forced) for stream in (onnx, torch_))
        assert frame_of(one) == frame_of(two), f"frame {index}"
        np.testing.assert_allclose(one.logprobs, two.logprobs, rtol=0, atol=1e-4, err_msg=f"frame {index}")


def test_prefill_predicts_what_moshis_training_pass_predicts(tmp_path: Path) -> None:
    config = SHAPES["moshi"]
    model, checkpoint = build(config, tmp_path)
    frames = 9
    prompt = np.random.default_rng(2).integers(
        0, [config.text_card] + [config.card] * config.n_q, (frames, config.num_streams)
    )
    stream = OnnxEngine.load(checkpoint).stream(seed=0, sampling=GREEDY)
    stream.prefill(prompt)
    output = stream.step(user_frames(config, 1)[0])
    assert output.agent_codes is not None
    # Frame 0 is never seen; what the last forced position predicts is the frame after the prompt.
    codes = torch.zeros((1, config.num_streams, frames), dtype=torch.int64)
    codes[0, :, : frames - 1] = torch.from_numpy(prompt[1:].T)
    codes[0, 0, -1] = output.text_token
    with torch.no_grad():
        expected = model(codes)
    assert int(expected.text_logits[0, 0, -1].argmax()) == output.text_token
    assert int(expected.logits[0, 0, -1].argmax()) == output.agent_codes[0]
