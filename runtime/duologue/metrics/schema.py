"""The strict JSON form of the report: every field present, none unknown, types as annotated."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from duologue.errors import ConfigError
from duologue.metrics.types import SCHEMA_VERSION

T = TypeVar("T")


def dumps(report: Any, *, indent: int | None = 2) -> str:
    """Return a report (any of this package's dataclasses) as JSON text, numbers finite.

    Raises:
        ConfigError: A number is infinite or not a number, which JSON cannot carry.
    """
    try:
        return json.dumps(dataclasses.asdict(report), indent=indent, allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"the report holds a number that is not finite ({error}); this is a bug, report it") from None


def loads(text: str, cls: type[T]) -> T:
    """Read JSON text into the dataclass `cls`.

    Raises:
        ConfigError: The text is not JSON, is of another schema version, or does not fit the class.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the report is not JSON ({error}); pass what to_json() wrote") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        message = f"the report has schema_version {version!r}, this version reads {SCHEMA_VERSION}; measure again"
        raise ConfigError(message)
    return _build(cls, data, "report")  # type: ignore[no-any-return]


def _build(hint: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build_dataclass(hint, data, where)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _build_union(hint, data, where)
    if origin is dict:
        return _build_dict(hint, data, where)
    if origin is tuple:
        return _build_tuple(hint, data, where)
    if origin is Literal:
        if data not in get_args(hint):
            raise ConfigError(f"{where} is {data!r}; expected one of {', '.join(map(repr, get_args(hint)))}")
        return data
    return _build_scalar(hint, data, where)


def _build_dataclass(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {type(data).__name__}; expected an object")
    hints = get_type_hints(cls)
    if set(data) != set(hints):
        wrong = ", ".join(sorted(set(data) ^ set(hints)))
        raise ConfigError(f"{where} has missing or unknown fields: {wrong}")
    return cls(**{name: _build(hint, data[name], f"{where}.{name}") for name, hint in hints.items()})


def _build_union(hint: Any, data: Any, where: str) -> Any:
    if data is None and type(None) in get_args(hint):
        return None
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    if len(inner) == 1:
        return _build(inner[0], data, where)
    return _build(str if isinstance(data, str) else float, data, where)


def _build_dict(hint: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {type(data).__name__}; expected an object")
    value_hint = get_args(hint)[1]
    return {name: _build(value_hint, item, f"{where}[{name!r}]") for name, item in data.items()}


def _build_tuple(hint: Any, data: Any, where: str) -> Any:
    if not isinstance(data, list):
        raise ConfigError(f"{where} is {type(data).__name__}; expected a list")
    args = get_args(hint)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_build(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(data) != len(args):
        raise ConfigError(f"{where} has {len(data)} items; expected {len(args)}")
    return tuple(_build(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, data, strict=True)))


def _build_scalar(hint: Any, data: Any, where: str) -> Any:
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(data, accepted) or (isinstance(data, bool) and hint is not bool):
        raise ConfigError(f"{where} is {data!r}; expected {hint.__name__}")
    if hint is not float:
        return data
    try:
        number = float(data)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{where} is {number!r}; expected a finite number")
    return number
