"""Step-wise generation against moshi 0.2.13's LMGen, and the ring cache over long conversations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("moshi")

import lm_cases  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.engine.base import TokenDelays  # noqa: E402
from duologue.engine.torch_inputs import batch_inputs, draw_batch  # noqa: E402
from duologue.model.config import LMConfig  # noqa: E402
from duologue.model.generate import FrameGenerator  # noqa: E402
from duologue.model.lm import LanguageModel  # noqa: E402
from duologue.model.load import load_model  # noqa: E402

FRAMES = 300
GREEDY = Sampling(temperature_text=0, temperature_audio=0, top_k_text=1, top_k_audio=1)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def pair(config: LMConfig, path: Path) -> tuple[Any, LanguageModel]:
    reference = lm_cases.moshi_model(config, seed=3, gain=2.0)
    return reference, load_model(lm_cases.checkpoint_of(reference, config, path / "model.safetensors"))


def greedy_step(
    generator: FrameGenerator, codes: np.ndarray, frame: int, is_live: np.ndarray | None = None
) -> np.ndarray:
    noise = draw_batch([0] * generator.batch_size, frame, GREEDY, generator.config)
    inputs = batch_inputs(codes, noise=noise, sampling=GREEDY, config=generator.config, device="cpu", is_live=is_live)
    return generator.step(inputs).frame.numpy()


def test_rollout_log_probabilities_are_the_trainers(tmp_path: Path) -> None:
    """Sampling everything at temperature 1: each step's log-probability is the training pass's, to rounding."""
    config = lm_cases.SHAPES["long_delays"]
    _, model = pair(config, tmp_path)
    sampling = Sampling(temperature_text=1.0, temperature_audio=1.0, top_k_text=0, top_k_audio=0)
    users = np.random.default_rng(7).integers(0, config.card, (30, 2, config.user_q))
    generator, frames, logprobs = FrameGenerator(model, 2), [], []
    for call in range(30):
        noise = draw_batch([5, 6], call, sampling, config)
        inputs = batch_inputs(users[call], noise=noise, sampling=sampling, config=config, device="cpu")
        output = generator.step(inputs)
        frames.append(output.frame)
        logprobs.append(output.logprobs)
    agent = torch.stack(frames[config.max_delay :], dim=2)
    length = agent.shape[2]
    codes = torch.cat([agent, torch.from_numpy(users[1 : length + 1]).permute(1, 2, 0)], dim=1)
    with torch.no_grad():
        output = model(codes)
    compared = 0
    for stream, delay in enumerate(config.delays[: 1 + config.dep_q]):
        logits, mask = (
            (output.text_logits[:, 0], output.text_mask[:, 0])
            if stream == 0
            else (output.logits[:, stream - 1], output.mask[:, stream - 1])
        )
        trained = torch.log_softmax(logits, dim=-1).gather(2, agent[:, stream, :, None])[..., 0]
        # Item t of the training sequence is frame t + 1, whose token of this stream is sampled in call t + delay.
        sampled = torch.stack([logprobs[t + delay][:, stream] for t in range(length)], dim=1)
        assert (trained - sampled)[mask].abs().max() <= 1e-5
        compared += int(mask.sum())
    assert compared > 200


# moshi itself cannot stream a depth transformer whose steps share their weights.
@pytest.mark.parametrize("shape", [name for name in lm_cases.SHAPES if name != "shared_depth"])
def test_same_tokens_as_lmgen(shape: str, tmp_path: Path) -> None:
    from moshi.models.lm import LMGen

    config = lm_cases.SHAPES[shape]
    reference, model = pair(config, tmp_path)
    users = np.random.default_rng(0).integers(0, config.card, (FRAMES, 2, config.user_q))
    generator, lmgen, seen = FrameGenerator(model, 2), LMGen(reference, use_sampling=False), set()
    with lmgen.streaming(2):
        for call in range(FRAMES):
            expected = lmgen.step(torch.from_numpy(users[call])[..., None])
            found = greedy_step(generator, users[call], call)
            if expected is None:
                assert call < config.max_delay
                assert (found == -2).all()
                continue
            assert np.array_equal(found, expected[..., 0].numpy()), call
            seen.add(tuple(found[0]))
    assert len(seen) > 20


@pytest.mark.parametrize("shape", lm_cases.SHAPES)
def test_steps_follow_teacher_forced_logits(shape: str, tmp_path: Path) -> None:
    """What was generated step by step is what the training pass finds most likely, everywhere."""
    config = lm_cases.SHAPES[shape]
    _, model = pair(config, tmp_path)
    random = np.random.default_rng(4)
    generator, frames = FrameGenerator(model), []
    users = random.integers(0, config.card, (40, config.user_q))
    for call in range(40):
        frames.append(greedy_step(generator, users[call : call + 1], call)[0])
    # Call n completes frame n + 1 - max_delay. Frame 0 is never seen: a training sequence begins with frame 1.
    agent = np.stack(frames[config.max_delay :], axis=1)
    length = agent.shape[1]
    codes = np.concatenate([agent, users[1 : length + 1].T])
    with torch.no_grad():
        output = model(torch.from_numpy(codes)[None])
    choices = torch.cat([output.text_logits.argmax(-1), output.logits.argmax(-1)], dim=1)[0]
    mask = torch.cat([output.text_mask, output.mask], dim=1)[0]
    assert mask.sum() > 30 * (1 + config.dep_q)
    assert np.array_equal(choices[mask].numpy(), agent[mask.numpy()])


def test_rows_reset_and_pause_alone(tmp_path: Path) -> None:
    from moshi.models.lm import LMGen

    config = lm_cases.SHAPES["long_delays"]
    reference, model = pair(config, tmp_path)
    random = np.random.default_rng(1)
    generator, lmgen = FrameGenerator(model, 3), LMGen(reference, use_sampling=False, support_out_of_sync=True)
    with lmgen.streaming(3):
        for call in range(120):
            users = random.integers(0, config.card, (3, config.user_q))
            is_live = random.random(3) < 0.8
            if call in (17, 40, 41, 90):
                rows = torch.tensor([call == 17, call != 17, call == 90])
                lmgen.reset_streaming(rows)
                generator.reset(rows)
            lmgen.set_exec_mask(torch.from_numpy(is_live))
            expected = lmgen.step(torch.from_numpy(users)[..., None])
            found = greedy_step(generator, users, call, is_live)
            assert np.array_equal(found, expected[..., 0].numpy()), call


def test_host_delays_equal_lmgen(tmp_path: Path) -> None:
    """The host ring, fed with tokens the reference is made to sample, shows and returns what the reference does."""
    from moshi.models.lm import LMGen

    config = lm_cases.SHAPES["long_delays"]
    reference, _ = pair(config, tmp_path)
    random = np.random.default_rng(2)
    shown: list[np.ndarray] = []
    original = reference.forward_text
    reference.forward_text = lambda sequence, *rest: (
        shown.append(sequence[0, :, 0].numpy()),
        original(sequence, *rest),
    )[1]
    sampled = np.zeros(1 + config.dep_q, dtype=np.int64)
    lmgen = LMGen(
        reference,
        use_sampling=False,
        on_text_hook=lambda token: token.fill_(int(sampled[0])),
        on_audio_hook=lambda tokens: tokens.copy_(torch.from_numpy(sampled[1:])[None]),
    )
    delays = TokenDelays(config)
    with lmgen.streaming(1):
        for _ in range(40):
            user = random.integers(0, config.card, config.user_q)
            sampled[:] = random.integers(0, config.card, 1 + config.dep_q)
            expected = lmgen.step(torch.from_numpy(user)[None, :, None])
            assert np.array_equal(delays.begin(user), shown[-1])
            found = delays.commit(sampled)
            assert (found is None) == (expected is None)
            if found is not None and expected is not None:
                assert np.array_equal(found, expected[0, :, 0].numpy())


@pytest.mark.parametrize("shape", ["moshi", "long_delays"])
@pytest.mark.parametrize("frames", [1, 2, 7, 33])
def test_prefill_equals_forced_steps(shape: str, frames: int, tmp_path: Path) -> None:
    config = lm_cases.SHAPES[shape]
    _, model = pair(config, tmp_path)
    random = np.random.default_rng(frames)
    prompt = torch.from_numpy(random.integers(0, config.card, (1, config.num_streams, frames)))
    agent = 1 + config.dep_q
    stepped, filled = FrameGenerator(model), FrameGenerator(model)
    for call in range(frames):
        stepped.force(prompt[:, :agent, call])
        greedy_step(stepped, prompt[:, agent:, call].numpy(), call)
    filled.prefill(prompt[:, :, :-1], chunk=5)
    filled.force(prompt[:, :agent, -1])
    greedy_step(filled, prompt[:, agent:, -1].numpy(), frames - 1)
    assert torch.equal(stepped.state.offsets, filled.state.offsets)
    assert torch.allclose(
        stepped.state.keys[:, :, :, : min(frames, config.context)],
        filled.state.keys[:, :, :, : min(frames, config.context)],
        atol=1e-5,
    )
    for call in range(frames, frames + 30):
        users = random.integers(0, config.card, (1, config.user_q))
        assert np.array_equal(greedy_step(stepped, users, call), greedy_step(filled, users, call)), call


def test_forced_steps_equal_host_delays(tmp_path: Path) -> None:
    config = lm_cases.SHAPES["long_delays"]
    _, model = pair(config, tmp_path)
    random = np.random.default_rng(5)
    generator, delays = FrameGenerator(model), TokenDelays(config)
    agent = 1 + config.dep_q
    for call in range(40):
        frame = random.integers(0, config.card, config.num_streams)
        is_forced = call < 12 or random.random() < 0.5
        if is_forced:
            generator.force(torch.from_numpy(frame[None, :agent]))
        row = delays.begin(frame[agent:], agent_frame=frame[:agent] if is_forced else None)
        pending = delays.pending()
        noise = draw_batch([0], call, GREEDY, config)
        inputs = batch_inputs(frame[None, agent:], noise=noise, sampling=GREEDY, config=config, device="cpu")
        output = generator.step(inputs)
        tokens = output.tokens[0].numpy()
        assert np.array_equal(tokens[pending >= 0], pending[pending >= 0])
        assert np.array_equal(np.isnan(output.logprobs[0].numpy()), pending >= 0)
        found = delays.commit(tokens)
        assert np.array_equal(output.frame[0].numpy(), np.full(agent, -2) if found is None else found)
        assert (row >= 0).all()


def test_twenty_minutes_in_constant_memory() -> None:
    """Fifteen thousand frames: the state keeps its addresses, and its last window is all that matters."""
    config = replace(
        lm_cases.KYUTAI_TINY,
        n_q=2,
        dep_q=1,
        delays=(0, 0, 1),
        context=50,
        num_layers=1,
        positional_embedding="rope",
        depformer_num_layers=1,
        depformer_weights_per_step_schedule=None,
        depformer_low_rank_embeddings=None,
    )
    torch.manual_seed(0)
    model = LanguageModel(config).eval()
    generator = FrameGenerator(model)
    addresses = [tensor.data_ptr() for tensor in generator.state.tensors()]
    random = np.random.default_rng(0)
    noise = draw_batch([0], 0, GREEDY, config)
    inputs = batch_inputs(np.zeros((1, 1)), noise=noise, sampling=GREEDY, config=config, device="cpu")
    shown = []
    original = model.embed
    model.embed = lambda tokens: (shown.append(tokens[0, :, 0].clone()), original(tokens))[1]  # type: ignore[method-assign]
    for _ in range(15_000):
        inputs.user_codes.fill_(int(random.integers(0, config.card)))
        last = generator.step(inputs)
    assert [tensor.data_ptr() for tensor in generator.state.tensors()] == addresses
    assert int(generator.state.offsets) == 15_000
    with torch.no_grad():
        window = original(torch.stack(shown[-50:], dim=1)[None])
        positions = torch.arange(14_950, 15_000)[None]
        from duologue.model.transformer import sequence_attend

        attend = sequence_attend(model.transformer.rope, positions, 50)
        hidden = model.out_norm(model.transformer(window, positions, lambda _: attend))
        text = int(model.text_linear(hidden)[0, -1].argmax())
    assert text == int(last.tokens[0, 0])
