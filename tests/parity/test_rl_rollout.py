"""Rollouts against step-by-step generation, against other batches, and against the update's own view of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lm_cases  # noqa: E402
import rl_case  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.model.config import NO_TOKEN, UNGENERATED  # noqa: E402
from duologue.model.personaplex import make_prompt  # noqa: E402
from duologue_align.rl.objective import kept_logprobs  # noqa: E402
from duologue_align.rl.rollout import roll_out, roll_out_all  # noqa: E402
from duologue_align.rl.trainer import Scorer  # noqa: E402

SAMPLING = Sampling(top_k_text=9, top_k_audio=7, padding_bias=0.5)
CONFIG = replace(lm_cases.MOSHI_LIKE, context=30)
SHAPES = {
    "moshi": CONFIG,
    "window shorter than the rollout": replace(CONFIG, context=6),
    "long delays": lm_cases.SHAPES["long_delays"],
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def row_of(rollouts: Any, index: int) -> list[Any]:
    length = int(rollouts.lengths[index])
    return [
        rollouts.positions[index, :, : length + 1],
        rollouts.heard[index, :, :length],
        rollouts.in_window[index, :, :length],
    ]


def assert_same_row(one: Any, first: int, two: Any, second: int) -> None:
    for mine, theirs in zip(row_of(one, first), row_of(two, second), strict=True):
        assert torch.equal(mine, theirs)
    length = int(one.lengths[first])
    found, expected = one.logprobs[first, :, :length], two.logprobs[second, :, :length]
    torch.testing.assert_close(found, expected, equal_nan=True, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_update_sees_the_log_probabilities_that_were_drawn(config: Any) -> None:
    model = rl_case.model(config)
    scenes = [rl_case.scene(config, frames=length, window=5, seed=length) for length in (9, 14)]
    rollouts = roll_out(model, scenes, [(0, 1), (0, 2)], SAMPLING)
    is_drawn = ~torch.isnan(rollouts.logprobs)
    assert int(is_drawn[:, 0].sum()) == 9 + 14
    for stream, temperature, kept in ((0, 0.7, 9), (1, 0.8, 7), (config.dep_q, 0.8, 7)):
        mask = is_drawn[:, stream]
        with torch.no_grad():
            text, audio = Scorer(model)(rollouts.positions, mask, mask, None)
        logits = text if stream == 0 else audio[:, stream - 1]
        bias = torch.zeros(logits.shape[1])
        if stream == 0:
            bias[config.existing_text_padding_id] = 0.5
        tokens = rollouts.positions[:, stream, 1:][mask]
        # Codes that fall before a conversation's first frame are drawn but shown as initial tokens.
        is_shown = tokens < logits.shape[1]
        found = kept_logprobs(logits[is_shown], tokens[is_shown], temperature=temperature, kept=kept, padding_bias=bias)
        torch.testing.assert_close(found, rollouts.logprobs[:, stream][mask][is_shown], atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("config", [SHAPES["moshi"], SHAPES["long delays"]], ids=["moshi", "long delays"])
def test_frames_read_in_one_pass_are_frames_stepped(config: Any) -> None:
    """A row beside one without a history is stepped through its own; alone it is read in one pass."""
    model = rl_case.model(config)
    with_history = rl_case.scene(config, frames=16, window=5, given=8, seed=1)
    without = rl_case.scene(config, frames=13, window=5, seed=2)
    alone = roll_out(model, [with_history], [(3,)], SAMPLING)
    stepped = roll_out(model, [with_history, without], [(3,), (4,)], SAMPLING)
    assert torch.isnan(alone.logprobs[0, 0, :7]).all()
    assert torch.equal(alone.positions[0], stepped.positions[0]), "what a row draws does not hang on its neighbour"
    mask = ~torch.isnan(stepped.logprobs[0, 0])
    assert mask.tolist() == [False] * 7 + [True] * 9
    for rollouts in (alone, stepped):
        row = rollouts.rows(torch.tensor([0]))
        is_drawn = ~torch.isnan(row.logprobs[:, 0])
        with torch.no_grad():
            logits, _ = Scorer(model)(row.positions, is_drawn, None, None)
        bias = torch.zeros(logits.shape[1])
        bias[config.existing_text_padding_id] = 0.5
        tokens = row.positions[:, 0, 1:][is_drawn]
        found = kept_logprobs(logits, tokens, temperature=0.7, kept=9, padding_bias=bias)
        torch.testing.assert_close(found, row.logprobs[:, 0][is_drawn], atol=3e-5, rtol=1e-4)


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = rl_case.model(CONFIG)
    scenes = [rl_case.scene(CONFIG, frames=length, window=4, seed=length) for length in (11, 20, 7, 20)]
    seeds = [(5, index) for index in range(4)]
    together = roll_out(model, scenes, seeds, SAMPLING)
    assert together.lengths.tolist() == [11, 20, 7, 20]
    apart = roll_out_all(model, scenes, seeds, SAMPLING, rows=2)
    for index in range(4):
        alone = roll_out(model, [scenes[index]], [seeds[index]], SAMPLING)
        assert_same_row(together, index, alone, 0)
        assert_same_row(together, index, apart, index)
    assert not torch.equal(together.positions[1], together.positions[3])


def test_what_is_heard_and_what_is_learnt_from() -> None:
    model, agent = rl_case.model(CONFIG), 1 + CONFIG.dep_q
    scenes = [rl_case.scene(CONFIG, frames=12, window=5, seed=1), rl_case.scene(CONFIG, frames=8, window=8, seed=2)]
    rollouts = roll_out(model, scenes, [(1,), (2,)], SAMPLING)
    for row, scene in enumerate(scenes):
        assert rollouts.heard[row, :, 0].tolist() == [UNGENERATED] * agent
        for frame in range(1, scene.frames):
            shown = [int(rollouts.positions[row, k, frame + CONFIG.delays[k]]) for k in range(agent)]
            assert rollouts.heard[row, :, frame].tolist() == shown
        user = rollouts.positions[row, agent:]
        for stream in range(CONFIG.user_q):
            delay = CONFIG.delays[agent + stream]
            heard = user[stream, delay + 1 : scene.frames].tolist()
            assert heard == scene.user[stream, 1 : scene.frames - delay].tolist()
        assert user[:, scene.frames + 1 :].eq(NO_TOKEN).all()
    # Text of frames 7..11 of the first, 1..7 of the second (frame 0 is never seen), at positions of the same number.
    text = rollouts.is_action[:, 0]
    assert np.flatnonzero(text[0]).tolist() == [6, 7, 8, 9, 10]
    assert np.flatnonzero(text[1]).tolist() == [0, 1, 2, 3, 4, 5, 6]
    acoustic = rollouts.is_action[:, 2]
    assert np.flatnonzero(acoustic[0]).tolist() == [7, 8, 9, 10, 11]


def test_prompts_with_a_voice() -> None:
    """PersonaPlex: a voice file's embeddings, a role, then the conversation; the update sees the same."""
    config = replace(CONFIG, card=2048, context=60)
    model = rl_case.model(config)
    prompt = make_prompt(config, role_tokens=[5, 6, 7])
    embeddings = (0.3 * np.random.default_rng(0).normal(size=(4, config.dim))).astype(np.float32)
    given = prompt.tokens.T
    scenes = [
        replace(rl_case.scene(config, frames=9, window=6, seed=seed), given=given, embeddings=embeddings)
        for seed in range(2)
    ]
    rollouts = roll_out(model, scenes, [(1,), (2,)], SAMPLING)
    mask = rollouts.is_action[:, 0]
    assert int(mask[0].sum()) == 6
    with torch.no_grad():
        logits, _ = Scorer(model)(rollouts.positions, mask, None, torch.from_numpy(embeddings))
        other, _ = Scorer(model)(rollouts.positions, mask, None, None)
    bias = torch.zeros(logits.shape[1])
    bias[config.existing_text_padding_id] = 0.5
    tokens = rollouts.positions[:, 0, 1:][mask]
    found = kept_logprobs(logits, tokens, temperature=0.7, kept=9, padding_bias=bias)
    torch.testing.assert_close(found, rollouts.logprobs[:, 0][mask], atol=3e-5, rtol=1e-4)
    assert not torch.allclose(logits, other, atol=1e-3)
