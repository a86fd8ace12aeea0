"""Settings files for ``--config``: TOML, or the ``config.json`` of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, get_type_hints

from agents.run_folder import RunFolder
from pmlm_env.io.keys import holds_key
from pmlm_env.io.toml import read_toml

#: Settings in ``config.json`` that apply only to the run that wrote it.
_OF_ONE_RUN = ("llm_identity", "resume", "allow_import", "dry_run")


def read_config_file(file: Path) -> dict[str, Any]:
    """Return the settings in a file, with any "-" in names replaced by "_".

    Args:
        file: A TOML file, or the ``config.json`` of a run, whose paths are relative to it.

    Raises:
        ValueError: The file is missing or damaged, repeats a name, or has a value that looks like an API key.
    """
    if file.suffix == ".json":
        if file.name != "config.json":
            raise ValueError(f"{file} is not a TOML file: name one, or the config.json in a run folder")
        settings = RunFolder(file.parent).settings()
        return {name: value for name, value in settings.items() if name not in _OF_ONE_RUN}
    content = read_toml(file)
    for name, value in _texts(content):
        if holds_key(value):
            raise ValueError(f"{file}: {name} contains what looks like a key: put that into the environment")
    return _renamed(content, file)


def arranged(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """Move settings into their tables; a file may omit the tables, as on the command line.

    Args:
        kind: A dataclass whose fields are settings, or dataclasses that are tables of settings.
        content: The file's settings.

    Raises:
        ValueError: A setting is unknown, or occurs both in its table and outside it, or a table is not a table.
    """
    kinds, own = get_type_hints(kind), [each.name for each in fields(kind)]
    tables = {name: [each.name for each in fields(kinds[name])] for name in own if is_dataclass(kinds[name])}
    table_of = {name: table for table, names in tables.items() for name in names}
    found: dict[str, Any] = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in content.items()
    }
    for name in [name for name in found if name not in own]:
        if name not in table_of:
            close = get_close_matches(name, [*own, *table_of], 1)
            hint = f"did you mean {close[0]}?" if close else "--help lists the settings there are"
            raise ValueError(f"there is no setting {shortened(name)}: {hint}")
        table = found.setdefault(table_of[name], {})
        if not isinstance(table, dict):
            raise ValueError(f"{table_of[name]} is {shortened(table)}: use a table, [{table_of[name]}]")
        if name in table:
            raise ValueError(f"{name} is both in [{table_of[name]}] and outside it: leave one out")
        table[name] = found.pop(name)
    return found


def _renamed(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return tables with "_" instead of "-" in names, and dates as text."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name in found:
            raise ValueError(f"{file}: {name} occurs twice, with - and with _: leave one out")
        if isinstance(value, Mapping) and not name.endswith("_kwargs"):  # these names belong to somebody's class
            value = _renamed(value, file)
        found[name] = value.isoformat() if isinstance(value, date) else value
    return found


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in nested tables and lists, with the name of its setting."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(each, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, name)
