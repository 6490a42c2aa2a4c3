"""The torch engine on the CPU: determinism, forcing, prefill, snapshots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import save_file  # noqa: E402

import lm_cases  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.engine.base import NoiseSource, StepEngine  # noqa: E402
from duologue.engine.torch_engine import TorchEngine, TorchStepStream  # noqa: E402
from duologue.engine.torch_graph import bucket_of  # noqa: E402
from duologue.errors import ConfigError, StreamError  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue.model.lm import LanguageModel  # noqa: E402
from duologue.model.sampling import draw  # noqa: E402
from duologue.types import StepOutput  # noqa: E402
from duologue.untrained import random_weights  # noqa: E402

CONFIG = lm_cases.MOSHI_LIKE
SAMPLING = Sampling(top_k_text=10, top_k_audio=8)


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return TorchEngine(LanguageModel(CONFIG))


def users(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CONFIG.card, (count, CONFIG.user_q)).astype(np.int32)


def assert_same(left: StepOutput, right: StepOutput) -> None:
    assert left.text_token == right.text_token
    assert np.array_equal(left.agent_codes, right.agent_codes)
    assert np.allclose(left.logprobs, right.logprobs, atol=1e-5, equal_nan=True)


def run(stream: TorchStepStream, frames: np.ndarray) -> list[StepOutput]:
    return [stream.step(frame) for frame in frames]


def test_is_a_step_engine(engine: TorchEngine) -> None:
    assert isinstance(engine, StepEngine)


def test_seed_decides_the_tokens(engine: TorchEngine) -> None:
    frames = users(12)
    first, second, other = (run(engine.stream(seed=seed, sampling=SAMPLING), frames) for seed in (1, 1, 2))
    for left, right in zip(first, second, strict=True):
        assert_same(left, right)
    assert any(left.text_token != right.text_token for left, right in zip(first, other, strict=True))
    assert first[0].agent_codes is None
    assert first[0].text_token == CONFIG.existing_text_padding_id
    assert first[1].agent_codes is not None
    assert first[1].agent_codes.shape == (CONFIG.dep_q,)
    assert all((output.logprobs <= 0).all() for output in first)


def test_reset_equals_a_new_stream(engine: TorchEngine) -> None:
    stream = engine.stream(seed=1, sampling=SAMPLING)
    run(stream, users(9, seed=5))
    stream.reset(7)
    for left, right in zip(run(stream, users(9)), run(engine.stream(seed=7, sampling=SAMPLING), users(9)), strict=True):
        assert_same(left, right)


def test_snapshot_restores_everything(engine: TorchEngine) -> None:
    stream = engine.stream(seed=3, sampling=SAMPLING)
    run(stream, users(15))
    snapshot = stream.snapshot()
    expected = run(stream, users(10, seed=1))
    stream.sampling = Sampling(temperature_text=0)
    run(stream, users(3, seed=2))
    other = engine.stream(seed=0)
    for restored in (stream, other):
        restored.restore(snapshot)
        for left, right in zip(run(restored, users(10, seed=1)), expected, strict=True):
            assert_same(left, right)


def test_restore_refuses_another_model(engine: TorchEngine) -> None:
    other = TorchEngine(LanguageModel(replace(CONFIG, context=11))).stream(seed=0)
    with pytest.raises(StreamError, match="not of a torch stream"):
        engine.stream(seed=0).restore(other.snapshot())


def test_forced_text_is_the_next_frames_text(engine: TorchEngine) -> None:
    stream = engine.stream(seed=3, sampling=SAMPLING)
    stream.step(users(1)[0], forced_text=17)
    output = stream.step(users(1)[0])
    assert output.text_token == 17
    forced = stream.step(users(1)[0], forced_text=5)
    assert np.isnan(forced.logprobs[0])
    assert not np.isnan(forced.logprobs[1:]).any()


@pytest.mark.parametrize("begun", [0, 4])
def test_prefill_equals_forcing_step_by_step(engine: TorchEngine, begun: int) -> None:
    frames = np.random.default_rng(3).integers(0, CONFIG.card, (20, CONFIG.num_streams))
    whole, pieces = engine.stream(seed=3, sampling=SAMPLING), engine.stream(seed=3, sampling=SAMPLING)
    run(whole, users(begun))
    run(pieces, users(begun))
    whole.prefill(frames)
    for frame in frames:
        pieces.prefill(frame[None])
    for left, right in zip(run(whole, users(10)), run(pieces, users(10)), strict=True):
        assert_same(left, right)


def test_prefill_takes_embeddings_for_tokens(engine: TorchEngine) -> None:
    """Embeddings of other tokens, and those tokens, lead to the same conversation."""
    random = np.random.default_rng(3)
    frames = random.integers(0, CONFIG.card, (20, CONFIG.num_streams))
    stream, expected = engine.stream(seed=3, sampling=SAMPLING), engine.stream(seed=3, sampling=SAMPLING)
    shown: list[torch.Tensor] = []
    original = engine.model.embed
    engine.model.embed = lambda tokens: (shown.append(original(tokens)), shown[-1])[1]  # type: ignore[method-assign]
    expected.prefill(frames)
    engine.model.embed = original  # type: ignore[method-assign]
    scrambled = frames.copy()
    scrambled[:7] = random.integers(0, CONFIG.card, (7, CONFIG.num_streams))
    stream.prefill(np.concatenate([scrambled[:7], frames[7:]]), embeddings=shown[0][0, :8].detach().numpy())
    for left, right in zip(run(stream, users(10)), run(expected, users(10)), strict=True):
        assert_same(left, right)


def test_bad_input_is_refused(engine: TorchEngine) -> None:
    stream = engine.stream(seed=0)
    with pytest.raises(StreamError, match="8 integers"):
        stream.step(np.zeros(7, dtype=np.int32))
    with pytest.raises(StreamError, match="must lie in"):
        stream.step(np.full(8, CONFIG.card, dtype=np.int32))
    with pytest.raises(StreamError, match="forced_text"):
        stream.step(users(1)[0], forced_text=CONFIG.text_card)
    with pytest.raises(StreamError, match="shape"):
        stream.prefill(np.zeros((3, 4), dtype=np.int64))
    stream.step(users(1)[0])
    frames, inputs = np.zeros((3, 17), dtype=np.int64), np.zeros((1, CONFIG.dim), dtype=np.float32)
    with pytest.raises(StreamError, match="before the first step"):
        stream.prefill(frames, embeddings=inputs)


def test_load_refuses_what_is_not_there(tmp_path: Path) -> None:
    save_file(random_weights(CONFIG, seed=0), tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path / "model.safetensors", config=CONFIG)
    with pytest.raises(ConfigError, match="warp drive"):
        TorchEngine.load(checkpoint, device="warp drive")
    with pytest.raises(ConfigError, match="float8"):
        TorchEngine.load(checkpoint, dtype="float8")
    stream = TorchEngine.load(checkpoint, dtype="bfloat16").stream(seed=0)
    assert run(stream, users(3))[-1].agent_codes is not None


def test_sampling_changes_live(engine: TorchEngine) -> None:
    stream = engine.stream(seed=0, sampling=SAMPLING)
    stream.step(users(1)[0])
    stream.sampling = Sampling(temperature_text=0, temperature_audio=0, top_k_text=0, top_k_audio=0)
    output = stream.step(users(1)[0])
    assert (output.logprobs == 0).all()
    stream.sampling = Sampling(padding_bias=1000.0)
    stream.step(users(1)[0])
    assert stream.step(users(1)[0]).text_token == CONFIG.existing_text_padding_id


def test_draw_follows_the_kept_tempered_distribution() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, 3.0, -1.0]])
    kept, temperature = 3, 0.7
    count, config = 4000, replace(CONFIG, text_card=5, card=5, existing_text_padding_id=3)
    sampling, source = Sampling(top_k_text=kept, top_k_audio=5), NoiseSource(9)
    noise = np.stack([source.draw(frame, sampling, config).text for frame in range(count)])
    wide = torch.cat([torch.from_numpy(noise), torch.zeros(count, 2)], dim=1)
    tokens, logprobs = draw(logits.expand(count, 5), wide, torch.tensor(temperature), torch.tensor(kept))
    expected = torch.softmax(torch.tensor([3.0, 2.0, 1.0]) / temperature, dim=0)
    for token, probability in zip((3, 0, 2), expected.tolist(), strict=True):
        assert abs(float((tokens == token).float().mean()) - probability) < 4 * (probability / count) ** 0.5
        assert torch.allclose(logprobs[tokens == token].exp(), torch.tensor(probability))
    assert not torch.isin(tokens, torch.tensor([1, 4])).any()


def test_graph_buckets_cover_the_cache() -> None:
    assert [bucket_of(span, 3000) for span in (1, 128, 129, 2048, 2049, 3000)] == [128, 128, 256, 2048, 3000, 3000]
    assert bucket_of(10, 50) == 50


@pytest.mark.gpu
def test_cuda_graph_equals_eager() -> None:
    torch.manual_seed(0)
    model = LanguageModel(replace(CONFIG, context=200)).cuda()
    graphed = TorchEngine(model, use_cuda_graph=True).stream(seed=1, sampling=SAMPLING)
    eager = TorchEngine(model, use_cuda_graph=False).stream(seed=1, sampling=SAMPLING)
    for frame in users(260):
        left, right = graphed.step(frame), eager.step(frame)
        assert left.text_token == right.text_token
        assert np.array_equal(left.agent_codes, right.agent_codes)
