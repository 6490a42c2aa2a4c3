"""Batched streaming generation with all state on the device: one pure step per frame, no host synchronisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from duologue.errors import ConfigError, StreamError
from duologue.model.config import UNGENERATED, LMConfig
from duologue.model.lm import LanguageModel
from duologue.model.sampling import DrawSettings, draw
from duologue.model.transformer import Attend, attention


@dataclass(kw_only=True)
class StepInputs:
    """What one step of a batch reads; all on the model's device.

    Attributes:
        user_codes: The users' frames, shape [B, user_q], int64.
        forced: Tokens to use instead of sampling at the next position, shape [B, 1 + dep_q], int64, UNGENERATED where
            free.
        noise_text: Gumbel noise per rank, shape [B, K_text].
        noise_audio: Shape [B, dep_q, K_audio].
        is_live: Rows to advance, shape [B], bool; the others keep their state.
        settings: Sampling settings.
    """

    user_codes: Tensor
    forced: Tensor
    noise_text: Tensor
    noise_audio: Tensor
    is_live: Tensor
    settings: DrawSettings


@dataclass(kw_only=True)
class StepTensors:
    """What one step of a batch yields, on the device.

    Attributes:
        frame: Completed frame, shape [B, 1 + dep_q], UNGENERATED for rows that completed none.
        tokens: Tokens placed at the next position, shape [B, 1 + dep_q].
        logprobs: Log-probabilities of `tokens` where sampled, NaN where forced, shape [B, 1 + dep_q].
    """

    frame: Tensor
    tokens: Tensor
    logprobs: Tensor


@dataclass(kw_only=True)
class GeneratorState:
    """Everything a batch of conversations changes; updated in place, never reallocated.

    Attributes:
        keys: Rotated keys of the last `context` positions, shape [L, B, H_kv, context, D]; position p in slot
            p % context.
        values: Their values.
        ring: Tokens by stream and position modulo max_delay + 2, shape [B, 1 + n_q, max_delay + 2].
        forced: Agent tokens fixed ahead of time, shape [B, 1 + dep_q, max_delay + 2].
        offsets: Calls made per row, shape [B], int64.
    """

    keys: Tensor
    values: Tensor
    ring: Tensor
    forced: Tensor
    offsets: Tensor

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors of the state."""
        for item in fields(self):
            yield getattr(self, item.name)

    def copy_from(self, other: GeneratorState) -> None:
        """Overwrite this state in place.

        Raises:
            StreamError: The other state has another shape or arithmetic.
        """
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
                raise StreamError("the state belongs to a model or a batch of another shape")
            mine.copy_(theirs)

    def clone(self) -> GeneratorState:
        """Return a copy."""
        return GeneratorState(**{item.name: getattr(self, item.name).clone() for item in fields(self)})


class FrameGenerator:
    """Steps a batch of conversations, each row at its own offset.

    Source: the token schedule is that of moshi 0.2.13 LMGen; the cache holds exactly the attention window.
    """

    def __init__(self, model: LanguageModel, batch_size: int = 1, *, positions: int | None = None) -> None:
        """Allocate the state.

        Args:
            model: The model.
            batch_size: Rows.
            positions: Calls that will be made at most, which bounds the cache; None for any number.

        Raises:
            ConfigError: `batch_size` or `positions` is below 1.
        """
        if min(batch_size, 1 if positions is None else positions) < 1:
            raise ConfigError(f"batch_size and positions must be at least 1, got {batch_size} and {positions}")
        self.model = model
        # Until the window is full, attention over it and over all that went before are the same.
        slots = model.config.context if positions is None else min(positions, model.config.context)
        self.config: LMConfig = replace(model.config, context=slots)
        self.batch_size = batch_size
        self.state = _empty_state(model, self.config, batch_size)
        device = model.device
        self._delays = torch.tensor(self.config.delays, device=device)
        self._initial = model.initial_tokens()
        self._agent = 1 + self.config.dep_q
        self._slots = torch.arange(self.config.context, device=device)
        self._rows = torch.arange(batch_size, device=device)
        self._longest = 0

    def span(self) -> int:
        """Return how many cache slots the next step must read at least: no row is longer than that."""
        return min(self._longest + 1, self.config.context)

    def note_steps(self, count: int) -> None:
        """Record that `count` calls of `pure_step` ran, as graph replays do."""
        self._longest += count

    def set_steps(self, count: int) -> None:
        """Record how many steps the longest row has behind it, after the state was overwritten."""
        self._longest = count

    @torch.no_grad()
    def step(self, inputs: StepInputs) -> StepTensors:
        """Advance the live rows by one frame."""
        output = self.pure_step(inputs, self.span())
        self._longest += 1
        return output

    @torch.no_grad()
    def pure_step(self, inputs: StepInputs, span: int) -> StepTensors:
        """Advance the live rows without touching the host, as a CUDA graph captures it.

        Args:
            inputs: Tensors at fixed addresses when captured.
            span: Cache slots to read, at least `span()`.
        """
        state, offsets = self.state, self.state.offsets
        shown = self._begin(inputs)
        hidden, text_logits = self._temporal_step(self.model.embed(shown), span)
        place = (offsets + 1) % self._capacity
        pending = state.forced[self._rows, :, place]
        pending = torch.where(inputs.forced >= 0, inputs.forced, pending)
        tokens, logprobs = self._draw_frame(hidden, text_logits, pending, inputs)
        frame = self._commit(tokens, place, inputs.is_live)
        return StepTensors(frame=frame, tokens=tokens, logprobs=logprobs)

    @torch.no_grad()
    def reset(self, rows: Tensor | None = None) -> None:
        """Start rows over.

        Args:
            rows: Shape [B], bool; None for all.
        """
        state = self.state
        if rows is None:
            self._longest = 0
            rows = torch.ones(self.batch_size, dtype=torch.bool, device=self.model.device)
        state.offsets.masked_fill_(rows, 0)
        state.ring.masked_fill_(rows[:, None, None], UNGENERATED)
        state.forced.masked_fill_(rows[:, None, None], UNGENERATED)

    def narrow(self, rows: int) -> None:
        """Go on with the first `rows` rows alone; the others are over and cost nothing any more."""
        state = self.state
        self.state = GeneratorState(
            keys=state.keys[:, :rows],
            values=state.values[:, :rows],
            ring=state.ring[:rows],
            forced=state.forced[:rows],
            offsets=state.offsets[:rows],
        )
        self._rows = self._rows[:rows]
        self.batch_size = rows

    @torch.no_grad()
    def force(self, frames: Tensor) -> None:
        """Fix the agent's tokens of the current call's frame, before the call.

        Args:
            frames: Text token and agent codes, shape [B, 1 + dep_q].
        """
        state, delays = self.state, self._delays[: self._agent]
        places = ((state.offsets[:, None] + delays) % self._capacity)[..., None]
        is_now = (delays == 0)[None, :, None]
        ring = state.ring[:, : self._agent]
        ring.scatter_(2, places, torch.where(is_now, frames[..., None], ring.gather(2, places)))
        held = state.forced.gather(2, places)
        state.forced.scatter_(2, places, torch.where(is_now, held, frames[..., None]))

    @torch.no_grad()
    def prefill(self, frames: Tensor, embeddings: Tensor | None = None, *, chunk: int = 512) -> None:
        """Show whole frames to rows that have not started, in passes of `chunk` positions, sampling nothing.

        The state afterwards is that of as many steps with every token forced, except that the next call's own
        agent frame has still to be forced or sampled by the caller.

        Args:
            frames: Frames before delays, shape [B, 1 + n_q, T], int64.
            embeddings: Input embeddings that replace those of the first N positions, shape [N, dim], N <= T.
            chunk: Positions per pass; bounds the memory of a pass.

        Raises:
            StreamError: A row has begun.
        """
        length = frames.shape[2]
        if self._longest:
            raise StreamError("frames can be prefilled only before the first step; reset the stream first")
        if length == 0:
            return
        embedded = self.model.embed(self._delayed(frames))
        if embeddings is not None:
            embedded[:, : embeddings.shape[0]] = embeddings.to(embedded)
        for start in range(0, length, chunk):
            self._temporal_chunk(embedded[:, start : start + chunk], start)
        self._fill_rings(frames)
        self.state.offsets += length
        self._longest = length

    @property
    def _capacity(self) -> int:
        return self.config.max_delay + 2

    def _begin(self, inputs: StepInputs) -> Tensor:
        state, offsets = self.state, self.state.offsets
        users = state.ring[:, self._agent :]
        places = ((offsets[:, None] + self._delays[self._agent :]) % self._capacity)[..., None]
        live = inputs.is_live[:, None, None]
        users.scatter_(2, places, torch.where(live, inputs.user_codes[..., None], users.gather(2, places)))
        row = state.ring[self._rows, :, offsets % self._capacity]
        # Idle rows see initial tokens: their ring may still hold UNGENERATED, which has no embedding.
        is_initial = (offsets[:, None] <= self._delays) | ~inputs.is_live[:, None]
        return torch.where(is_initial, self._initial, row)[..., None]

    def _temporal_step(self, embedded: Tensor, span: int) -> tuple[Tensor, Tensor]:
        state, offsets = self.state, self.state.offsets
        slot = offsets % self.config.context
        # The slots fill in order of position, so before the first wrap slot j holds position j.
        is_filled = (self._slots[:span] <= offsets[:, None]) | (offsets[:, None] >= self.config.context)
        mask = is_filled[:, None, None]
        stack = self.model.transformer
        positions = offsets[:, None]
        tables = stack.rope.tables(positions) if stack.rope is not None else None

        def attend_in(layer: int) -> Attend:
            def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
                if stack.rope is not None and tables is not None:
                    queries, keys = stack.rope.rotate(queries, tables), stack.rope.rotate(keys, tables)
                all_keys, all_values = state.keys[layer], state.values[layer]
                all_keys[self._rows, :, slot] = keys[:, :, 0]
                all_values[self._rows, :, slot] = values[:, :, 0]
                return attention(queries, all_keys[:, :, :span], all_values[:, :, :span], mask)

            return attend

        hidden = self.model.out_norm(stack(embedded, positions, attend_in))
        return hidden, self.model.text_linear(hidden)[:, 0]

    def _draw_frame(
        self, hidden: Tensor, text_logits: Tensor, pending: Tensor, inputs: StepInputs
    ) -> tuple[Tensor, Tensor]:
        settings, padding = inputs.settings, self.config.existing_text_padding_id
        text_logits = text_logits.float().clone()
        text_logits[:, padding] += settings.padding_bias
        is_ranked = settings.is_ranked
        token, logprob = draw(
            text_logits, inputs.noise_text, settings.temperature_text, settings.kept_text, is_ranked=is_ranked
        )
        tokens, logprobs = [_choose(pending[:, 0], token)], [logprob]
        cache: list[tuple[Tensor, Tensor]] = []
        for step in range(self.config.dep_q):
            logits = self.model.depth_step(step, hidden, tokens[-1], cache)
            noise = inputs.noise_audio[:, step]
            token, logprob = draw(logits, noise, settings.temperature_audio, settings.kept_audio, is_ranked=is_ranked)
            tokens.append(_choose(pending[:, step + 1], token))
            logprobs.append(logprob)
        drawn = torch.stack(logprobs, dim=1).masked_fill(pending >= 0, float("nan"))
        return torch.stack(tokens, dim=1), drawn

    def _commit(self, tokens: Tensor, place: Tensor, is_live: Tensor) -> Tensor:
        state, live = self.state, is_live[:, None]
        old = state.ring[self._rows, : self._agent, place]
        state.ring[self._rows, : self._agent, place] = torch.where(live, tokens, old)
        held = state.forced[self._rows, :, place]
        state.forced[self._rows, :, place] = torch.where(live, UNGENERATED, held)
        state.offsets += is_live
        max_delay = self.config.max_delay
        places = (state.offsets[:, None] - max_delay + self._delays[: self._agent]) % self._capacity
        frame = state.ring[:, : self._agent].gather(2, places[..., None])[..., 0]
        is_complete = live & (state.offsets[:, None] > max_delay)
        return torch.where(is_complete, frame, UNGENERATED)

    def _delayed(self, frames: Tensor) -> Tensor:
        length = frames.shape[2]
        rows = []
        for index, delay in enumerate(self.config.delays):
            head = min(delay + 1, length)
            initial = self._initial[index].expand(frames.shape[0], head)
            rows.append(torch.cat([initial, frames[:, index, 1 : 1 + length - head]], dim=1))
        return torch.stack(rows, dim=1)

    def _temporal_chunk(self, embedded: Tensor, start: int) -> None:
        state, context, stack = self.state, self.config.context, self.model.transformer
        length = embedded.shape[1]
        positions = torch.arange(start, start + length, device=embedded.device)
        seen = torch.arange(max(0, start - context), start, device=embedded.device)
        delta = positions[:, None] - torch.cat([seen, positions])
        mask = (delta >= 0) & (delta < context)
        kept = min(length, context)
        tables = stack.rope.tables(positions[None]) if stack.rope is not None else None

        def attend_in(layer: int) -> Attend:
            def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
                if stack.rope is not None and tables is not None:
                    queries, keys = stack.rope.rotate(queries, tables), stack.rope.rotate(keys, tables)
                old_keys, old_values = (
                    state.keys[layer][:, :, seen % context],
                    state.values[layer][:, :, seen % context],
                )
                out = attention(queries, torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2), mask)
                state.keys[layer][:, :, positions[-kept:] % context] = keys[:, :, -kept:]
                state.values[layer][:, :, positions[-kept:] % context] = values[:, :, -kept:]
                return out

            return attend

        stack(embedded, positions[None], attend_in)

    def _fill_rings(self, frames: Tensor) -> None:
        length, state = frames.shape[2], self.state
        for index, delay in enumerate(self.config.delays):
            for frame in range(max(0, length - self._capacity + 1), length):
                place = (frame + delay) % self._capacity
                is_ahead = index < self._agent and frame + delay > length
                (state.forced if is_ahead else state.ring)[:, index, place] = frames[:, index, frame]


def _choose(pending: Tensor, sampled: Tensor) -> Tensor:
    return torch.where(pending >= 0, pending, sampled)


def _empty_state(model: LanguageModel, config: LMConfig, batch: int) -> GeneratorState:
    device = model.device
    head_dim = config.dim // config.num_heads
    shape = (config.num_layers, batch, config.num_heads // config.kv_repeat, config.context, head_dim)
    places = config.max_delay + 2
    return GeneratorState(
        keys=torch.zeros(shape, device=device, dtype=model.dtype),
        values=torch.zeros(shape, device=device, dtype=model.dtype),
        ring=torch.full((batch, config.num_streams, places), UNGENERATED, device=device),
        forced=torch.full((batch, 1 + config.dep_q, places), UNGENERATED, device=device),
        offsets=torch.zeros(batch, dtype=torch.int64, device=device),
    )
