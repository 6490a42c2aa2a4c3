"""Settings of an agent and of its sampling: frozen dataclasses, and a strict loader that refuses unknown keys."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from duologue.errors import ConfigError

if TYPE_CHECKING:
    from duologue.model.config import LMConfig

_SAMPLING_RANGES = {"temperature_text": (0, 100), "temperature_audio": (0, 100), "padding_bias": (-1000, 1000)}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn from logits.

    Attributes:
        temperature_text: Divisor of the text logits, >= 0; 0 takes the most likely token.
        temperature_audio: The same for the audio logits.
        top_k_text: Text candidates kept, 0 for all.
        top_k_audio: Audio candidates kept, 0 for all.
        padding_bias: Added to the logit of PAD before sampling; above 0 the agent talks less.

    Raises:
        ConfigError: A value is of the wrong type or out of range.
    """

    temperature_text: float = 0.7
    temperature_audio: float = 0.8
    top_k_text: int = 25
    top_k_audio: int = 250
    padding_bias: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in _SAMPLING_RANGES.items():
            value = getattr(self, name)
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or not low <= value <= high:
                raise ConfigError(f"{name} must be a number in [{low}, {high}], got {value!r}")
        for name in ("top_k_text", "top_k_audio"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"{name} must be an integer >= 0 (0 keeps all), got {value!r}")

    def kept_text(self, config: LMConfig) -> int:
        """Return how many text candidates are kept for this model."""
        return min(self.top_k_text or config.text_card, config.text_card)

    def kept_audio(self, config: LMConfig) -> int:
        """Return how many audio candidates are kept for this model."""
        return min(self.top_k_audio or config.card, config.card)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """How an agent runs.

    Attributes:
        engine: Step engine: "onnx" (needs no torch) or "torch".
        device: "cpu" or "cuda".
        dtype: Arithmetic of the torch engine: "float32" or "bfloat16".
        threads: Cores that one frame may use: the codec takes at most 2; the torch engine keeps torch's own setting.
        codec_precision: How the codec keeps its weights: "float32", "float16" (as good, less to read) or "int8"
            (fastest, other codes).
        codec_window: Attention window of the codec: "moshi" (streaming moshi), "exact" (as trained) or "rustymimi".
        temperature_text: Sampling temperature of the inner monologue; 0 is greedy. This and the next three are None for
            what the model was made for, as its config.json says, and else moshi's defaults (see `Sampling`).
        temperature_audio: Sampling temperature of the codes; 0 is greedy.
        top_k_text: Text tokens kept before sampling; 0 keeps all.
        top_k_audio: Codes kept before sampling, per codebook; 0 keeps all.
        padding_bias: Added to the logit of PAD: positive makes the agent quieter, negative more talkative.
        text_prompt: Role of the agent, for models trained with one (PersonaPlex).
        voice_prompt: Voice of the agent, a WAV or a PersonaPlex voice file.
        user_detector: Speech activity of the user: "speech" (Silero VAD) or "level".
        agent_detector: Speech activity of the agent: "level" or "speech".
        adapters: Folders of LoRA adapters of the model; a session may choose one, by its folder's name. They cost their
            own size and a little time; the model itself is held once.
        record: Folder in which every session is kept as sound and events; None keeps none.
        cache_dir: Where step graphs and the untrained agent are kept; default ~/.cache/duologue.
    """

    engine: Literal["onnx", "torch"] = "onnx"
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    codec_precision: Literal["float32", "float16", "int8"] = "float32"
    codec_window: Literal["moshi", "exact", "rustymimi"] = "moshi"
    temperature_text: float | None = None
    temperature_audio: float | None = None
    top_k_text: int | None = None
    top_k_audio: int | None = None
    padding_bias: float = 0.0
    text_prompt: str | None = None
    voice_prompt: str | None = None
    user_detector: Literal["speech", "level"] = "speech"
    agent_detector: Literal["speech", "level"] = "level"
    adapters: tuple[str, ...] = ()
    record: str | None = None
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: If one is of the wrong type or out of range.
        """
        for name, kind in get_type_hints(AgentConfig).items():
            _check(name, getattr(self, name), kind)
        if not 1 <= self.threads <= _MAX_THREADS:
            raise ConfigError(f"threads = {self.threads} is out of range; use 1 to {_MAX_THREADS}")
        # Builds the sampling once so that a wrong value is refused here and not at the first session.
        self.sampling(Sampling())

    def sampling(self, model: Sampling) -> Sampling:
        """Return the sampling part of the settings, with `model`'s values where they name none."""
        given = {field.name: getattr(self, field.name) for field in fields(Sampling)}
        return replace(model, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AgentConfig:
        """Build from plain values.

        Raises:
            ConfigError: If a key is unknown or a value is wrong.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown setting {key!r}; known settings: {', '.join(known)}")
        # TOML and JSON know lists only.
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**settings)

    @classmethod
    def load(cls, path: str | Path) -> AgentConfig:
        """Read a TOML or JSON file.

        Raises:
            ConfigError: If the file is missing, malformed or holds an unknown setting.
        """
        path = Path(path)
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; give a .toml or .json file of agent settings")
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{path}: not readable as TOML or JSON ({error})") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: holds a {type(values).__name__}; it must be a table of settings")
        return cls.from_dict(values)


def _check(name: str, value: object, kind: Any) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{name} = {value!r}; choose one of {', '.join(get_args(kind))}")
        return
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
            raise ConfigError(f"{name} = {value!r}; it must be a tuple (in a file, a list) of texts")
        return
    kinds = get_args(kind) or (kind,)
    if float in kinds:
        kinds = (*kinds, int)
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = " or ".join(allowed.__name__ for allowed in kinds)
        raise ConfigError(f"{name} = {value!r} is of type {type(value).__name__}; it must be {wanted}")


_MAX_THREADS = 64
