"""The Moshi-family language model in torch: one definition for training and for inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duologue.model.config import NO_TOKEN, LMConfig
from duologue.model.transformer import Attend, Transformer, attention, make_norm, sequence_attend


@dataclass(frozen=True, kw_only=True)
class TrainOutput:
    """Teacher-forced predictions, aligned with the codes they predict.

    Attributes:
        logits: Audio logits, shape [B, dep_q, T, card]; NaN where the delays leave no prediction.
        mask: Where they count, shape [B, dep_q, T].
        text_logits: Shape [B, 1, T, text_card].
        text_mask: Shape [B, 1, T].
    """

    logits: Tensor
    mask: Tensor
    text_logits: Tensor
    text_mask: Tensor


class TokenEmbedding(nn.Embedding):
    """Embedding whose token -1 is zero, optionally of low rank."""

    def __init__(self, rows: int, dim: int, *, rank: int | None = None) -> None:
        super().__init__(rows, rank or dim)
        self.low_rank = nn.Linear(rank, dim, bias=False) if rank else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed `tokens`, any shape; a dimension is added."""
        y = super().forward(tokens.clamp(min=0))
        y = torch.where((tokens == NO_TOKEN)[..., None], torch.zeros((), dtype=y.dtype, device=y.device), y)
        return y if self.low_rank is None else self.low_rank(y)


class LanguageModel(nn.Module):
    """Temporal transformer over frames and depth transformer over the codebooks of one frame.

    Linear layers are plain `nn.Linear` modules under moshi's module names, so adapters address them by name.

    Source: arXiv 2410.00037 section 3.4; names and arithmetic match moshi 0.2.13 LMModel.
    """

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        dim, depth, rank = config.dim, config.depformer_dim, config.depformer_low_rank_embeddings
        self.emb = nn.ModuleList(TokenEmbedding(config.card + 1, dim) for _ in range(config.n_q))
        self.text_emb = TokenEmbedding(config.text_card + 1, dim)
        self.transformer = _temporal(config)
        self.out_norm = make_norm(config.norm, dim)
        self.text_linear = nn.Linear(dim, config.text_card, bias=False)
        self.depformer_in = nn.ModuleList(nn.Linear(dim, depth, bias=False) for _ in range(config.depformer_inputs))
        self.depformer_emb = nn.ModuleList(
            TokenEmbedding(config.card + 1, depth, rank=rank) for _ in range(config.dep_q - 1)
        )
        self.depformer_text_emb = TokenEmbedding(config.text_card + 1, depth, rank=rank)
        self.depformer = _depth(config)
        self.depformer_norms = nn.ModuleList(
            nn.Identity() if config.depformer_norm is None else make_norm(config.depformer_norm, depth)
            for _ in range(config.dep_q)
        )
        self.linears = nn.ModuleList(nn.Linear(depth, config.card, bias=False) for _ in range(config.dep_q))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.text_emb.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.text_emb.weight.dtype

    def initial_tokens(self) -> Tensor:
        """Return the tokens of the position before the first frame, shape [1 + n_q]."""
        tokens = torch.full((self.config.num_streams,), self.config.card, device=self.device)
        tokens[0] = self.config.text_card
        return tokens

    def embed(self, tokens: Tensor) -> Tensor:
        """Sum the embeddings of all streams.

        Args:
            tokens: Shape [B, 1 + n_q, T], delayed.

        Returns:
            Shape [B, T, dim].
        """
        total: Tensor = self.emb[0](tokens[:, 1])
        for index in range(1, self.config.n_q):
            total = total + self.emb[index](tokens[:, index + 1])
        out: Tensor = total + self.text_emb(tokens[:, 0])
        return out

    def temporal(self, embedded: Tensor) -> Tensor:
        """Run the temporal transformer over whole sequences from position 0; input and output [B, T, dim]."""
        positions = torch.arange(embedded.shape[1], device=embedded.device)[None]
        attend = sequence_attend(self.transformer.rope, positions, self.config.context)
        out: Tensor = self.out_norm(self.transformer(embedded, positions, lambda _: attend))
        return out

    def depth_input(self, step: int, hidden: Tensor, previous: Tensor) -> Tensor:
        """Return the depth transformer's input at one step.

        Args:
            step: Codebook to predict, from 0.
            hidden: Output of the temporal transformer, shape [..., dim].
            previous: Text token for step 0, else the code of step - 1; shape [...].
        """
        embedding = self.depformer_text_emb if step == 0 else self.depformer_emb[step - 1]
        index = self.config.weight_set(step) if self.config.depformer_multi_linear else 0
        out: Tensor = embedding(previous) + self.depformer_in[index](hidden)
        return out

    def depth_logits(self, step: int, output: Tensor) -> Tensor:
        """Return the code logits of one step from the depth transformer's output."""
        logits: Tensor = self.linears[step](self.depformer_norms[step](output))
        return logits

    def depth_sequence(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Predict all codebooks of given frames at once.

        Args:
            hidden: Output of the temporal transformer, shape [B, T, dim].
            tokens: Text token and agent codes of the predicted positions, shape [B, 1 + dep_q or more, T].

        Returns:
            Logits, shape [B, dep_q, T, card].
        """
        batch, length, _ = hidden.shape
        steps = self.config.dep_q
        inputs = torch.stack([self.depth_input(k, hidden, tokens[:, k]) for k in range(steps)], dim=2)
        positions = torch.arange(steps, device=hidden.device)[None]
        attend = sequence_attend(self.depformer.rope, positions, None)
        output = self.depformer(inputs.view(batch * length, steps, -1), positions, lambda _: attend)
        logits = [self.depth_logits(k, output[:, k]).view(batch, length, -1) for k in range(steps)]
        return torch.stack(logits, dim=1)

    def depth_step(self, step: int, hidden: Tensor, previous: Tensor, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Predict one codebook during generation.

        Args:
            step: Codebook, from 0.
            hidden: Shape [B, 1, dim].
            previous: Text token or previous code, shape [B].
            cache: Keys and values of the frame's earlier steps, per layer; [] at step 0. Updated.

        Returns:
            Logits, shape [B, card].
        """
        positions = torch.full((1, 1), step, device=hidden.device)
        attends = [_depth_attend(self.depformer, positions, cache, number) for number in range(self._depth_layers)]
        x = self.depth_input(step, hidden, previous[:, None])
        output = self.depformer(x, positions, attends.__getitem__, step=step)
        return self.depth_logits(step, output[:, 0])

    def forward(self, codes: Tensor) -> TrainOutput:
        """Predict every token of given conversations from what came before.

        Args:
            codes: Text tokens and codes without delays, shape [B, 1 + n_q, T]; -1 for no token.

        Source: moshi 0.2.13 LMModel.forward.
        """
        delays = self.config.delays
        initial = self.initial_tokens()[None, :, None].expand(codes.shape[0], -1, -1)
        delayed = torch.cat([initial, _delay(codes, delays, initial)], dim=2)
        hidden = self.temporal(self.embed(delayed[:, :, :-1]))
        text_logits = self.text_linear(hidden)[:, None]
        logits = self.depth_sequence(hidden, delayed[:, :, 1:])
        agent = slice(1, 1 + self.config.dep_q)
        logits, mask = _undelay(logits, delays[agent])
        text_logits, text_mask = _undelay(text_logits, delays[:1])
        return TrainOutput(
            logits=logits,
            mask=mask & (codes[:, agent] != NO_TOKEN),
            text_logits=text_logits,
            text_mask=text_mask & (codes[:, :1] != NO_TOKEN),
        )

    @property
    def _depth_layers(self) -> int:
        return len(self.depformer.layers)


def _temporal(config: LMConfig) -> Transformer:
    return Transformer(
        config.dim,
        config.num_heads,
        config.num_layers,
        positional_embedding=config.positional_embedding,
        max_period=config.max_period,
        kv_repeat=config.kv_repeat,
        norm=config.norm,
        gating=config.gating,
        feedforward=[config.feedforward_dim],
        layer_scale=config.layer_scale,
    )


def _depth(config: LMConfig) -> Transformer:
    is_per_step = config.depformer_weights_per_step
    return Transformer(
        config.depformer_dim,
        config.depformer_num_heads,
        config.depformer_num_layers,
        positional_embedding=config.depformer_pos_emb,
        max_period=config.depformer_max_period,
        kv_repeat=config.depformer_kv_repeat,
        norm=config.norm,
        gating=config.depformer_gating,
        feedforward=[config.depformer_feedforward(index) for index in range(config.depformer_weight_sets)],
        layer_scale=config.depformer_layer_scale,
        schedule=[config.weight_set(step) for step in range(config.dep_q)] if is_per_step else (),
    )


def _depth_attend(depformer: Transformer, positions: Tensor, cache: list[tuple[Tensor, Tensor]], number: int) -> Attend:
    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if depformer.rope is not None:
            tables = depformer.rope.tables(positions)
            queries, keys = depformer.rope.rotate(queries, tables), depformer.rope.rotate(keys, tables)
        if number < len(cache):
            earlier_keys, earlier_values = cache[number]
            keys, values = torch.cat([earlier_keys, keys], dim=2), torch.cat([earlier_values, values], dim=2)
            cache[number] = (keys, values)
        else:
            cache.append((keys, values))
        return attention(queries, keys, values, None)

    return attend


def _delay(codes: Tensor, delays: Sequence[int], initial: Tensor) -> Tensor:
    rows = []
    for index, delay in enumerate(delays):
        kept = codes.shape[2] - min(delay, codes.shape[2])
        head = initial[:, index].expand(-1, codes.shape[2] - kept)
        rows.append(torch.cat([head, codes[:, index, :kept]], dim=1))
    return torch.stack(rows, dim=1)


def _undelay(logits: Tensor, delays: Sequence[int]) -> tuple[Tensor, Tensor]:
    batch, _, length, _ = logits.shape
    mask = torch.ones(logits.shape[:3], dtype=torch.bool, device=logits.device)
    if not any(delays):
        return logits, mask
    rows = []
    for index, delay in enumerate(delays):
        cut = min(delay, length)
        tail = logits.new_full((batch, cut, logits.shape[3]), float("nan"))
        rows.append(torch.cat([logits[:, index, cut:], tail], dim=1))
        mask[:, index, length - cut :] = False
    return torch.stack(rows, dim=1), mask
