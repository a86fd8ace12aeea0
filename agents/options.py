"""Options as frozen dataclasses: read back from JSON, and refused where they have no effect."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def from_plain(config: type[Config], content: Mapping[str, Any], file: Path) -> Config:
    """Make nested dataclasses of what JSON holds; what it lacks has its default.

    Args:
        config: The outermost.
        content: Its fields by name.
        file: Where they are from, for messages.

    Raises:
        ValueError: A field is unknown, or its value of another type, or refused by its dataclass.
    """
    try:
        return _made(config, content, "")
    except ValueError as error:
        raise ValueError(
            f"{file}: {error}: it is damaged, or of another version of pmlm-env: restore it from a copy, or begin anew"
        ) from None


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
        return kind(**inside)  # type: ignore[operator]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} is {value!r}: use one of {', '.join(map(str, get_args(kind)))}")
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        return value
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r}, and should be of type {getattr(kind, '__name__', kind)}")
    return value
