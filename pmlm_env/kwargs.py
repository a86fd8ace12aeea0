"""Kwargs: the JSON keyword arguments of a class that a user names, such as ``reward_kwargs``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from math import isfinite
from typing import Any

from pmlm_env.io.keys import holds_key

_ALLOWED = "use JSON values: text, finite numbers, true, false, null, lists, and tables"


class Kwargs(Mapping[str, Any]):
    """Keyword arguments with JSON values: immutable, and equal and hashable by content.

    Neither ``repr`` nor an error message shows a value, because it may be secret.

    Args:
        values: The arguments by name, or the text of a JSON object; None = no arguments.
        option: What they are called, for messages.

    Attributes:
        json: The arguments as the text of a JSON object, sorted by name.

    Raises:
        ValueError: A value is not a JSON value, or contains what looks like an API key.
    """

    def __init__(self, values: Mapping[str, Any] | str | None = None, option: str = "the arguments") -> None:
        """Check and copy the values."""
        try:
            found = json.loads(values) if isinstance(values, str) else {} if values is None else values
        except ValueError as error:
            at = f", at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f'{option} is not JSON{at}: give an object, such as {{"weight": 0.5}}') from None
        except RecursionError:
            raise ValueError(f"{option} is nested too deeply") from None
        if not isinstance(found, Mapping):
            raise ValueError(f'{option} is of type {type(found).__name__}: give an object, such as {{"weight": 0.5}}')
        try:
            self.json = json.dumps(_checked(found, option), sort_keys=True, ensure_ascii=False)
        except RecursionError:
            raise ValueError(f"{option} is nested too deeply") from None

    def __getitem__(self, name: str) -> Any:
        """Return a copy of a value."""
        return json.loads(self.json)[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(json.loads(self.json))

    def __len__(self) -> int:
        """Return the number of arguments."""
        return len(json.loads(self.json))

    def __eq__(self, other: object) -> bool:
        """Whether ``other`` holds the same arguments."""
        return self.json == other.json if isinstance(other, Kwargs) else NotImplemented

    def __hash__(self) -> int:
        """Return a hash of the content."""
        return hash(self.json)

    def __repr__(self) -> str:
        """Return the names without the values."""
        return f"Kwargs({', '.join(f'{name}=...' for name in self)})"


def read_kwargs(config: Any) -> None:
    """Convert the mappings and texts in a frozen dataclass's ``Kwargs`` fields; for its ``__post_init__``.

    Raises:
        ValueError: One of them is not allowed; see ``Kwargs``.
    """
    for each in fields(config):
        value = getattr(config, each.name)
        if isinstance(each.default, Kwargs) and not isinstance(value, Kwargs):
            object.__setattr__(config, each.name, Kwargs(value, "--" + each.name.replace("_", "-")))


def _checked(value: Any, name: str) -> Any:
    """Return a JSON value with dicts for mappings and lists for tuples.

    Raises:
        ValueError: It is not a JSON value, or contains what looks like a key.
    """
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{name} has a name of type {type(wrong[0]).__name__}: use text")
        for key in value:
            _refuse_key(key, name)
        return {key: _checked(each, f"{name}: {key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_checked(each, name) for each in value]
    if isinstance(value, str):
        _refuse_key(value, name)
        return str(value)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    what = "not finite" if isinstance(value, float) else f"of type {type(value).__name__}"
    raise ValueError(f"{name} is {what}: {_ALLOWED}")


def _refuse_key(text: str, name: str) -> None:
    if holds_key(text):
        raise ValueError(
            f"{name} contains what looks like a key: put it into the environment, and let the class read it from there"
        )


#: No arguments, the default of settings.
NO_KWARGS = Kwargs()
