"""Which tensors a configuration has, under the names of the released files, and the newer names for the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from duologue.errors import ConfigError
from duologue.model.config import LMConfig

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSlot:
    """One linear layer and where its weight lies in the released layout.

    Attributes:
        tensor: Canonical tensor name.
        row: First row of the layer's weight inside that tensor.
        out_features: Rows of the weight.
        in_features: Columns of the weight.
    """

    tensor: str
    row: int
    out_features: int
    in_features: int


def gating_hidden(dim: int, feedforward: int) -> int:
    """Return the hidden width of a gated feed-forward layer of nominal width `feedforward`.

    Source: moshi 0.2.13, modules/gating.py: two thirds of the nominal width, or 21/8 of `dim` at exactly 4 x dim.
    """
    return (21 * dim) // 8 if feedforward == 4 * dim else (2 * feedforward) // 3


def attention_rows(dim: int, num_heads: int, kv_repeat: int) -> int:
    """Return the rows of the packed query, key and value projection."""
    return dim + 2 * (dim // num_heads) * (num_heads // kv_repeat)


def tensor_shapes(config: LMConfig) -> dict[str, Shape]:
    """Return the shape of every tensor under its released name.

    Source: tensor lists of the released Moshi and PersonaPlex checkpoints.
    """
    return dict(_tensors(config))


def linear_slots(config: LMConfig) -> dict[str, LinearSlot]:
    """Return every linear layer under its module name (`...self_attn.in_projs.0`), as LoRA files address them."""
    slots = {}
    for name, shape in _tensors(config):
        if len(shape) != 2 or (name.endswith(".weight") and "emb" in name.split(".")[0]):
            continue
        stacked = _STACKED.match(name)
        if stacked is None:
            slot = LinearSlot(tensor=name, row=0, out_features=shape[0], in_features=shape[1])
            slots[name.removesuffix(".weight")] = slot
            continue
        sets = config.depformer_weight_sets if name.startswith("depformer.") else 1
        rows = shape[0] // sets
        for index in range(sets):
            slot = LinearSlot(tensor=name, row=index * rows, out_features=rows, in_features=shape[1])
            slots[f"{stacked['prefix']}{stacked['which']}_projs.{index}"] = slot
    return slots


def canonical_name(name: str) -> tuple[str, int | None]:
    """Return a tensor's released name and, when the file stores a stacked tensor's rows apart, the part's number."""
    match = _PART.match(name)
    if match:
        return _packed(match["prefix"], match["which"]), int(match["index"])
    if name.endswith(".self_attn.in_proj.weight"):
        return name.removesuffix(".weight") + "_weight", None
    return name, None


def with_slices(config: LMConfig, slices: int) -> LMConfig:
    """Return the configuration whose depth transformer predicts the first `slices` codebooks.

    Raises:
        ConfigError: More slices are asked for than a per-step schedule or per-step widths describe.
    """
    schedule, widths = config.depformer_weights_per_step_schedule, config.depformer_dim_feedforward
    if slices > config.dep_q and (schedule is not None or isinstance(widths, tuple)):
        raise ConfigError(f"config key 'dep_q' is {config.dep_q} but the weights hold {slices} depth slices")
    if schedule is not None:
        schedule = schedule[:slices]
    if isinstance(widths, tuple):
        widths = widths[: slices if schedule is None else max(schedule) + 1]
    return replace(config, dep_q=slices, depformer_weights_per_step_schedule=schedule, depformer_dim_feedforward=widths)


def is_dialogue(config: LMConfig) -> bool:
    """Return whether the audio streams are two equal halves: the agent's codebooks, then the user's."""
    half = config.n_q // 2
    return config.n_q % 2 == 0 and config.delays[1 : 1 + half] == config.delays[1 + half :]


_PART = re.compile(r"(?P<prefix>.*\.self_attn\.)(?P<which>in|out)_projs\.(?P<index>\d{1,4})\.weight\Z")
_STACKED = re.compile(r"(?P<prefix>.*\.self_attn\.)(?P<which>in|out)_proj[._]weight\Z")


def _packed(prefix: str, which: str) -> str:
    return prefix + ("in_proj_weight" if which == "in" else "out_proj.weight")


def _tensors(config: LMConfig) -> Iterator[tuple[str, Shape]]:
    dim, depth = config.dim, config.depformer_dim
    for index in range(config.n_q):
        yield f"emb.{index}.weight", (config.card + 1, dim)
    yield "text_emb.weight", (config.text_card + 1, dim)
    yield "text_linear.weight", (config.text_card, dim)
    yield from _norm("out_norm", config.norm, dim)
    for index in range(config.num_layers):
        yield from _temporal_layer(config, f"transformer.layers.{index}.")
    for index in range(config.depformer_inputs):
        yield f"depformer_in.{index}.weight", (depth, dim)
    for index in range(config.dep_q - 1):
        yield from _depth_embedding(config, f"depformer_emb.{index}", config.card + 1)
    yield from _depth_embedding(config, "depformer_text_emb", config.text_card + 1)
    for index in range(config.depformer_num_layers):
        yield from _depth_layer(config, f"depformer.layers.{index}.")
    for index in range(config.dep_q):
        if config.depformer_norm is not None:
            yield from _norm(f"depformer_norms.{index}", config.depformer_norm, depth)
        yield f"linears.{index}.weight", (config.card, depth)


def _norm(name: str, kind: str, dim: int) -> Iterator[tuple[str, Shape]]:
    if kind.startswith("rms"):
        yield f"{name}.alpha", (1, 1, dim)
    else:
        yield f"{name}.weight", (dim,)
        yield f"{name}.bias", (dim,)


def _depth_embedding(config: LMConfig, name: str, rows: int) -> Iterator[tuple[str, Shape]]:
    rank = config.depformer_low_rank_embeddings
    yield f"{name}.weight", (rows, rank or config.depformer_dim)
    if rank:
        yield f"{name}.low_rank.weight", (config.depformer_dim, rank)


def _temporal_layer(config: LMConfig, prefix: str) -> Iterator[tuple[str, Shape]]:
    dim = config.dim
    yield from _attention(prefix, dim, attention_rows(dim, config.num_heads, config.kv_repeat), 1)
    yield from _norms_and_scales(prefix, config.norm, dim, config.layer_scale)
    yield from _feedforward(prefix, config.gating, dim, config.feedforward_dim)


def _depth_layer(config: LMConfig, prefix: str) -> Iterator[tuple[str, Shape]]:
    dim, sets = config.depformer_dim, config.depformer_weight_sets
    yield from _attention(
        prefix, dim, attention_rows(dim, config.depformer_num_heads, config.depformer_kv_repeat), sets
    )
    yield from _norms_and_scales(prefix, config.norm, dim, config.depformer_layer_scale)
    if not config.depformer_weights_per_step:
        yield from _feedforward(prefix, config.depformer_gating, dim, config.depformer_feedforward(0))
        return
    for index in range(sets):
        hidden = gating_hidden(dim, config.depformer_feedforward(index))
        yield f"{prefix}gating.{index}.linear_in.weight", (2 * hidden, dim)
        yield f"{prefix}gating.{index}.linear_out.weight", (dim, hidden)


def _attention(prefix: str, dim: int, rows: int, sets: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}self_attn.in_proj_weight", (sets * rows, dim)
    yield f"{prefix}self_attn.out_proj.weight", (sets * dim, dim)


def _norms_and_scales(prefix: str, norm: str, dim: int, scale: float | None) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{prefix}norm1", norm, dim)
    yield from _norm(f"{prefix}norm2", norm, dim)
    if scale is not None:
        yield f"{prefix}layer_scale_1.scale", (dim,)
        yield f"{prefix}layer_scale_2.scale", (dim,)


def _feedforward(prefix: str, gating: str, dim: int, width: int) -> Iterator[tuple[str, Shape]]:
    if gating == "none":
        yield f"{prefix}linear1.weight", (width, dim)
        yield f"{prefix}linear2.weight", (dim, width)
        return
    hidden = gating_hidden(dim, width)
    yield f"{prefix}gating.linear_in.weight", (2 * hidden, dim)
    yield f"{prefix}gating.linear_out.weight", (dim, hidden)
