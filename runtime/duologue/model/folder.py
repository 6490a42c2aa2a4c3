"""The files of a Moshi-format folder, by the names its config.json gives them or moshi's default names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from duologue.errors import ConfigError, WeightsError
from duologue.model import hub
from duologue.model.storage import parse_json

MODEL_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
MIMI_NAME = "tokenizer-e351c8d8-checkpoint125.safetensors"
TOKENIZER_NAME = "tokenizer_spm_32k_3.model"
LORA_NAME = "lora.safetensors"
PEFT_NAME = "adapter_model.safetensors"
STEP_GRAPH_NAME = "step.onnx"
_MAX_JSON_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class FolderFiles:
    """Where the parts of a model lie; None for a part that is not there.

    Attributes:
        path: The folder.
        config_path: config.json.
        raw_config: Its content, {} without one.
        weights: One or more safetensors files.
        mimi_path: Codec weights.
        mimi_config_path: Codec configuration.
        tokenizer_path: SentencePiece model.
        lora_path: Low-rank updates.
        step_graph_path: Exported one-frame graph.
    """

    path: Path
    config_path: Path | None
    raw_config: dict[str, Any]
    weights: tuple[Path, ...]
    mimi_path: Path | None
    mimi_config_path: Path | None
    tokenizer_path: Path | None
    lora_path: Path | None
    step_graph_path: Path | None


def scan(path: Path, *, lora: str | Path | None = None) -> FolderFiles:
    """Find the files of a model.

    Args:
        path: Folder, safetensors file or sharding index.
        lora: LoRA file, or folder with one, to use instead of the one config.json names.

    Raises:
        WeightsError: `path` or a file that config.json names does not exist.
        ConfigError: config.json is not readable or names a file outside the folder.
    """
    if not path.exists():
        raise WeightsError(f"no model at {path}; give a folder with config.json, or a safetensors file")
    folder = path if path.is_dir() else path.parent
    config_path = folder / "config.json" if (folder / "config.json").is_file() else None
    raw = read_json(config_path) if config_path else {}
    return FolderFiles(
        path=folder,
        config_path=config_path,
        raw_config=raw,
        weights=_weights(folder, raw) if path.is_dir() else _shards(path),
        mimi_path=_named(folder, raw, "mimi_name", MIMI_NAME),
        mimi_config_path=_named(folder, raw, "mimi_config_name", None),
        tokenizer_path=_named(folder, raw, "tokenizer_name", TOKENIZER_NAME),
        lora_path=_lora(folder, raw, lora),
        step_graph_path=_if_file(folder / STEP_GRAPH_NAME),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size.

    Raises:
        ConfigError: It cannot be read, is too large or is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > _MAX_JSON_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_JSON_BYTES} bytes; it is not a model's configuration")
    try:
        return parse_json(data, what=str(path))
    except WeightsError as error:
        raise ConfigError(str(error)) from error


def _weights(folder: Path, raw: Mapping[str, Any]) -> tuple[Path, ...]:
    stated = _named(folder, raw, "moshi_name", None)
    for candidate in (stated, folder / MODEL_NAME, folder / INDEX_NAME):
        if candidate is not None and candidate.is_file():
            return _shards(candidate)
    raise WeightsError(f"{folder} holds no weights: expected {MODEL_NAME} or {INDEX_NAME}")


def _shards(path: Path) -> tuple[Path, ...]:
    if path.suffix != ".json":
        return (path,)
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path} has no weight_map; it is not a sharding index")
    names = sorted({_inside(name, path) for name in weight_map.values()})
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise WeightsError(f"{path} names the shard {missing[0]!r}, which is not there")
    return tuple(path.parent / name for name in names)


def _named(folder: Path, raw: Mapping[str, Any], key: str, default: str | None) -> Path | None:
    value = raw.get(key)
    if value is None:
        return None if default is None else _if_file(folder / default)
    if isinstance(value, str) and value.startswith(hub.PREFIX):
        return hub.fetch_file(value)
    path = folder / _inside(value, folder / "config.json")
    if not path.is_file():
        raise WeightsError(f"config.json names {value!r} as {key!r}, but {path} does not exist")
    return path


def _lora(folder: Path, raw: Mapping[str, Any], given: str | Path | None) -> Path | None:
    if given is not None:
        path = Path(given)
        tried = [path / LORA_NAME, path / PEFT_NAME] if path.is_dir() else [path]
        for file in tried:
            if file.is_file():
                return file
        raise WeightsError(f"no adapter at {path}; give a folder with {LORA_NAME} or {PEFT_NAME}, or the file itself")
    found = _named(folder, raw, "lora_name", None)
    if found is None and raw.get("lora") is True:
        found = _if_file(folder / LORA_NAME)
        if found is None:
            raise WeightsError(f"config.json sets 'lora', but {folder / LORA_NAME} does not exist")
    return found


def _inside(name: Any, source: Path) -> str:
    is_plain = isinstance(name, str) and bool(name) and "\0" not in name and "\\" not in name and ":" not in name
    if not is_plain or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ConfigError(f"{source} names the file {str(name)[:200]!r}; only files inside the folder are read")
    return str(name)


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None
