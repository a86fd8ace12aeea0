"""TOML files, read with errors of one line."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Bytes; what people write has some hundred, and the parser takes quadratic time for the worst that strangers may.
_LARGEST = 50_000
_KINDS = {str: "text", dict: "a table", list: "a list"}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file.

    Raises:
        ValueError: It is not there, is no TOML, is too large, or holds a number that nothing here can use.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise ValueError(f"{path} is larger than {_LARGEST:,} bytes: name another file")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    try:
        table = tomllib.loads(raw.decode("utf-8-sig"))  # some editors of Windows begin a file with a byte order mark
    except RecursionError:
        raise ValueError(f"{path} is not TOML that can be read: it is nested too deeply") from None
    except ValueError as error:  # TOML's errors and Unicode's
        raise ValueError(f"{path} is not TOML: {error}") from None
    _check_numbers(table, path)
    return table


def shown(value: Any) -> str:
    """Say what a value from TOML is: a number as it stands; of text only that it is some, for it may be a key."""
    if isinstance(value, int | float):
        return json.dumps(value)
    return next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "a date or time")


def _check_numbers(table: dict[str, Any], path: Path) -> None:
    left: list[tuple[str, Any]] = list(table.items())
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(name, item) for item in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{path}: {name!r} is {value}, which nothing here can use")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{path}: {name!r} is a number of more than 64 bits, which nothing here can use")
