"""Settings as frozen dataclasses: read from JSON, TOML, and command lines, and rejected if they have no effect."""

from __future__ import annotations

import json
import os
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from pmlm_env.kwargs import Kwargs

Config = TypeVar("Config")

#: Descriptions of the types of settings, for error messages.
_ALLOWED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    int | float: "a whole number, or a share such as 0.2",
    str: "text",
    Path: "a path",
}


@dataclass(frozen=True)
class Floats:
    """Floats from ``low`` to ``high``, sampled on a logarithmic scale if ``log``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Integers:
    """Integers from ``low`` to ``high``."""

    low: int
    high: int


@dataclass(frozen=True)
class Choices:
    """One of the given values."""

    values: tuple[Any, ...]


Range: TypeAlias = Floats | Integers | Choices


def plain(value: Any) -> Any:
    """Convert dataclasses and paths to JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=lambda each: dict(each) if isinstance(each, Kwargs) else str(each)))


def without_folders(name: str) -> str:
    """Return the name of a model without the folders of this machine: of a path its last component.

    Args:
        name: A path, the name of a model on a hub, or either of them after a prefix such as ``local:``.
    """
    prefix, colon, rest = name.partition(":")
    if not colon:
        prefix, rest = "", name
    is_path = rest.startswith((".", "/", "~")) or rest.count("/") > 1 or os.path.exists(rest)
    return f"{prefix}{colon}{os.path.basename(os.path.abspath(rest))}" if is_path and rest else name


def from_plain(kind: type[Config], content: Mapping[str, Any], usual: Config | None = None) -> Config:
    """Create nested dataclasses from JSON or TOML values.

    Args:
        kind: The outermost dataclass.
        content: Its fields by name; tables are nested dataclasses.
        usual: Values for fields missing from ``content``; the dataclasses' defaults if None.

    Raises:
        ValueError: A field is unknown, or a value has the wrong type or is rejected by a dataclass.
    """
    return _read(kind, content, "", usual)


def check_readable(kind: type) -> None:
    """Check that ``from_plain`` can read all settings of a dataclass, and that all have defaults.

    Raises:
        ValueError: A setting has no default, or a type that cannot be read.
    """
    try:
        kinds = get_type_hints(kind)
    except Exception as error:  # annotations may be any expression
        raise ValueError(f"its types are not known: {type(error).__name__}: {error}") from None
    for field in fields(kind):
        if _default(field) is MISSING:
            raise ValueError(f"the setting {field.name} has no default")
        if not _is_readable(kinds[field.name]):
            raise ValueError(
                f"the setting {field.name} is of the type {field.type}: use bool, int, float, int | float, str, Path, "
                "a Literal, tuple[TYPE, ...], a dataclass of such settings, or one of them or None"
            )


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a copy of a frozen dataclass with some of its fields changed.

    Args:
        config: The dataclass.
        settings: New values by name, as JSON values.

    Raises:
        ValueError: There is no such field, or its value has the wrong type or is rejected by the dataclass.
    """
    return from_plain(type(config), settings, config)


def changed(config: Any, within: str = "") -> list[str]:
    """Return the dotted names of the settings that differ from the dataclasses' defaults."""
    names = []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            names += changed(value, f"{within}{field.name}.")
        elif value != _default(field):
            names.append(within + field.name)
    return names


def same_value(name: str, one: Any, other: Any) -> bool:
    """Return whether two values of a setting are equal; 1 and 1.0 are not, if ``n_edits`` may be a share."""
    return bool(one == other) and (name != "n_edits" or type(one) is type(other))


def option(name: str) -> str:
    """Return a setting's command-line option, such as ``--n-edits`` for ``models.n_edits``."""
    return "--" + name.rpartition(".")[2].replace("_", "-")


def refuse_idle(config: Any, idle: Mapping[str, str]) -> None:
    """Reject changed settings that have no effect, because whoever changes one expects an effect.

    Args:
        config: Nested dataclasses.
        idle: Settings that have no effect, by dotted name, with the reason and what to do instead.

    Raises:
        ValueError: One of them differs from its default.
    """
    for name in changed(config):
        if name in idle:
            raise ValueError(f"{option(name)} has no effect: {idle[name]}")


def check_count(name: str, number: int, most: int) -> None:
    """Check that a number is from 1 to ``most``.

    Raises:
        ValueError: It is not.
    """
    if not 1 <= number <= most:
        raise ValueError(f"{name} is {shortened(number)}: use a whole number from 1 to {most:,}")


def _default(field: Any) -> Any:
    """Return the default of a dataclass's field; ``MISSING`` if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is_readable(kind: Any) -> bool:
    """Return whether ``_read`` can read values of a type."""
    if get_origin(kind) in (Union, types.UnionType) and kind not in _ALLOWED:
        rest = [each for each in get_args(kind) if each is not type(None)]
        return len(rest) == 1 and _is_readable(rest[0])
    if get_origin(kind) is tuple:
        return get_args(kind)[1:] == (...,) and _is_readable(get_args(kind)[0])
    if is_dataclass(kind):
        check_readable(kind)  # type: ignore[arg-type]
        return True
    return get_origin(kind) is Literal or kind is Kwargs or kind in _ALLOWED


def _read(kind: Any, value: Any, name: str, usual: Any) -> Any:
    """Convert ``value`` to ``kind``, a type or an annotation; ``usual`` is the setting's default."""
    if get_origin(kind) in (Union, types.UnionType) and kind not in _ALLOWED:
        if value is None and type(None) in get_args(kind):
            return None
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    if is_dataclass(kind):
        return _read_table(kind, value, name, usual)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} is {shortened(value)}: use one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is {shortened(value)}: use a list")
        return tuple(_read(get_args(kind)[0], each, f"{name}[{i}]", None) for i, each in enumerate(value))
    if kind is Kwargs:
        return Kwargs(value, name)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        return float(value)
    if not (isinstance(value, Path) if kind is Path else type(value) in (get_args(kind) or (kind,))):
        raise ValueError(f"{name} is {shortened(value)}: use {_ALLOWED[kind]}")
    return value


def _read_table(kind: Any, value: Any, name: str, usual: Any) -> Any:
    """Convert a table to a dataclass."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name or 'it'} is {shortened(value)}: use a table")
    within = f"{name}." if name else ""
    kinds, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    if unknown := sorted(value.keys() - known.keys()):
        key = unknown[0]
        close = get_close_matches(key, known, 1)
        hint = f"did you mean {within}{close[0]}?" if close else f"use some of {', '.join(within + k for k in known)}"
        raise ValueError(f"there is no setting {shortened(within + key)}: {hint}")
    inside = {}
    for key, each in value.items():
        before = _default(known[key]) if usual is None else getattr(usual, key)
        inside[key] = _read(kinds[key], each, within + key, None if before is MISSING else before)
    if usual is not None:
        return replace(usual, **inside)
    lacking = [key for key, field in known.items() if key not in inside and _default(field) is MISSING]
    if lacking:
        raise ValueError(f"{within}{lacking[0]} is missing: it has no default")
    return kind(**inside)
