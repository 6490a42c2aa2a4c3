"""Training windows: the same positions that a conversation shows the model, in an order that can be resumed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lm_cases
from duologue.engine.base import TokenDelays
from duologue.errors import ConfigError
from duologue.model.config import LMConfig
from duologue_align.sft.shards import Codes, CodesIndex, write_shard
from duologue_align.sft.windows import HEARD_DELAY, BatchFeed, WindowBatches, WindowOrder, heard_positions, positions_of

FRAMES = (50, 23, 1, 2)
SHAPES = {"moshi": lm_cases.MOSHI_LIKE, "long_delays": replace(lm_cases.SHAPES["long_delays"])}


def write_random(folder: Path, config: LMConfig) -> Codes:
    draw = np.random.default_rng(0)
    limits = np.array([config.text_card] + [config.card] * config.n_q + [config.text_card])[:, None]
    tensors = {f"d{n}": draw.integers(0, limits, (len(limits), f)).astype(np.int16) for n, f in enumerate(FRAMES)}
    folder.mkdir()
    write_shard(folder / "shard-00000.safetensors", tensors)
    rows = tuple((name, "shard-00000.safetensors", tokens.shape[1]) for name, tokens in tensors.items())
    CodesIndex(codebooks=config.dep_q, card=config.card, text_card=config.text_card, source={}, dialogues=rows).write(
        folder
    )
    return Codes(folder)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_positions_are_what_a_conversation_shows(shape: str, number: int, tmp_path: Path) -> None:
    config = SHAPES[shape]
    codes = write_random(tmp_path / "codes", config)
    frames = codes.read(number).astype(np.int64)
    delays, shown = TokenDelays(config), []
    for frame in frames.T:
        shown.append(delays.begin(frame[1 + config.dep_q : -1], agent_frame=frame[: 1 + config.dep_q]))
        delays.commit(np.zeros(1 + config.dep_q))
    whole = positions_of(codes, number, 0, 60, config)
    assert whole.shape == (config.num_streams, 61)
    assert np.array_equal(whole[:, : len(shown)], np.stack(shown, axis=1))
    late = config.max_delay
    assert (whole[:, len(shown) + late :] == -1).all()
    for begin in (1, 2, 3, 7, 20):
        part = positions_of(codes, number, begin, 12, config)
        assert np.array_equal(part, whole[:, begin : begin + 13])


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_what_is_heard_is_told_later(number: int, tmp_path: Path) -> None:
    codes = write_random(tmp_path / "codes", SHAPES["moshi"])
    heard = codes.read(number)[-1]
    for begin in (0, 1, HEARD_DELAY, 20):
        wanted = [at - HEARD_DELAY for at in range(begin, begin + 31)]
        wanted = [int(heard[frame]) if 0 <= frame < len(heard) else -1 for frame in wanted]
        assert heard_positions(codes, number, begin, 30).tolist() == wanted


def test_the_order_is_pure_and_covers_the_data() -> None:
    order, twin = WindowOrder([101, 31, 11, 1], 10, seed=5), WindowOrder([101, 31, 11, 1], 10, seed=5)
    assert order.per_round == 10 + 3 + 1
    forward = [order.window(number) for number in range(42)]
    assert [twin.window(number) for number in reversed(range(42))] == forward[::-1]
    other = WindowOrder([101, 31, 11, 1], 10, seed=6)
    assert [other.window(number) for number in range(42)] != forward
    rounds = [forward[begin : begin + 14] for begin in (0, 14, 28)]
    for windows in rounds:
        assert Counter(window.dialogue for window in windows) == {0: 10, 1: 3, 2: 1}
        assert all(any(w.dialogue == d and w.begin == 0 for w in windows) for d in range(3)), "every beginning is seen"
        assert all(0 <= w.begin <= (101, 31, 11)[w.dialogue] - 1 - 10 for w in windows)
    assert sorted(rounds[0], key=repr) != sorted(rounds[1], key=repr), "the windows move"
    seen = {
        w.begin + p for number in range(14 * 40) for w in [order.window(number)] if w.dialogue == 0 for p in range(10)
    }
    assert seen == set(range(100)), "every position is predicted sooner or later"


def test_processes_share_a_batch(tmp_path: Path) -> None:
    config = SHAPES["moshi"]
    codes = write_random(tmp_path / "codes", config)
    batches = WindowBatches(codes, config, numbers=[0, 1], length=8, batch=4, seed=0)
    whole = batches.step(3)
    assert whole.shape == (4, config.num_streams + 1, 9)
    parts = [batches.step(3, rank=rank, ranks=2) for rank in range(2)]
    assert np.array_equal(np.stack([parts[0], parts[1]], axis=1).reshape(whole.shape), whole)
    assert not np.array_equal(batches.step(4), whole)
    feed = BatchFeed(batches, rank=1, ranks=2)
    for step in (3, 4, 9):
        assert np.array_equal(feed.take(step), batches.step(step, rank=1, ranks=2))
    feed.close()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = SHAPES["moshi"]
    codes = write_random(tmp_path / "codes", config)
    with pytest.raises(ConfigError, match="the model has"):
        WindowBatches(codes, replace(config, card=25), numbers=[0], length=8, batch=4, seed=0)
    with pytest.raises(ConfigError, match="longer than one frame"):
        WindowBatches(codes, config, numbers=[2], length=8, batch=4, seed=0)
    with pytest.raises(ConfigError, match="duologue-align encode"):
        Codes(tmp_path)
