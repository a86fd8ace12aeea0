"""Checks of a schema's entries; each problem is one line with the entry, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from reprlib import repr as shortened
from typing import Any

from pmlm_env.cohort.wording import quoted, suggestion, tidy
from pmlm_env.io.text import printable

_MAX_NAME = 200

#: What a key's value may be, and whether a value is that.
_TEXT, _NUMBER = "text", "a number"
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    _TEXT: lambda value: isinstance(value, str),
    _NUMBER: lambda value: _is_number(value),
    "a whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "true or false": lambda value: isinstance(value, bool),
    "a list of texts": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    "a table of numbers": lambda value: isinstance(value, dict) and all(_is_number(each) for each in value.values()),
    "a list of tables": lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
}
_KIND_OF = {
    **dict.fromkeys(("name", "unit", "title", "scale", "language", "templates"), _TEXT),
    **dict.fromkeys(("low", "high", "reference_low", "reference_high", "molar_mass"), _NUMBER),
    **dict.fromkeys(("synonyms", "aliases", "codes", "ignored"), "a list of texts"),
    **dict.fromkeys(("indicators", "labels"), "a list of tables"),
    **dict.fromkeys(("max_checkups", "charge"), "a whole number"),
    "no_finding": "true or false",
    "words": "a table of numbers",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def checked_values(kind: type, content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a table of a schema file as the arguments of a dataclass.

    Args:
        kind: The dataclass.
        content: The table.
        where: Prefix of messages.

    Raises:
        ValueError: A key is unknown, or its value has a wrong type.
    """
    names = [each.name for each in fields(kind)]
    for key, value in content.items():
        if key not in names:
            raise ValueError(f"{where}there is no key {quoted(key)}{suggestion(key, names)}: use {', '.join(names)}")
        if not _KINDS[_KIND_OF[key]](value):
            found = quoted(value) if isinstance(value, str) else printable(shortened(value))
            raise ValueError(f"{where}{key} is {found}: use {_KIND_OF[key]}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}


def check_name(key: str, text: str, where: str) -> None:
    """Check that a name can stand in tables, prompts and messages.

    Raises:
        ValueError: It is empty, too long, or contains needless spaces or invisible characters.
    """
    if not tidy(text):
        raise ValueError(f"{where}: {key} is {quoted(text)}: it must not be empty")
    if len(text) > _MAX_NAME:
        raise ValueError(f"{where}: {key} is {quoted(text)}: use at most {_MAX_NAME} characters")
    if printable(text) != text:
        raise ValueError(f"{where}: {key} is {quoted(text)}: it contains an invisible character; remove it")
    if tidy(text) != text:
        raise ValueError(f"{where}: {key} is {quoted(text)}: write it as {quoted(tidy(text))}")
