"""Read a TOML preset into frozen dataclasses, one table each, refusing what they do not know."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from duologue.errors import ConfigError

_T = TypeVar("_T")


def read_tables(path: str | Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file and change some of its values.

    Args:
        path: The file.
        changes: Each "table.key=value" with the value in TOML; a bare word is a string.

    Raises:
        ConfigError: The file cannot be read, or a change is malformed.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot read the preset ({error})") from error
    for change in changes:
        table, key, value = _change(change)
        inner = tables.setdefault(table, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{path}: {table} is {inner!r}; it must be a table")
        inner[key] = value
    return tables


def build(kind: type[_T], table: Any, where: str = "preset") -> _T:
    """Build a dataclass from a table, and its dataclass fields from the tables in it.

    Args:
        kind: A dataclass whose fields are numbers, strings, bools, tuples, dataclasses, or any of these or None.
        table: Plain values.
        where: What to call the table in messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value is of another type.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is {table!r}; it must be a table")
    hints = get_type_hints(kind)
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(table) - set(known)):
        raise ConfigError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(known)}")
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _change(text: str) -> tuple[str, str, Any]:
    name, separator, value = text.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (separator and dot and table and key):
        raise ConfigError(f"{text!r}: changes are written table.key=value, for example run.batch=8")
    try:
        return table, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return table, key, value.strip()


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (item for item in get_args(hint) if item is not type(None))
        if value is None:
            return None
    if get_origin(hint) is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    elif get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_value(get_args(hint)[0], item, where) for item in value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif type(value) is hint:
        return value
    raise ConfigError(f"{where} is {value!r}; it must be a {getattr(hint, '__name__', hint)}")
