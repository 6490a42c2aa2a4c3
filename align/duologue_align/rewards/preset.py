"""A reward preset: which components count on which axis and how much, read from TOML."""

from __future__ import annotations

import importlib
import math
import sys
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError
from duologue_align.presets import build, read_tables
from duologue_align.rewards.exchange import Exchange
from duologue_align.rewards.registry import COMPONENTS, Component
from duologue_align.rewards.situation import Reply, Situation
from duologue_align.segments.segment import AXES, Axis

PRESETS = {name: Path(__file__).with_name(f"{name}.toml") for name in ("duologue", "paper")}
"""Presets that come with the package."""


@dataclass(frozen=True, slots=True)
class Term:
    """One line of a preset.

    Attributes:
        component: What is computed.
        weight: Its share in the axis; the sign of the component says whether it is a credit or a penalty.
        options: Its options.
    """

    component: Component
    weight: float
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for a whole preset: its table `preset`.

    Attributes:
        cap_at_reference: Whether no component is worth more than the recorded human earns in the same situation. It
            takes the prize from whatever a rule would pay beyond human behaviour, and a situation in which the human
            himself did badly teaches little.
        modules: Python modules that register components of your own, imported before the preset is read; they may lie
            beside its file. Importing runs their code: name them in files of your own.
    """

    cap_at_reference: bool = False
    modules: tuple[str, ...] = ()


class AxisReward:
    """The reward of one axis.

    Attributes:
        axis: Which.
        terms: Its lines in order.
        weights: Weight by component name.
    """

    def __init__(self, axis: str, terms: tuple[Term, ...], rules: Rules) -> None:
        self.axis = axis
        self.terms = terms
        self._rules = rules
        self.weights = {term.component.name: term.weight for term in terms}
        self._result = _named_tuple(f"{axis.title().replace('_', '')}Reward", list(self.weights))

    def score(self, exchange: Exchange) -> tuple[float, ...]:
        """Return the components as a named tuple, fields in the order of the preset; nan where one does not apply."""
        result: tuple[float, ...] = self._result(*(self._value(term, exchange) for term in self.terms))
        return result

    def total(self, components: tuple[float, ...]) -> float:
        """Return the weighted sum over the weights' sum, components that are nan left out of both; nan if all are."""
        counted = [
            (weight, value)
            for weight, value in zip(self.weights.values(), components, strict=True)
            if not math.isnan(value)
        ]
        whole = sum(weight for weight, _ in counted)
        return sum(weight * value for weight, value in counted) / whole if whole else math.nan

    def _value(self, term: Term, exchange: Exchange) -> float:
        value = term.component.rule(exchange, term.options)
        if not self._rules.cap_at_reference:
            return value
        cap = term.component.rule(exchange.reference, term.options)
        # The recorded human's words and rating are not known: there is no cap on those.
        return value if math.isnan(cap) else min(value, cap)


@dataclass(frozen=True, slots=True)
class RewardPreset:
    """Rewards by axis.

    Attributes:
        name: What to call it.
        axes: The reward of each axis that the preset covers, in the order of `AXES`.
    """

    name: str
    axes: Mapping[Axis, AxisReward]

    def score(self, situation: Situation, reply: Reply) -> tuple[float, ...]:
        """Return the components of the situation's axis as a named tuple; a pure function of its arguments.

        Raises:
            ConfigError: The preset has no reward for the axis, or the reply is not as long as the situation.
        """
        return self._of(situation.axis).score(Exchange(situation, reply))

    def score_group(self, situation: Situation, replies: Iterable[Reply]) -> list[tuple[float, ...]]:
        """Return `score` of several replies to one situation, which is analysed only once; raises as `score`."""
        reward = self._of(situation.axis)
        reference = Exchange(situation, Reply(activity=situation.reference))
        return [reward.score(Exchange(situation, reply, reference)) for reply in replies]

    def total(self, situation: Situation, components: tuple[float, ...]) -> float:
        """Return the one number that the components make: their weighted mean, nan components left out.

        Raises:
            ConfigError: The preset has no reward for the axis.
        """
        return self._of(situation.axis).total(components)

    def _of(self, axis: Axis) -> AxisReward:
        try:
            return self.axes[axis]
        except KeyError:
            raise ConfigError(
                f"preset {self.name!r} has no reward for axis {axis!r}; it covers {', '.join(self.axes)}"
            ) from None

    @classmethod
    def load(cls, preset: str | Path = "duologue") -> RewardPreset:
        """Read a preset: one table per axis, one line per component, `name = { weight = 1.0, option = ... }`.

        Args:
            preset: A TOML file, or a name from `PRESETS`.

        Raises:
            ConfigError: The file cannot be read, an axis, component or option is unknown, a value is refused, or a
                module cannot be imported.
        """
        path = PRESETS.get(str(preset), Path(preset))
        return cls.from_dict(read_tables(path), name=path.stem, folder=path.parent)

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], *, name: str, folder: Path | None = None) -> RewardPreset:
        """Build from plain tables; modules may lie in the folder. Raises as `load`."""
        known = ("preset", *AXES)
        if unknown := sorted(set(tables) - set(known)):
            raise ConfigError(f"{name} has the unknown table {unknown[0]!r}; known are {', '.join(known)}")
        rules = build(Rules, tables.get("preset", {}), f"{name}.preset")
        for module in rules.modules:
            _import(module, folder, f"{name}.preset.modules")
        axes = {axis: _axis(axis, tables[axis], f"{name}.{axis}", rules) for axis in AXES if axis in tables}
        if not axes:
            raise ConfigError(f"{name} rewards nothing; give a table for at least one of {', '.join(AXES)}")
        return cls(name, axes)


def _named_tuple(name: str, names: list[str]) -> Callable[..., tuple[float, ...]]:
    kind: Callable[..., tuple[float, ...]] = namedtuple(name, names)  # type: ignore[misc]
    return kind


def _axis(axis: str, table: Any, where: str, rules: Rules) -> AxisReward:
    if not isinstance(table, Mapping) or not table:
        raise ConfigError(f"{where} is {table!r}; it must be a table with a line for each component")
    return AxisReward(axis, tuple(_term(name, line, f"{where}.{name}") for name, line in table.items()), rules)


def _import(module: str, folder: Path | None, where: str) -> None:
    # Last on the path, so that a file beside the preset hides nothing that is installed.
    beside = [str(folder.resolve())] if folder is not None else []
    sys.path += beside
    try:
        importlib.import_module(module)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{where}: cannot import {module!r} ({reason}); put {module}.py beside the preset, or install it"
        ) from error
    finally:
        for entry in beside:
            sys.path.remove(entry)


def _term(name: str, line: Any, where: str) -> Term:
    if name not in COMPONENTS:
        raise ConfigError(f"{where}: no such component; registered are {', '.join(sorted(COMPONENTS))}")
    if not isinstance(line, Mapping) or "weight" not in line:
        raise ConfigError(f"{where} is {line!r}; write it as {{ weight = 1.0 }}")
    options = dict(line)
    weight = options.pop("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise ConfigError(f"{where}.weight is {weight!r}; it must be a number above 0")
    component = COMPONENTS[name]
    return Term(component, float(weight), build(component.options, options, where))
