"""Training sequences: windows of dialogues at model positions, in an order that depends on (seed, number) alone.

At position 0 the model sees initial tokens, at position p of a conversation frame p, each stream shifted by its delay;
what it predicts there stands at position p + 1. A conversation's frame 0 is never seen (the runtime discards it, as
moshi does). A window that begins at position 0 of a dialogue is a conversation's beginning; any other window begins
with the real tokens before it, so that only beginnings teach how to begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from duologue.errors import ConfigError
from duologue.model.config import NO_TOKEN, LMConfig
from duologue_align.sft.shards import Codes

Positions = npt.NDArray[np.int64]

HEARD_DELAY = 6
"""Frames (80 ms) from the beginning of a user's word to where the model is to tell it: most of it has sounded then."""


def positions_of(codes: Codes, number: int, begin: int, length: int, config: LMConfig) -> Positions:
    """Return what a conversation looks like to the model at positions begin..begin + length.

    Args:
        codes: The dialogues.
        number: Which of them.
        begin: First position, 0 for the initial tokens.
        length: Positions to predict.
        config: Delays and initial tokens.

    Returns:
        Tokens, int64, shape [1 + n_q, length + 1]; -1 past the end of the dialogue.
    """
    first = max(0, begin - config.max_delay)
    frames = codes.read(number, first, begin + length + 1).astype(np.int64)
    positions = np.full((config.num_streams, length + 1), NO_TOKEN, dtype=np.int64)
    initial = [config.text_card] + [config.card] * config.n_q
    for stream, delay in enumerate(config.delays):
        # Position p holds frame p - delay; up to p = delay it holds the initial token.
        start = max(0, delay + 1 - begin)
        kept = frames[stream, begin + start - delay - first :][: max(0, length + 1 - start)]
        positions[stream, :start] = initial[stream]
        positions[stream, start : start + len(kept)] = kept
    return positions


def heard_positions(codes: Codes, number: int, begin: int, length: int) -> Positions:
    """Return the user's text at positions begin..begin + length, int64, shape [length + 1]; -1 where there is none."""
    first = begin - HEARD_DELAY
    heard = codes.read(number, max(0, first), max(0, first + length + 1))[-1].astype(np.int64)
    positions = np.full(length + 1, NO_TOKEN, dtype=np.int64)
    start = max(0, -first)
    positions[start : start + len(heard)] = heard
    return positions


def window_tokens(codes: Codes, number: int, begin: int, length: int, config: LMConfig) -> Positions:
    """Return `positions_of` with `heard_positions` as one more row, int64, shape [2 + n_q, length + 1]."""
    positions = positions_of(codes, number, begin, length, config)
    return np.concatenate([positions, heard_positions(codes, number, begin, length)[None]])


@dataclass(frozen=True, slots=True)
class Window:
    """Where a training sequence lies: a dialogue by its place in the list, and its first position."""

    dialogue: int
    begin: int


class WindowOrder:
    """An endless shuffled sequence of windows that covers every dialogue about once per round.

    A dialogue gives as many windows as are needed to cover it. The first is its beginning; the others are spread over
    the rest and moved at random, by at most half of their distance, each round.
    """

    def __init__(self, frames: Sequence[int], length: int, seed: int) -> None:
        """Prepare the order.

        Args:
            frames: Length of each dialogue.
            length: Positions to predict in each window.
            seed: Same seed, same windows.

        Raises:
            ConfigError: No dialogue is longer than one frame.
        """
        self.length, self.seed = length, seed
        # Frame 0 is never predicted.
        self._spans = [max(0, count - 1) for count in frames]
        counts = [-(-span // length) for span in self._spans]
        self._owners = np.repeat(np.arange(len(frames)), counts)
        self._places = np.concatenate([np.arange(count) for count in counts]) if counts else np.zeros(0, dtype=np.int64)
        self._counts = counts
        if not len(self._owners):
            raise ConfigError("no dialogue is longer than one frame; encode longer ones")
        self._round = -1
        self._order = np.zeros(0, dtype=np.int64)
        self._shifts = np.zeros(0)

    @property
    def per_round(self) -> int:
        """Windows in one round."""
        return len(self._owners)

    def window(self, number: int) -> Window:
        """Return window `number` of the endless sequence, from 0."""
        turn, index = divmod(number, self.per_round)
        if turn != self._round:
            draw = np.random.default_rng([self.seed, turn])
            self._order, self._shifts = draw.permutation(self.per_round), draw.random(self.per_round)
            self._round = turn
        place = int(self._order[index])
        dialogue, part = int(self._owners[place]), int(self._places[place])
        return Window(dialogue, self._begin(dialogue, part, float(self._shifts[index])))

    def _begin(self, dialogue: int, part: int, shift: float) -> int:
        last = self._spans[dialogue] - self.length
        if part == 0 or last <= 0:
            return 0
        stride = last / (self._counts[dialogue] - 1)
        return min(last, max(1, round((part + shift - 0.5) * stride)))


class WindowBatches:
    """Batches of windows, each a pure function of its step."""

    def __init__(
        self, codes: Codes, config: LMConfig, *, numbers: Sequence[int], length: int, batch: int, seed: int
    ) -> None:
        """Prepare the batches.

        Args:
            codes: The dialogues.
            config: Shape of the model.
            numbers: Which of the dialogues to use.
            length: Positions to predict in each window.
            batch: Windows in a batch.
            seed: Of the order.

        Raises:
            ConfigError: The codes do not fit the model.
        """
        check_fit(codes, config)
        self.batch, self.length = batch, length
        self._codes, self._config, self._numbers = codes, config, list(numbers)
        self._order = WindowOrder([codes.frames(number) for number in numbers], length, seed)

    @property
    def steps_per_round(self) -> float:
        """Batches that cover the data once."""
        return self._order.per_round / self.batch

    def step(self, step: int, *, rank: int = 0, ranks: int = 1) -> Positions:
        """Return the part of a step's batch that one of several processes takes.

        Args:
            step: From 0.
            rank: Number of the process.
            ranks: Processes that share the batch.

        Returns:
            int64, shape [batch / ranks, 2 + n_q, length + 1]; see `window_tokens`.
        """
        numbers = range(step * self.batch + rank, (step + 1) * self.batch, ranks)
        windows = [self._order.window(number) for number in numbers]
        found = [(self._numbers[window.dialogue], window.begin) for window in windows]
        return np.stack([window_tokens(self._codes, *place, self.length, self._config) for place in found])


class BatchFeed:
    """Makes the next batch in a thread while the current one is learnt from."""

    def __init__(self, batches: WindowBatches, *, rank: int = 0, ranks: int = 1) -> None:
        self._batches, self._rank, self._ranks = batches, rank, ranks
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Positions]] | None = None

    def take(self, step: int) -> Positions:
        """Return what `WindowBatches.step` returns, and begin with the step after it."""
        found = self._next[1] if self._next is not None and self._next[0] == step else self._begin(step)
        self._next = (step + 1, self._begin(step + 1))
        return found.result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _begin(self, step: int) -> Future[Positions]:
        return self._thread.submit(self._batches.step, step, rank=self._rank, ranks=self._ranks)


def check_fit(codes: Codes, config: LMConfig) -> None:
    """Check that codes were made for a model.

    Raises:
        ConfigError: Their number or size differs.
    """
    index = codes.index
    found = (index.codebooks, index.codebooks, index.card, index.text_card)
    wanted = (config.dep_q, config.user_q, config.card, config.text_card)
    if found != wanted:
        names = "agent and user codebooks, codes, text pieces"
        raise ConfigError(f"{codes.folder} holds {found} {names}; the model has {wanted}; encode with its own codec")
