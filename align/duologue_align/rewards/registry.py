"""The reward components by name; a decorator adds one, a line of a preset switches it on.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Shyness:
        limit_s: float = 3.0

    @component
    def shyness(exchange: Exchange, options: Shyness) -> float:
        ...

and in the preset, for the file my_rewards.py beside it:

    [preset]
    modules = ["my_rewards"]

    [turn]
    shyness = { weight = 1.0, limit_s = 2.0 }
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar, get_type_hints

from duologue.errors import ConfigError
from duologue_align.rewards.exchange import Exchange

_Rule = TypeVar("_Rule", bound=Callable[..., float])


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """Options of a component that has none."""


@dataclass(frozen=True, slots=True)
class Component:
    """One registered reward.

    Attributes:
        name: Its name in presets and results.
        rule: Pure function of (exchange, options); nan where the exchange says nothing about it.
        options: The frozen dataclass of its options; every field has a default.
    """

    name: str
    rule: Callable[[Exchange, Any], float]
    options: type[Any]


COMPONENTS: dict[str, Component] = {}
"""Every registered component by name."""


def component(rule: _Rule) -> _Rule:
    """Register a function of (exchange, options) under its own name.

    Raises:
        ConfigError: The name is taken, or the second argument is not annotated with a dataclass.
    """
    name = rule.__name__
    hints, parameters = get_type_hints(rule), list(inspect.signature(rule).parameters)
    options = hints.get(parameters[1]) if len(parameters) == 2 else None
    if not (isinstance(options, type) and is_dataclass(options)):
        raise ConfigError(f"reward {name}: write it as {name}(exchange: Exchange, options: <a dataclass>) -> float")
    if name in COMPONENTS:
        raise ConfigError(f"reward {name} is registered already, by {COMPONENTS[name].rule.__module__}; rename one")
    COMPONENTS[name] = Component(name, rule, options)
    return rule
