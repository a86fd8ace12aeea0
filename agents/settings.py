"""Settings as frozen dataclasses: to and from JSON, changed by dotted names, refused where they have no effect."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


@dataclass(frozen=True)
class Floats:
    """Numbers from ``low`` to ``high``, drawn on a logarithmic scale if ``log``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Integers:
    """Whole numbers from ``low`` to ``high``."""

    low: int
    high: int


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Any, ...]


Range: TypeAlias = Floats | Integers | Choices


def plain(value: Any) -> Any:
    """Turn dataclasses and paths into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))


def from_plain(config: type[Config], content: Mapping[str, Any]) -> Config:
    """Make nested dataclasses of what JSON or TOML holds; what it lacks has its default.

    Args:
        config: The outermost.
        content: Its fields by name.

    Raises:
        ValueError: A field is unknown, or its value of another type, or refused by its dataclass.
    """
    return _made(config, content, "")


def refuse_idle(config: Any, usual: Any, idle: Mapping[str, str]) -> None:
    """See that settings without effect are as they usually are: whoever changes one expects something of it.

    Args:
        config: Nested dataclasses.
        usual: The same with the values that nobody gave.
        idle: Settings that have no effect, by dotted names, and why, with what to do.

    Raises:
        ValueError: One was changed.
    """
    for name, why in idle.items():
        value, other = config, usual
        for part in name.split("."):
            value, other = getattr(value, part), getattr(other, part)
        if value != other:
            option = name.rpartition(".")[2].replace("_", "-")
            raise ValueError(f"--{option} {value} has no effect: {why}")


def changed(config: Any, within: str = "") -> list[str]:
    """Return the dotted names of the settings that differ from the dataclasses' defaults."""
    names = []
    for field in fields(config):
        value = getattr(config, field.name)
        usual = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(value):
            names += changed(value, f"{within}{field.name}.")
        elif value != usual:
            names.append(within + field.name)
    return names


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a copy of nested frozen dataclasses, but for some of their fields.

    Args:
        config: The outermost.
        settings: New values by dotted names, as in ``{"learner.learning_rate": 0.003}``.

    Raises:
        ValueError: There is no such field, or the value is of another type, or the dataclass refuses it.
    """
    return _changed(config, settings, "")


def _made(kind: Any, value: Any, name: str) -> Any:
    """Return ``value`` as one of ``kind``, a type or an annotation."""
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{name or 'it'} is {value!r}, and should be a table")
        kinds = get_type_hints(kind)
        known = {field.name for field in fields(kind)}
        if unknown := sorted(value.keys() - known):
            raise ValueError(f"there is no setting {f'{name}.' if name else ''}{unknown[0]}")
        inside = {key: _made(kinds[key], each, f"{name}.{key}" if name else key) for key, each in value.items()}
        try:
            return kind(**inside)  # type: ignore[operator]
        except TypeError:
            raise ValueError(f"{name or 'it'} lacks a setting that has no default") from None
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} is {value!r}: use one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is {value!r}, and should be a list")
        return tuple(_made(get_args(kind)[0], each, f"{name}[{i}]") for i, each in enumerate(value))
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        return value
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r}, and should be of type {getattr(kind, '__name__', kind)}")
    return value


def _changed(config: Any, settings: Mapping[str, Any], within: str) -> Any:
    """Change a dataclass that is found ``within`` another."""
    known = [each.name for each in fields(config)] if is_dataclass(config) else []
    changes: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        first, dot, rest = name.partition(".")
        if first not in known:
            there = ", ".join(within + each for each in known) or f"{within[:-1]} alone"
            raise ValueError(f"there is no setting {within + name!r}: use some of {there}")
        if dot:
            deeper.setdefault(first, {})[rest] = value
        else:
            changes[first] = _like(getattr(config, first), value, within + name)
    for first, inside in deeper.items():
        changes[first] = _changed(getattr(config, first), inside, f"{within}{first}.")
    return replace(config, **changes)


def _like(before: Any, value: Any, name: str) -> Any:
    """Return a value, of a list a tuple, if it is of the type that the setting has had."""
    if isinstance(before, tuple) and isinstance(value, list):
        value = tuple(value)
    kind = (int, float) if isinstance(before, float) else type(before)
    wrong = not isinstance(value, kind) or isinstance(value, bool) is not isinstance(before, bool)
    if before is not None and value is not None and wrong:
        raise ValueError(f"{name} is {value!r}: it was {before!r}, so give {type(before).__name__}")
    return value
