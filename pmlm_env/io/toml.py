"""Reading TOML files, with one-line error messages."""

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

#: Limit in bytes. Usual files have a few hundred; the parser takes quadratic time for some malicious ones.
MAX_BYTES = 50_000
_KINDS = {str: "text", dict: "a table", list: "a list"}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ValueError: The file cannot be read, is not TOML, is too large, or contains a number that is out of range.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes: choose another file")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    try:
        table = tomllib.loads(raw.decode("utf-8-sig"))  # some Windows editors write a byte order mark
    except RecursionError:
        raise ValueError(f"{path} cannot be read: it is nested too deeply") from None
    except ValueError as error:  # from TOML or Unicode decoding
        raise ValueError(f"{path} is not TOML: {error}") from None
    _check_numbers(table, path)
    return table


def shown(value: Any) -> str:
    """Describe a TOML value for messages: a number as is; text only by its type, because it may be a key."""
    if isinstance(value, int | float):
        return json.dumps(value)
    return next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "a date or time")


def _check_numbers(table: dict[str, Any], path: Path) -> None:
    pending: list[tuple[str, Any]] = list(table.items())
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list):
            pending += [(name, item) for item in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{path}: {name!r} is {value}, which is not allowed")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{path}: {name!r} is a number of more than 64 bits, which is not allowed")
