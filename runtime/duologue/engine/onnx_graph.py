"""The one-frame step as one ONNX graph: temporal transformer, depth transformer unrolled, sampling."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.engine.onnx_writer import CONTRIB, GraphWriter, weights_root
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig

GRAPH_VERSION = 1
"""Raised whenever the graph's maths or its inputs and outputs change."""
METADATA_KEY = "duologue.step_graph"
"""Metadata entry that holds the digest of what the graph was built from."""

_ACTIVATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "silu": ("QuickGelu", CONTRIB, {"alpha": 1.0}),
    "gelu": ("Gelu", "", {}),
    "relu": ("Relu", "", {}),
    "sigmoid": ("Sigmoid", "", {}),
    "tanh": ("Tanh", "", {}),
    "leaky_relu": ("LeakyRelu", "", {"alpha": 0.01}),
    "elu": ("Elu", "", {"alpha": 1.0}),
    "mish": ("Mish", "", {}),
    "softsign": ("Softsign", "", {}),
}
_EPSILON = {"layer_norm": 1e-5, "layer_norm_f32": 1e-8, "rms_norm": 1e-5, "rms_norm_f32": 1e-8}


def graph_digest(checkpoint: Checkpoint, *, switched: Collection[str] = ()) -> str:
    """Return a hash of everything the step graph depends on: its version, the shape, where the weights lie.

    Args:
        checkpoint: The model; only its headers are read.
        switched: As `build_step_graph`.
    """
    root = weights_root(checkpoint)
    pairs = {f"{name}.{side}": ref for name, pair in checkpoint.lora.items() for side, ref in _sides(pair)}
    layout = {
        name: [ref.dtype, ref.shape, [(str(b.path.resolve().relative_to(root)), b.offset) for b in ref.blocks]]
        for name, ref in sorted({**checkpoint.tensors, **pairs}.items())
    }
    content = [GRAPH_VERSION, checkpoint.config.to_dict(), checkpoint.lora_scaling, layout, *sorted(switched)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def build_step_graph(checkpoint: Checkpoint, *, switched: Collection[str] = ()) -> bytes:
    """Write the step graph of a model; its weights stay in the checkpoint's files as external data.

    Inputs: `tokens` int64 [T, 1 + n_q] (-1 embeds to zero), `embeddings` f32 [T, dim] (added to the tokens'),
    `position` int64 scalar (of row 0), `forced` int64 [1 + dep_q] (negative where sampling is free), `noise_text`
    f32 [k_text], `noise_audio` f32 [dep_q, k_audio], `temperatures` f32 [2] (text, audio; > 0), `padding_bias` f32
    [1], and per layer `key_i`, `value_i` f32 [1, kv_heads, context, head_dim]: rings, written at slot
    `position % context`. With T > 1 the rows must not wrap: `position + T <= context`.
    Outputs: `sampled` int64 [1 + dep_q] and `logprobs` f32 [1 + dep_q], both of the last row, and `key_i_out`,
    `value_i_out`, to be bound to the same buffers as the inputs, so that a step writes one slot and copies nothing.

    Args:
        checkpoint: The model; only its headers are read.
        switched: Linear layers with two more inputs each, `LAYER.lora_A` f32 [rank, in] and `LAYER.lora_B`
            f32 [out, rank]: the low-rank update B A of the layer, which so differs from stream to stream.

    Returns:
        A serialised ONNX model, external paths relative to `weights_root(checkpoint)`.

    Raises:
        MissingExtraError: The `onnx` package is not installed.

    Source: moshi 0.2.13, models/lm.py (LMModel.forward_text, forward_depformer) and modules/transformer.py.
    """
    writer, config = GraphWriter(checkpoint, switched=switched), checkpoint.config
    tokens = writer.add_input("tokens", "INT64", ["T", config.num_streams])
    position = writer.add_input("position", "INT64", [])
    hidden = _temporal(writer, config, tokens, position)
    sampler = _Sampler(writer, config)
    _depth(writer, config, sampler, hidden)
    sampler.finish()
    return writer.model("step", {METADATA_KEY: graph_digest(checkpoint, switched=switched)})


def _sides(pair: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("A", pair.a), ("B", pair.b)


class _Residual:
    """The residual stream with its last update not yet added, so that addition and norm become one node."""

    def __init__(self, writer: GraphWriter, value: str, norm: str) -> None:
        self._writer = writer
        self._value = value
        self._norm = norm
        self._update: str | None = None

    def add(self, update: str, scale: str) -> None:
        """Add a branch's output, scaled per channel if the model has the scale `scale`."""
        writer = self._writer
        self._update = writer.one("Mul", update, writer.vector(scale)) if writer.has(scale) else update

    def value(self) -> str:
        """Return the stream."""
        if self._update is not None:
            self._value = self._writer.one("Add", self._value, self._update)
            self._update = None
        return self._value

    def normed(self, name: str) -> str:
        """Return the stream after the norm called `name`."""
        if self._update is None:
            return norm(self._writer, self._value, name, self._norm)
        is_rms = self._norm.startswith("rms")
        op = "SkipSimplifiedLayerNormalization" if is_rms else "SkipLayerNormalization"
        parameters = _norm_parameters(self._writer, name, self._norm)
        normed, _, _, self._value = self._writer.many(
            op, self._value, self._update, *parameters, count=4, domain=CONTRIB, epsilon=_EPSILON[self._norm]
        )
        self._update = None
        return normed


def norm(writer: GraphWriter, value: str, name: str, kind: str) -> str:
    """Write one normalisation over the last axis; `kind` is a value of the config key "norm"."""
    op = "SimplifiedLayerNormalization" if kind.startswith("rms") else "LayerNormalization"
    return writer.one(op, value, *_norm_parameters(writer, name, kind), axis=-1, epsilon=_EPSILON[kind])


def _norm_parameters(writer: GraphWriter, name: str, kind: str) -> list[str]:
    if kind.startswith("rms"):
        return [writer.vector(f"{name}.alpha")]
    return [writer.vector(f"{name}.weight"), writer.vector(f"{name}.bias")]


def _feedforward(writer: GraphWriter, residual: _Residual, prefix: str, gating: str, part: str = "") -> None:
    value = residual.normed(f"{prefix}norm2")
    if gating == "none":
        hidden = writer.one("Gelu", writer.linear(value, f"{prefix}linear1"))
        update = writer.linear(hidden, f"{prefix}linear2")
    else:
        module = f"{prefix}gating.{part}"
        op, domain, attributes = _ACTIVATIONS[gating]
        packed = writer.linear(value, f"{module}linear_in")
        gate, up = writer.many("Split", packed, count=2, axis=-1, num_outputs=2)
        active = writer.one(op, gate, domain=domain, **attributes)
        update = writer.linear(writer.one("Mul", active, up), f"{module}linear_out")
    residual.add(update, f"{prefix}layer_scale_2.scale")


def _frequencies(size: int, max_period: float) -> npt.NDArray[np.float32]:
    exponents = np.arange(size // 2, dtype=np.float32) * np.float32(-math.log(max_period) * 2 / size)
    frequencies: npt.NDArray[np.float32] = np.exp(exponents)
    return frequencies


def _sin_divisors(dim: int, max_period: float) -> npt.NDArray[np.float32]:
    half = dim // 2
    exponents = np.arange(half, dtype=np.float32) / np.float32(half - 1)
    divisors: npt.NDArray[np.float32] = np.power(np.float32(max_period), exponents)
    return divisors


class _Clock:
    """What all temporal layers need to know of the rows' positions, written once."""

    def __init__(self, writer: GraphWriter, config: LMConfig, tokens: str, position: str) -> None:
        self._writer, self._config = writer, config
        rows = writer.one("Squeeze", writer.one("Shape", tokens, start=0, end=1))
        steps = writer.one("Range", position, writer.one("Add", position, rows), writer.integers(1))
        column = writer.one("Unsqueeze", steps, writer.integers([1]))
        self.steps = writer.one("Cast", column, to=1)
        slots = writer.integers(list(range(config.context)))
        zero, blocked = writer.floats(0.0), writer.floats(-math.inf)
        self.bias = writer.one("Where", writer.one("GreaterOrEqual", column, slots), zero, blocked)
        slot = writer.one("Mod", position, writer.integers(config.context))
        self.write_index = writer.one("Reshape", slot, writer.integers([1]))
        self._rotation: tuple[str, str] | None = None

    def rotation(self) -> tuple[str, str]:
        """Return cosine and sine of the rotary angles, shape [1, T, head_dim / 2]."""
        if self._rotation is None:
            writer, config = self._writer, self._config
            frequencies = _frequencies(config.dim // config.num_heads, config.max_period)
            angles = writer.one("Mul", self.steps, writer.constant(frequencies))
            batched = writer.one("Unsqueeze", angles, writer.integers([0]))
            self._rotation = writer.one("Cos", batched), writer.one("Sin", batched)
        return self._rotation

    def sinusoid(self) -> str:
        """Return the additive position embedding, shape [T, dim]."""
        divisors = _sin_divisors(self._config.dim, self._config.max_period)
        phase = self._writer.one("Div", self.steps, self._writer.constant(divisors))
        return self._writer.one("Concat", self._writer.one("Cos", phase), self._writer.one("Sin", phase), axis=-1)


def _embed(writer: GraphWriter, config: LMConfig, tokens: str) -> str:
    names = ["text_emb.weight", *(f"emb.{index}.weight" for index in range(config.n_q))]
    columns = writer.split(tokens, [1] * len(names), axis=1)
    rows = [_lookup(writer, name, column) for name, column in zip(names, columns, strict=True)]
    stacked = writer.one("Concat", *rows, axis=1)
    given = writer.add_input("embeddings", "FLOAT", ["T", config.dim])
    is_token = writer.one("Cast", writer.one("GreaterOrEqual", tokens, writer.integers(0)), to=1)
    weights = writer.one("Unsqueeze", is_token, writer.integers([1]))
    total = writer.one("MatMul", weights, stacked)
    return writer.one("Add", writer.one("Reshape", total, writer.integers([1, -1, config.dim])), given)


def _lookup(writer: GraphWriter, name: str, index: str) -> str:
    table, needs_cast = writer.table(name)
    rows = writer.one("Gather", table, index)
    return writer.one("Cast", rows, to=1) if needs_cast else rows


def _temporal(writer: GraphWriter, config: LMConfig, tokens: str, position: str) -> str:
    clock = _Clock(writer, config, tokens, position)
    value = _embed(writer, config, tokens)
    if "sin" in config.positional_embedding:
        value = writer.one("Add", value, clock.sinusoid())
    residual = _Residual(writer, value, config.norm)
    for index in range(config.num_layers):
        prefix = f"transformer.layers.{index}."
        attended = _temporal_attention(writer, config, clock, index, residual.normed(f"{prefix}norm1"))
        residual.add(attended, f"{prefix}layer_scale_1.scale")
        _feedforward(writer, residual, prefix, config.gating)
    normed = residual.normed("out_norm")
    return writer.one("Gather", normed, writer.integers([-1]), axis=1)


def _temporal_attention(writer: GraphWriter, config: LMConfig, clock: _Clock, index: int, value: str) -> str:
    heads, size = config.num_heads, config.dim // config.num_heads
    kv_heads = heads // config.kv_repeat
    module = f"transformer.layers.{index}.self_attn."
    packed = writer.linear(value, f"{module}in_projs.0")
    by_head = writer.one("Reshape", packed, writer.integers([1, -1, heads + 2 * kv_heads, size]))
    heads_first = writer.one("Transpose", by_head, perm=[0, 2, 1, 3])
    if "rope" in config.positional_embedding:
        rotated, values = writer.split(heads_first, [heads + kv_heads, kv_heads], axis=1)
        is_interleaved = config.positional_embedding != "rope_concat"
        turned = writer.one("RotaryEmbedding", rotated, *clock.rotation(), interleaved=int(is_interleaved))
        queries, keys = writer.split(turned, [heads, kv_heads], axis=1)
    else:
        queries, keys, values = writer.split(heads_first, [heads, kv_heads, kv_heads], axis=1)
    rings = [
        _write_ring(writer, config, clock, f"{kind}_{index}", new) for kind, new in (("key", keys), ("value", values))
    ]
    attended = writer.one("Attention", queries, *rings, clock.bias)
    time_first = writer.one("Transpose", attended, perm=[0, 2, 1, 3])
    flat = writer.one("Reshape", time_first, writer.integers([1, -1, config.dim]))
    return writer.linear(flat, f"{module}out_projs.0")


def ring_shape(config: LMConfig) -> tuple[int, int, int, int]:
    """Return the shape of one layer's ring of keys, or of values: [1, kv_heads, context, head_dim]."""
    return 1, config.num_heads // config.kv_repeat, config.context, config.dim // config.num_heads


def ring_names(config: LMConfig) -> list[str]:
    """Return the ring inputs of the graph in order; the matching outputs end in `_out`."""
    return [f"{kind}_{index}" for index in range(config.num_layers) for kind in ("key", "value")]


def _write_ring(writer: GraphWriter, config: LMConfig, clock: _Clock, name: str, new: str) -> str:
    ring = writer.add_input(name, "FLOAT", ring_shape(config))
    written = writer.one("TensorScatter", ring, new, clock.write_index, axis=-2, mode="circular", name=f"{name}_out")
    writer.add_output(written, written, "FLOAT", ring_shape(config))
    return written


def _depth(writer: GraphWriter, config: LMConfig, sampler: _Sampler, hidden: str) -> None:
    token = sampler.draw_text(_logits(writer, hidden, "text_linear"))
    caches: list[list[str]] = [[] for _ in range(config.depformer_num_layers)]
    for step in range(config.dep_q):
        source = config.weight_set(step) if config.depformer_multi_linear else 0
        embedded = _depth_embedding(writer, config, step, token)
        value = writer.one("Add", writer.linear(hidden, f"depformer_in.{source}"), embedded)
        if "sin" in config.depformer_pos_emb:
            value = writer.one("Add", value, writer.constant(_depth_sinusoid(config, step)))
        residual = _Residual(writer, value, config.norm)
        for layer, cache in enumerate(caches):
            _depth_layer(writer, config, residual, layer=layer, step=step, cache=cache)
        if config.depformer_norm is None:
            output = residual.value()
        else:
            output = norm(writer, residual.value(), f"depformer_norms.{step}", config.depformer_norm)
        token = sampler.draw_audio(_logits(writer, output, f"linears.{step}"), step)


def _logits(writer: GraphWriter, hidden: str, module: str) -> str:
    return writer.linear(writer.one("Reshape", hidden, writer.integers([-1])), module)


def _depth_embedding(writer: GraphWriter, config: LMConfig, step: int, token: str) -> str:
    name = "depformer_text_emb" if step == 0 else f"depformer_emb.{step - 1}"
    rows = _lookup(writer, f"{name}.weight", token)
    return writer.linear(rows, f"{name}.low_rank") if config.depformer_low_rank_embeddings else rows


def _depth_sinusoid(config: LMConfig, step: int) -> npt.NDArray[np.float32]:
    phase = np.float32(step) / _sin_divisors(config.depformer_dim, config.depformer_max_period)
    return np.concatenate([np.cos(phase), np.sin(phase)])


def _depth_layer(
    writer: GraphWriter, config: LMConfig, residual: _Residual, *, layer: int, step: int, cache: list[str]
) -> None:
    prefix = f"depformer.layers.{layer}."
    weights = config.weight_set(step) if config.depformer_weights_per_step else 0
    heads, dim = config.depformer_num_heads, config.depformer_dim
    kv_heads = heads // config.depformer_kv_repeat
    kv_dim = dim // heads * kv_heads
    packed = writer.linear(residual.normed(f"{prefix}norm1"), f"{prefix}self_attn.in_projs.{weights}")
    if "rope" in config.depformer_pos_emb:
        rotated, values = writer.split(packed, [dim + kv_dim, kv_dim], axis=-1)
        turned = _rotate_depth(writer, config, rotated, heads + kv_heads, step)
        queries, keys = writer.split(turned, [dim, kv_dim], axis=-1)
    else:
        queries, keys, values = writer.split(packed, [dim, kv_dim, kv_dim], axis=-1)
    past = ["", *cache] if cache else []
    attended, *cache[:] = writer.many(
        "Attention", queries, keys, values, *past, count=3, q_num_heads=heads, kv_num_heads=kv_heads
    )
    update = writer.linear(attended, f"{prefix}self_attn.out_projs.{weights}")
    residual.add(update, f"{prefix}layer_scale_1.scale")
    part = f"{weights}." if config.depformer_weights_per_step else ""
    _feedforward(writer, residual, prefix, config.depformer_gating, part)


def _rotate_depth(writer: GraphWriter, config: LMConfig, value: str, heads: int, step: int) -> str:
    size = config.depformer_dim // config.depformer_num_heads
    angles = (np.float32(step) * _frequencies(size, config.depformer_max_period)).reshape(1, 1, -1)
    cos, sin = writer.constant(np.cos(angles)), writer.constant(np.sin(angles))
    is_interleaved = config.depformer_pos_emb != "rope_concat"
    return writer.one("RotaryEmbedding", value, cos, sin, interleaved=int(is_interleaved), num_heads=heads)


class _Sampler:
    """Draws each token as `ids[argmax(top_k_logits + temperature * noise)]` and gathers the log-probabilities.

    Multiplying the noise instead of dividing the logits picks the same token with one node less per codebook.

    Source: Gumbel-max sampling.
    """

    def __init__(self, writer: GraphWriter, config: LMConfig) -> None:
        self._writer, self._config = writer, config
        draws = 1 + config.dep_q
        forced = writer.add_input("forced", "INT64", [draws])
        self._forced = writer.split(forced, [1] * draws, axis=0)
        is_forced = writer.one("GreaterOrEqual", forced, writer.integers(0))
        self._is_forced = writer.split(is_forced, [1] * draws, axis=0)
        text = writer.add_input("noise_text", "FLOAT", ["K_text"])
        audio = writer.add_input("noise_audio", "FLOAT", [config.dep_q, "K_audio"])
        self._kept_text = writer.one("Shape", text)
        self._kept_audio = writer.one("Shape", audio, start=1)
        temperatures = writer.add_input("temperatures", "FLOAT", [2])
        self._temperatures = writer.split(temperatures, [1, 1], axis=0)
        self._noise_text = writer.one("Mul", text, self._temperatures[0])
        hot = writer.one("Mul", audio, self._temperatures[1])
        flat = writer.one("Reshape", hot, writer.integers([-1]))
        self._noise_audio = writer.many("Split", flat, count=config.dep_q, axis=0, num_outputs=config.dep_q)
        self._padding_bias = writer.add_input("padding_bias", "FLOAT", [1])
        self._tokens: list[str] = []
        self._values: list[str] = []
        self._ranks: list[str] = []

    def draw_text(self, logits: str) -> str:
        """Draw the text token from logits of shape [text_card]; return it, shape [1]."""
        padding = self._writer.integers([self._config.existing_text_padding_id])
        biased = self._writer.one("ScatterElements", logits, padding, self._padding_bias, axis=0, reduction="add")
        return self._draw(biased, self._kept_text, self._noise_text)

    def draw_audio(self, logits: str, step: int) -> str:
        """Draw the code of codebook `step` from logits of shape [card]; return it, shape [1]."""
        return self._draw(logits, self._kept_audio, self._noise_audio[step])

    def finish(self) -> None:
        """Declare the outputs `sampled` and `logprobs`."""
        writer, draws = self._writer, 1 + self._config.dep_q
        sampled = writer.one("Concat", *self._tokens, axis=0, name="sampled")
        writer.add_output(sampled, sampled, "INT64", [draws])
        text = self._logprobs(self._values[:1], self._ranks[:1], self._temperatures[0])
        audio = self._logprobs(self._values[1:], self._ranks[1:], self._temperatures[1])
        logprobs = writer.one("Concat", text, audio, axis=0, name="logprobs")
        writer.add_output(logprobs, logprobs, "FLOAT", [draws])

    def _draw(self, logits: str, kept: str, noise: str) -> str:
        writer, index = self._writer, len(self._tokens)
        values, ids = writer.many("TopK", logits, kept, count=2, axis=-1)
        rank = writer.one("ArgMax", writer.one("Add", values, noise), axis=-1)
        drawn = writer.one("Gather", ids, rank)
        token = writer.one("Where", self._is_forced[index], self._forced[index], drawn)
        self._values.append(values)
        self._ranks.append(rank)
        self._tokens.append(token)
        return token

    def _logprobs(self, values: Sequence[str], ranks: Sequence[str], temperature: str) -> str:
        writer, shape = self._writer, self._writer.integers([len(values), -1])
        kept = writer.one("Reshape", writer.one("Concat", *values, axis=0), shape)
        tempered = writer.one("LogSoftmax", writer.one("Div", kept, temperature), axis=-1)
        places = writer.one("Reshape", writer.one("Concat", *ranks, axis=0), shape)
        chosen = writer.one("GatherElements", tempered, places, axis=-1)
        return writer.one("Reshape", chosen, writer.integers([-1]))
