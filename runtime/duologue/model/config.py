"""The shape of a Moshi-family language model, read from the keys of its config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from duologue.errors import ConfigError

NO_TOKEN = -1
"""Token that embeds to zero and is excluded from losses."""
UNGENERATED = -2
"""Token value of a position that nothing has filled yet."""

BUNDLE_KEYS = frozenset(
    {
        "moshi_name",
        "mimi_name",
        "mimi_config_name",
        "tokenizer_name",
        "lora_name",
        "model_type",
        "lm_gen_config",
        "tts_config",
        "stt_config",
        "model_id",
        "lora",
        "lora_rank",
        "lora_scaling",
        "model",
        "version",
    }
)
"""Keys of config.json that describe the folder and not the network."""

# What each key must hold for the network to be one we run; any other value is refused by name.
_REFUSED_UNLESS: dict[str, tuple[Any, ...]] = {
    "conditioners": ({}, None),
    "fuser": (None,),
    "quantize": (False,),
    "cross_attention": (False,),
    "demux_second_stream": (False,),
    "demux_second_text_stream": (False,),
    "norm_emb": (False,),
    "bias_proj": (False,),
    "extra_heads_num_heads": (0,),
    "gradient_checkpointing": (True, False),
}
# Keys that moshi 0.2.13 reads and that change nothing here.
_IGNORED = frozenset({"depformer_causal", "depformer_context", "extra_heads_dim", "text_card_out"})
_NORMS = ("layer_norm", "layer_norm_f32", "rms_norm", "rms_norm_f32")
_GATINGS = ("none", "silu", "gelu", "relu", "sigmoid", "tanh", "leaky_relu", "elu", "mish", "softsign")
_POSITIONS = ("rope", "sin", "sin_rope", "none", "rope_concat")
_MAX_DIMENSION = 1 << 20
_MAX_COUNT = 1 << 10


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """Shape of the temporal and the depth transformer; field names are the keys of config.json.

    A key that config.json leaves out takes the default of moshi 0.2.13's model constructor, which is not
    Moshi 7B's value; `moshi_7b()` gives the latter.

    Attributes:
        dim: Width of the temporal transformer.
        num_heads: Its attention heads.
        num_layers: Its layers.
        text_card: Text vocabulary, without the initial token (id `text_card`).
        card: Audio codebook size, without the initial token (id `card`).
        n_q: Audio codebooks in the input, agent and user together.
        dep_q: Audio codebooks the depth transformer predicts: the agent's.
        delays: Delay of each stream in frames, length 1 + n_q, text first.
        context: Attention window of the temporal transformer, in frames.
        hidden_scale: Feed-forward width over `dim`.
        kv_repeat: Query heads that share one key-value head.
        gating: Activation of the gated feed-forward, or "none" for a plain GELU one.
        layer_scale: Initial value of the residual scales, or None for no scales.
        existing_text_padding_id: PAD.
        existing_text_end_padding_id: EPAD.
        depformer_dim_feedforward: Feed-forward width of the depth transformer (per weight set when a list),
            or None for `hidden_scale * depformer_dim`.
        depformer_weights_per_step_schedule: Weight set that each depth step uses, or None for one set each.
        depformer_low_rank_embeddings: Rank of the depth transformer's embeddings, or None for full rank.

    Source: key names and meanings as in moshi 0.2.13 (models/lm.py, models/loaders.py).
    """

    dim: int
    num_heads: int
    num_layers: int
    text_card: int
    card: int
    n_q: int
    dep_q: int
    delays: tuple[int, ...]
    context: int
    depformer_dim: int
    depformer_num_heads: int
    depformer_num_layers: int
    hidden_scale: float = 4
    causal: bool = True
    layer_scale: float | None = None
    max_period: float = 10_000
    gating: str = "none"
    norm: str = "layer_norm"
    positional_embedding: str = "sin"
    kv_repeat: int = 1
    existing_text_padding_id: int = 3
    existing_text_end_padding_id: int = 0
    depformer_dim_feedforward: int | tuple[int, ...] | None = None
    depformer_layer_scale: float | None = None
    depformer_max_period: float = 10_000
    depformer_gating: str = "none"
    depformer_pos_emb: str = "sin"
    depformer_norm: str | None = None
    depformer_kv_repeat: int = 1
    depformer_multi_linear: bool = False
    depformer_weights_per_step: bool = False
    depformer_weights_per_step_schedule: tuple[int, ...] | None = None
    depformer_low_rank_embeddings: int | None = None

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_choices(self)
        _check_schedule(self)

    @property
    def user_q(self) -> int:
        """Audio codebooks of the user."""
        return self.n_q - self.dep_q

    @property
    def num_streams(self) -> int:
        """Text stream and audio codebooks together: 1 + n_q."""
        return 1 + self.n_q

    @property
    def max_delay(self) -> int:
        """Largest delay in frames; the first `max_delay` calls of a step engine return no codes."""
        return max(self.delays)

    @property
    def depformer_weight_sets(self) -> int:
        """Sets of attention and feed-forward weights in one depth layer."""
        if not self.depformer_weights_per_step:
            return 1
        schedule = self.depformer_weights_per_step_schedule
        return self.dep_q if schedule is None else max(schedule) + 1

    @property
    def depformer_inputs(self) -> int:
        """Projections from the temporal to the depth transformer."""
        if not self.depformer_multi_linear:
            return 1
        schedule = self.depformer_weights_per_step_schedule
        return self.dep_q if schedule is None else max(schedule) + 1

    @property
    def feedforward_dim(self) -> int:
        """Nominal feed-forward width of the temporal transformer."""
        return int(self.hidden_scale * self.dim)

    def depformer_feedforward(self, weight_set: int) -> int:
        """Return the nominal feed-forward width of one weight set of the depth transformer."""
        width = self.depformer_dim_feedforward
        if width is None:
            return int(self.hidden_scale * self.depformer_dim)
        return width if isinstance(width, int) else width[weight_set]

    def weight_set(self, step: int) -> int:
        """Return which weight set depth step `step` uses."""
        schedule = self.depformer_weights_per_step_schedule
        return step if schedule is None else schedule[step]

    @classmethod
    def moshi_7b(cls) -> LMConfig:
        """Return the shape of the released Moshi 7B, assumed for a folder without config.json."""
        return cls(
            dim=4096,
            num_heads=32,
            num_layers=32,
            text_card=32000,
            card=2048,
            n_q=16,
            dep_q=8,
            delays=(0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1),
            context=3000,
            hidden_scale=4.125,
            gating="silu",
            norm="rms_norm_f32",
            positional_embedding="rope",
            depformer_dim=1024,
            depformer_num_heads=16,
            depformer_num_layers=6,
            depformer_dim_feedforward=4224,
            depformer_gating="silu",
            depformer_pos_emb="none",
            depformer_multi_linear=True,
            depformer_weights_per_step=True,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LMConfig:
        """Read the network's keys of a config.json.

        Args:
            values: Parsed config.json; keys in `BUNDLE_KEYS` are passed over.

        Raises:
            ConfigError: A key is unknown, missing, of the wrong type, out of range, or asks for a part this
                runtime does not have; the message names the key.
        """
        taken = {key: value for key, value in values.items() if key not in BUNDLE_KEYS}
        _refuse_unsupported(taken)
        known = {item.name for item in fields(cls)}
        for key in taken:
            if key not in known:
                raise ConfigError(f"config key {key!r} is not one of the Moshi family; remove it or update duologue")
        _inherit(taken)
        missing = sorted(_REQUIRED - taken.keys())
        if missing:
            raise ConfigError(f"config lacks the key {missing[0]!r}")
        return cls(**{key: _coerce(key, value) for key, value in taken.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the config.json keys of this shape; `from_dict` reads them back and moshi 0.2.13 accepts them."""
        values = asdict(self)
        if self.depformer_kv_repeat == self.kv_repeat:
            del values["depformer_kv_repeat"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


_REQUIRED = frozenset(
    {
        "dim",
        "num_heads",
        "num_layers",
        "text_card",
        "card",
        "n_q",
        "dep_q",
        "delays",
        "context",
        "depformer_dim",
        "depformer_num_heads",
        "depformer_num_layers",
    }
)
_INT_KEYS = (_REQUIRED - {"delays"}) | {
    "kv_repeat",
    "depformer_kv_repeat",
    "existing_text_padding_id",
    "existing_text_end_padding_id",
}
_FLOAT_KEYS = frozenset({"hidden_scale", "max_period", "depformer_max_period"})
_OPTIONAL_FLOAT_KEYS = frozenset({"layer_scale", "depformer_layer_scale"})
_BOOL_KEYS = frozenset({"causal", "depformer_multi_linear", "depformer_weights_per_step"})
_STR_KEYS = frozenset({"gating", "norm", "positional_embedding", "depformer_gating", "depformer_pos_emb"})
# The depth transformer takes these from the temporal one when its own key is absent.
_INHERITED = ("num_layers", "layer_scale", "max_period", "gating", "kv_repeat")


def _refuse_unsupported(taken: dict[str, Any]) -> None:
    for key in _IGNORED & taken.keys():
        value = taken.pop(key)
        if key == "text_card_out" and value not in (None, taken.get("text_card")):
            raise ConfigError(f"config key 'text_card_out' is {value!r}; only the value of 'text_card' is supported")
    for key, allowed in _REFUSED_UNLESS.items():
        if key in taken:
            value = taken.pop(key)
            if not any(value == item and type(value) is type(item) for item in allowed):
                raise ConfigError(f"config key {key!r} is {value!r}; this runtime supports only {allowed[0]!r}")


def _inherit(taken: dict[str, Any]) -> None:
    for key in _INHERITED:
        if key in taken:
            taken.setdefault(f"depformer_{key}", taken[key])


def _coerce(key: str, value: Any) -> Any:
    if key in _INT_KEYS:
        return _integer(key, value)
    if key in _FLOAT_KEYS or (key in _OPTIONAL_FLOAT_KEYS and value is not None):
        return _real(key, value)
    if key in _BOOL_KEYS and not isinstance(value, bool):
        raise ConfigError(f"config key {key!r} must be true or false, found {value!r}")
    if key in _STR_KEYS and not isinstance(value, str):
        raise ConfigError(f"config key {key!r} must be a string, found {value!r}")
    if key in {"delays", "depformer_weights_per_step_schedule"} and value is not None:
        return _integers(key, value)
    if key == "depformer_dim_feedforward" and value is not None:
        return _integers(key, value) if isinstance(value, list | tuple) else _integer(key, value)
    if key == "depformer_low_rank_embeddings" and value is not None:
        return _integer(key, value)
    return value


def _integer(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"config key {key!r} must be an integer, found {value!r}")
    return value


def _real(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"config key {key!r} must be a finite number, found {value!r}")
    return value


def _integers(key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MAX_COUNT:
        raise ConfigError(f"config key {key!r} must be a list of at most {_MAX_COUNT} integers")
    return tuple(_integer(key, item) for item in value)


def _check_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"config key {key!r} must lie in [{low}, {high}], found {value!r}")


def _check_sizes(config: LMConfig) -> None:
    for key in ("dim", "text_card", "card", "context", "depformer_dim"):
        _check_range(key, getattr(config, key), 1, _MAX_DIMENSION)
    for key in ("num_heads", "num_layers", "n_q", "depformer_num_heads", "depformer_num_layers", "kv_repeat"):
        _check_range(key, getattr(config, key), 1, _MAX_COUNT)
    _check_range("dep_q", config.dep_q, 1, config.n_q)
    _check_range("hidden_scale", config.hidden_scale, 1 / config.dim, 64)
    _check_range("max_period", config.max_period, 1, 1e12)
    _check_range("depformer_max_period", config.depformer_max_period, 1, 1e12)
    _check_range("existing_text_padding_id", config.existing_text_padding_id, 0, config.text_card - 1)
    _check_range("existing_text_end_padding_id", config.existing_text_end_padding_id, 0, config.text_card - 1)
    if config.depformer_low_rank_embeddings is not None:
        _check_range("depformer_low_rank_embeddings", config.depformer_low_rank_embeddings, 1, _MAX_DIMENSION)
    if len(config.delays) != config.num_streams:
        raise ConfigError(f"config key 'delays' must hold 1 + n_q = {config.num_streams} delays, found {config.delays}")
    for delay in config.delays:
        _check_range("delays", delay, 0, 256)
    for prefix in ("", "depformer_"):
        dim = config.dim if not prefix else config.depformer_dim
        heads, repeat = getattr(config, f"{prefix}num_heads"), getattr(config, f"{prefix}kv_repeat")
        if dim % heads or (dim // heads) % 2:
            raise ConfigError(f"config key '{prefix}num_heads' is {heads}; it must split {dim} into even head sizes")
        if repeat < 1 or heads % repeat:
            raise ConfigError(f"config key '{prefix}kv_repeat' is {repeat}; it must divide {heads} heads")


def _check_choices(config: LMConfig) -> None:
    for key, allowed in (
        ("norm", _NORMS),
        ("gating", _GATINGS),
        ("depformer_gating", _GATINGS),
        ("positional_embedding", _POSITIONS),
        ("depformer_pos_emb", _POSITIONS),
        ("depformer_norm", (None, *_NORMS)),
    ):
        if getattr(config, key) not in allowed:
            raise ConfigError(f"config key {key!r} is {getattr(config, key)!r}; expected one of {allowed}")
    if not config.causal:
        raise ConfigError("config key 'causal' is false; a streaming model must be causal")


def _check_schedule(config: LMConfig) -> None:
    schedule = config.depformer_weights_per_step_schedule
    if schedule is not None:
        if len(schedule) != config.dep_q:
            raise ConfigError(
                f"config key 'depformer_weights_per_step_schedule' must hold dep_q = {config.dep_q} items"
            )
        for item in schedule:
            _check_range("depformer_weights_per_step_schedule", item, 0, config.dep_q - 1)
    if config.depformer_weights_per_step and config.depformer_gating == "none":
        raise ConfigError("config key 'depformer_weights_per_step' needs a 'depformer_gating' other than 'none'")
    widths = config.depformer_dim_feedforward
    if isinstance(widths, tuple) and len(widths) != config.depformer_weight_sets:
        raise ConfigError(f"config key 'depformer_dim_feedforward' must hold {config.depformer_weight_sets} widths")
    for index in range(config.depformer_weight_sets):
        _check_range("depformer_dim_feedforward", config.depformer_feedforward(index), 2, _MAX_DIMENSION)
