"""The transformer both halves of the model are made of, for whole sequences and for single steps alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from duologue.model.layout import attention_rows, gating_hidden

_SHORT = 1024
"""Keys up to which training on a CPU forms all scores: torch's fused attention takes 1.5 to 3 times as long there."""


class Attend(Protocol):
    """How queries of one layer meet keys: over the sequence itself, or over a cache."""

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return attention's output, shape [B, H, T, D], for queries [B, H, T, D], keys and values [B, H_kv, T, D]."""
        ...


class RMSNorm(nn.Module):
    """Root-mean-square norm with weight `alpha`, shape [1, 1, dim].

    Source: moshi 0.2.13, modules/transformer.py: "rms_norm_f32" computes in float32 with eps 1e-8, "rms_norm" in the
    input's type with 1e-5.
    """

    def __init__(self, dim: int, *, eps: float, in_float32: bool) -> None:
        super().__init__()
        self.eps = eps
        self.in_float32 = in_float32
        self.alpha = nn.Parameter(torch.ones(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of `x`, shape [B, T, dim]."""
        wide = x.float() if self.in_float32 else x
        variance = self.eps + wide.square().mean(dim=-1, keepdim=True)
        return (wide * (self.alpha.to(variance) * torch.rsqrt(variance))).to(x.dtype)


class LayerNormFloat32(nn.LayerNorm):
    """Layer norm computed in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of `x`."""
        weight, bias = self.weight.float(), self.bias.float()
        return functional.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


def make_norm(kind: str, dim: int) -> nn.Module:
    """Return the norm that config.json calls `kind`."""
    if kind == "layer_norm":
        return nn.LayerNorm(dim, eps=1e-5)
    if kind == "layer_norm_f32":
        return LayerNormFloat32(dim, eps=1e-8)
    in_float32 = kind == "rms_norm_f32"
    return RMSNorm(dim, eps=1e-8 if in_float32 else 1e-5, in_float32=in_float32)


class LayerScale(nn.Module):
    """Per-channel factor on a residual branch."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last axis of `x`."""
        return self.scale * x


class Gating(nn.Module):
    """Gated feed-forward: `linear_out(activation(gate) * up)` with gate and up packed in `linear_in`.

    Source: moshi 0.2.13, modules/gating.py.
    """

    def __init__(self, dim: int, feedforward: int, activation: str) -> None:
        super().__init__()
        hidden = gating_hidden(dim, feedforward)
        self.linear_in = nn.Linear(dim, 2 * hidden, bias=False)
        self.linear_out = nn.Linear(hidden, dim, bias=False)
        self.activation = _activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `x`, shape [B, T, dim]."""
        gate, up = self.linear_in(x).chunk(2, dim=-1)
        out: Tensor = self.linear_out(self.activation(gate) * up)
        return out


class Attention(nn.Module):
    """Packed projections around an `Attend`, one set of weights or one per depth step."""

    def __init__(self, dim: int, num_heads: int, kv_repeat: int, schedule: Sequence[int]) -> None:
        super().__init__()
        sets = max(schedule, default=0) + 1
        self.num_heads = num_heads
        self.num_kv_heads = num_heads // kv_repeat
        self.schedule = tuple(schedule)
        rows = attention_rows(dim, num_heads, kv_repeat)
        self.in_projs = nn.ModuleList(nn.Linear(dim, rows, bias=False) for _ in range(sets))
        self.out_projs = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(sets))

    def forward(self, x: Tensor, attend: Attend, step: int | None) -> Tensor:
        """Attend from `x`, shape [B, T, dim]; `step` is the depth step of a single-step call, None for a sequence."""
        batch, length, dim = x.shape
        packed = per_step(self.in_projs, self.schedule, x, step)
        head_dim = dim // self.num_heads
        kv_dim = head_dim * self.num_kv_heads
        queries, keys, values = torch.split(packed, [dim, kv_dim, kv_dim], dim=-1)
        out = attend(
            queries.view(batch, length, self.num_heads, head_dim).transpose(1, 2),
            keys.view(batch, length, self.num_kv_heads, head_dim).transpose(1, 2),
            values.view(batch, length, self.num_kv_heads, head_dim).transpose(1, 2),
        )
        return per_step(self.out_projs, self.schedule, out.transpose(1, 2).reshape(batch, length, dim), step)


class Layer(nn.Module):
    """Pre-norm attention and feed-forward with residuals."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        kv_repeat: int,
        norm: str,
        gating: str,
        feedforward: Sequence[int],
        layer_scale: float | None,
        schedule: Sequence[int],
    ) -> None:
        super().__init__()
        self.schedule = tuple(schedule)
        self.self_attn = Attention(dim, num_heads, kv_repeat, schedule)
        self.norm1 = make_norm(norm, dim)
        self.norm2 = make_norm(norm, dim)
        self.gating: nn.Module | None = None
        if gating == "none":
            self.linear1 = nn.Linear(dim, feedforward[0], bias=False)
            self.linear2 = nn.Linear(feedforward[0], dim, bias=False)
        elif schedule:
            self.gating = nn.ModuleList(Gating(dim, width, gating) for width in feedforward)
        else:
            self.gating = Gating(dim, feedforward[0], gating)
        has_scale = layer_scale is not None
        self.layer_scale_1 = LayerScale(dim, layer_scale or 0.0) if has_scale else nn.Identity()
        self.layer_scale_2 = LayerScale(dim, layer_scale or 0.0) if has_scale else nn.Identity()

    def forward(self, x: Tensor, attend: Attend, step: int | None) -> Tensor:
        """Transform `x`, shape [B, T, dim]."""
        update = self.self_attn(self.norm1(x), attend, step)
        x = x.to(update) + self.layer_scale_1(update)
        update = self._feedforward(self.norm2(x), step)
        out: Tensor = x.to(update) + self.layer_scale_2(update)
        return out

    def _feedforward(self, x: Tensor, step: int | None) -> Tensor:
        if self.gating is None:
            out: Tensor = self.linear2(functional.gelu(self.linear1(x)))
            return out
        if isinstance(self.gating, nn.ModuleList):
            return per_step(self.gating, self.schedule, x, step)
        out = self.gating(x)
        return out


class Transformer(nn.Module):
    """A stack of layers with its positional encoding.

    Attributes:
        layers: The layers.
        rope: Rotary embedding, or None.
        checkpointing: Recompute each layer in the backward pass to save memory.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_layers: int,
        *,
        positional_embedding: str,
        max_period: float,
        kv_repeat: int,
        norm: str,
        gating: str,
        feedforward: Sequence[int],
        layer_scale: float | None,
        schedule: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.has_sin = positional_embedding in ("sin", "sin_rope")
        self.max_period = max_period
        has_rope = positional_embedding in ("rope", "sin_rope", "rope_concat")
        is_interleaved = positional_embedding != "rope_concat"
        self.rope = Rope(dim // num_heads, max_period, is_interleaved=is_interleaved) if has_rope else None
        self.checkpointing = False
        self.layers = nn.ModuleList(
            Layer(
                dim,
                num_heads,
                kv_repeat=kv_repeat,
                norm=norm,
                gating=gating,
                feedforward=feedforward,
                layer_scale=layer_scale,
                schedule=schedule,
            )
            for _ in range(num_layers)
        )

    def forward(
        self, x: Tensor, positions: Tensor, attend: Callable[[int], Attend], *, step: int | None = None
    ) -> Tensor:
        """Run the stack.

        Args:
            x: Inputs, shape [B, T, dim].
            positions: Absolute positions, shape [B or 1, T], int64.
            attend: Attention of each layer, by number.
            step: Depth step of a single-step call, None for a sequence.
        """
        if self.has_sin:
            x = x + sin_embedding(positions, x.shape[-1], self.max_period, x.dtype)
        for number, layer in enumerate(self.layers):
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, attend(number), step, use_reentrant=False)
            else:
                x = layer(x, attend(number), step)
        return x


class Rope:
    """Rotary position embedding, computed in float32.

    Source: arXiv 2104.09864; pairing and rounding as in moshi 0.2.13, modules/rope.py.
    """

    def __init__(self, head_dim: int, max_period: float, *, is_interleaved: bool) -> None:
        self.head_dim = head_dim
        self.max_period = max_period
        self.is_interleaved = is_interleaved

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, each [B, 1, T, head_dim / 2], for positions [B, T]."""
        half = torch.arange(self.head_dim // 2, device=positions.device, dtype=torch.float32)
        frequencies = torch.exp(half * (-math.log(self.max_period) * 2 / self.head_dim))
        angles = frequencies * positions.float()[:, None, :, None]
        return torch.cos(angles), torch.sin(angles)

    def rotate(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Rotate `x`, shape [B, H, T, head_dim]."""
        cos, sin = tables
        if self.is_interleaved:
            pairs = x.reshape(*x.shape[:-1], -1, 2).float()
            real, imaginary = pairs.unbind(-1)
        else:
            real, imaginary = x.float().chunk(2, dim=-1)
        rotated = ((real * cos - imaginary * sin).to(x.dtype), (real * sin + imaginary * cos).to(x.dtype))
        return torch.stack(rotated, dim=-1).flatten(-2) if self.is_interleaved else torch.cat(rotated, dim=-1)


def sin_embedding(positions: Tensor, dim: int, max_period: float, dtype: torch.dtype) -> Tensor:
    """Return sinusoidal embeddings, shape [B, T, dim], of positions [B, T].

    Source: moshi 0.2.13, modules/transformer.py, create_sin_embedding.
    """
    half = dim // 2
    channel = torch.arange(half, device=positions.device, dtype=dtype)
    period = torch.full((), max_period, device=positions.device, dtype=dtype)
    phase = positions.to(dtype)[..., None] / period ** (channel / (half - 1))
    return torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)


def sequence_attend(rope: Rope | None, positions: Tensor, window: int | None) -> Attend:
    """Return causal attention of a sequence over itself.

    Args:
        rope: Rotary embedding, or None.
        positions: Shape [1, T], consecutive.
        window: Positions each query sees, itself included; None for all.
    """
    tables = rope.tables(positions) if rope is not None else None
    length = positions.shape[1]
    mask: Tensor | None = None
    if window is not None and window < length:
        delta = positions[0, :, None] - positions[0, None, :]
        mask = (delta >= 0) & (delta < window)

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if rope is not None and tables is not None:
            queries, keys = rope.rotate(queries, tables), rope.rotate(keys, tables)
        return attention(queries, keys, values, mask, is_causal=mask is None and length > 1)

    return attend


def attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, *, is_causal: bool = False) -> Tensor:
    """Return scaled dot-product attention, repeating shared key-value heads as needed."""
    repeat = queries.shape[1] // keys.shape[1]
    if repeat > 1:
        keys, values = keys.repeat_interleave(repeat, dim=1), values.repeat_interleave(repeat, dim=1)
    if torch.is_grad_enabled() and queries.device.type == "cpu" and keys.shape[2] <= _SHORT:
        return _attention_in_parts(queries, keys, values, mask, is_causal=is_causal)
    return functional.scaled_dot_product_attention(queries, keys, values, mask, is_causal=is_causal)


def _attention_in_parts(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, *, is_causal: bool
) -> Tensor:
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    out: Tensor = scores.softmax(dim=-1).to(values.dtype) @ values
    return out


def per_step(modules: nn.ModuleList, schedule: Sequence[int], x: Tensor, step: int | None) -> Tensor:
    """Apply the weights of each depth step: to one step when `step` is given, else to x[:, t] those of step t."""
    if len(modules) == 1:
        out: Tensor = modules[0](x)
        return out
    if step is not None:
        out = modules[schedule[step]](x)
        return out
    return torch.cat([modules[schedule[t]](x[:, t : t + 1]) for t in range(x.shape[1])], dim=1)


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    source = torch if name in ("sigmoid", "tanh", "relu") else functional
    found: Callable[[Tensor], Tensor] = getattr(source, name)
    return found
