"""Batched streaming rollouts against recorded users: everything stays on the device until the last frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from duologue.config import Sampling
from duologue.engine.torch_inputs import draw_settings
from duologue.model.config import NO_TOKEN, UNGENERATED, LMConfig
from duologue.model.generate import FrameGenerator, StepInputs
from duologue.model.lm import LanguageModel
from duologue_align.rl.scenes import Scene

_NOISE_CHUNK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """What B conversations were, all on the model's device.

    Attributes:
        positions: Tokens as the model sees them, delays applied, shape [B, 1 + n_q, T + 1]; NO_TOKEN after a row's end.
        logprobs: Log-probability with which each agent token of position n + 1 was drawn, shape [B, 1 + dep_q, T]; NaN
            where nothing was drawn.
        in_window: Whether the agent token of position n + 1 belongs to a frame of the segment's window, same shape.
        heard: Frame that came out at call n, beside the user's frame n, shape [B, 1 + dep_q, T]; UNGENERATED for none.
        lengths: Frames of each row, shape [B].
    """

    positions: Tensor
    logprobs: Tensor
    in_window: Tensor
    heard: Tensor
    lengths: Tensor

    @property
    def is_action(self) -> Tensor:
        """What is learnt from: tokens that were drawn, in the window; bool, shape [B, 1 + dep_q, T]."""
        return self.in_window & ~torch.isnan(self.logprobs)

    def rows(self, index: Tensor) -> Rollouts:
        """Return some rows, cut to the longest of them."""
        last = int(self.lengths[index].max())
        return Rollouts(
            positions=self.positions[index, :, : last + 1],
            logprobs=self.logprobs[index, :, :last],
            in_window=self.in_window[index, :, :last],
            heard=self.heard[index, :, :last],
            lengths=self.lengths[index],
        )


@torch.inference_mode(False)
@torch.no_grad()
def roll_out(
    model: LanguageModel, scenes: Sequence[Scene], seeds: Sequence[Sequence[int]], sampling: Sampling
) -> Rollouts:
    """Let a model converse with recorded users, one row per scene.

    The cache holds the longest row and no more; rows that are over leave the batch. Frames that every row has fixed are
    read in one pass.

    Args:
        model: In evaluation mode.
        scenes: What each row hears; repeat one for several completions.
        seeds: Of each row's noise: what a row draws depends on its seed, its frame and its logits alone.
        sampling: How tokens are drawn.
    """
    order = sorted(range(len(scenes)), key=lambda index: -scenes[index].frames)
    found = _Batch(model, [scenes[index] for index in order], [seeds[index] for index in order], sampling).run()
    return found.rows(torch.tensor(np.argsort(order), device=model.device))


def roll_out_all(
    model: LanguageModel, scenes: Sequence[Scene], seeds: Sequence[Sequence[int]], sampling: Sampling, *, rows: int
) -> Rollouts:
    """Do as `roll_out` with any number of rows, `rows` of similar length at a time."""
    order = sorted(range(len(scenes)), key=lambda index: -scenes[index].frames)
    chunks = [order[begin : begin + rows] for begin in range(0, len(order), rows)]
    parts = [roll_out(model, [scenes[i] for i in part], [seeds[i] for i in part], sampling) for part in chunks]
    return merge(parts).rows(torch.tensor(np.argsort(order), device=model.device))


def merge(parts: Sequence[Rollouts]) -> Rollouts:
    """Return the rows of several batches as one, padded to the longest."""
    total = max(part.logprobs.shape[2] for part in parts)

    def together(name: str, fill: float) -> Tensor:
        tensors = [getattr(part, name) for part in parts]
        last = total + 1 if name == "positions" else total
        return torch.cat([functional.pad(item, (0, last - item.shape[-1]), value=fill) for item in tensors])

    return Rollouts(
        positions=together("positions", NO_TOKEN),
        logprobs=together("logprobs", math.nan),
        in_window=together("in_window", False),
        heard=together("heard", UNGENERATED),
        lengths=torch.cat([part.lengths for part in parts]),
    )


class _Batch:
    """Rows in order of falling length."""

    def __init__(
        self, model: LanguageModel, scenes: Sequence[Scene], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> None:
        config, device = model.config, model.device
        self._model, self._config, self._scenes, self._sampling = model, config, scenes, sampling
        self._agent = 1 + config.dep_q
        self._lengths = np.array([scene.frames for scene in scenes])
        self._total = int(self._lengths[0])
        frames = np.full((len(scenes), config.num_streams, self._total), UNGENERATED, dtype=np.int64)
        for row, scene in enumerate(scenes):
            fixed = scene.given.shape[1]
            frames[row, :, :fixed] = scene.given
            frames[row, self._agent : self._agent + config.user_q, fixed : scene.frames] = scene.user
        self._frames = torch.from_numpy(frames).to(device)
        self._positions = delayed(self._frames, config)
        firsts = [max(0, scene.given.shape[1] - 1) for scene in scenes]
        self._noise = _Noise(seeds, firsts, sampling, config, device)

    def run(self) -> Rollouts:
        device, agent = self._model.device, self._agent
        batch, total = len(self._scenes), self._total
        generator = FrameGenerator(self._model, batch, positions=total)
        begin = self._prefill(generator)
        positions = self._positions
        logprobs = torch.full((batch, agent, total), float("nan"), device=device)
        heard = torch.full((batch, agent, total), UNGENERATED, device=device)
        users = self._frames[:, agent : agent + self._config.user_q].clamp(min=0)
        settings = replace(draw_settings(self._sampling, self._config, device), is_ranked=False)
        is_live = torch.ones(batch, dtype=torch.bool, device=device)
        for call in range(begin, total):
            rows = int((self._lengths > call).sum())
            if rows < generator.batch_size:
                generator.narrow(rows)
            noise_text, noise_audio = self._noise.take(rows, call)
            inputs = StepInputs(
                user_codes=users[:rows, :, call],
                forced=positions[:rows, :agent, call + 1],
                noise_text=noise_text,
                noise_audio=noise_audio,
                is_live=is_live[:rows],
                settings=settings,
            )
            out = generator.step(inputs)
            positions[:rows, :agent, call + 1] = out.tokens
            logprobs[:rows, :, call] = out.logprobs
            heard[:rows, :, call] = out.frame
        return self._finish(positions, logprobs, heard)

    def _prefill(self, generator: FrameGenerator) -> int:
        """Read the frames that all rows have fixed, but the last; return the first call to be stepped."""
        fixed = int(min(scene.given.shape[1] for scene in self._scenes))
        begin = max(0, fixed - 1)
        if begin:
            embeddings = self._scenes[0].embeddings
            generator.prefill(self._frames[:, :, :begin], None if embeddings is None else torch.from_numpy(embeddings))
            generator.force(self._frames[:, : self._agent, begin])
        return begin

    def _finish(self, positions: Tensor, logprobs: Tensor, heard: Tensor) -> Rollouts:
        config, device, agent = self._config, self._model.device, self._agent
        initial = self._model.initial_tokens()
        delays = torch.tensor(config.delays, device=device)[:, None]
        place = torch.arange(self._total + 1, device=device)
        positions = torch.where(place <= delays, initial[:, None], positions)
        lengths = torch.from_numpy(self._lengths).to(device)
        is_over = place >= lengths[:, None] + 1
        positions = torch.where(is_over[:, None] | (positions < 0), NO_TOKEN, positions)
        frame = place[1:] - delays[:agent]
        first = torch.tensor([max(1, scene.first) for scene in self._scenes], device=device)[:, None, None]
        in_window = (frame >= first) & (frame < lengths[:, None, None]) & ~is_over[:, None, 1:]
        return Rollouts(positions=positions, logprobs=logprobs, in_window=in_window, heard=heard, lengths=lengths)


class _Noise:
    """Gumbel noise of each row, from a generator of its own."""

    def __init__(
        self,
        seeds: Sequence[Sequence[int]],
        firsts: Sequence[int],
        sampling: Sampling,
        config: LMConfig,
        device: torch.device,
    ) -> None:
        self._text, self._audio, self._depth = sampling.kept_text(config), sampling.kept_audio(config), config.dep_q
        self._generators = [torch.Generator(device).manual_seed(_whole_seed(seed)) for seed in seeds]
        # Rows begin at their own first free call, so that what they draw does not hang on their neighbours.
        self._firsts = torch.tensor(firsts, device=device)
        self._starts = firsts
        width = self._text + self._depth * self._audio
        self._chunk = torch.zeros(len(seeds), _NOISE_CHUNK, width, device=device)
        self._rows = torch.arange(len(seeds), device=device)

    def take(self, rows: int, call: int) -> tuple[Tensor, Tensor]:
        """Return a call's noise of the first rows: shapes [rows, K_text] and [rows, dep_q, K_audio].

        Calls come in order; rows that are not free yet have none of theirs used up.
        """
        for row in range(rows):
            if call >= self._starts[row] and (call - self._starts[row]) % _NOISE_CHUNK == 0:
                fresh = self._chunk[row].uniform_(generator=self._generators[row])
                fresh.log_().neg_().log_().neg_()
        now = self._chunk[self._rows[:rows], (call - self._firsts[:rows]) % _NOISE_CHUNK]
        return now[:, : self._text], now[:, self._text :].reshape(rows, self._depth, self._audio)


def delayed(frames: Tensor, config: LMConfig) -> Tensor:
    """Return where frames stand for the model, shape [B, 1 + n_q, T + 1], from frames before delays, [B, 1 + n_q, T].

    Position p holds frame p - delay; frame 0 is never seen, so that up to p = delay there is nothing (UNGENERATED).
    Source: the schedule of moshi 0.2.13 LMGen.
    """
    batch, streams, length = frames.shape
    positions = torch.full((batch, streams, length + 1), UNGENERATED, dtype=frames.dtype, device=frames.device)
    for stream, delay in enumerate(config.delays):
        kept = max(0, min(length - delay, length - 1))
        positions[:, stream, delay + 1 : delay + 1 + kept] = frames[:, stream, 1 : 1 + kept]
    return positions


def _whole_seed(parts: Sequence[int]) -> int:
    return int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint64)[0] >> np.uint64(1))
