"""Settings by dotted names: put over an agent's defaults, and read from what ``pmlm tune`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from agents.base import Agent
from agents.registry import AGENTS, BenchmarkEnv
from pmlm_env.io.checked_files import read_object

Config = TypeVar("Config")


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a copy of nested frozen dataclasses, but for some of their fields.

    Args:
        config: The outermost.
        settings: New values by dotted names, as in ``{"learner.learning_rate": 0.003}``.

    Raises:
        ValueError: There is no such field, or the value is of another type, or the dataclass refuses it.
    """
    return _changed(config, settings, "")


def made(name: str, env: BenchmarkEnv, seed: int, settings: Mapping[str, Any]) -> Agent:
    """Make an agent of the catalogue with its defaults, but for ``settings``.

    Raises:
        ValueError: It has no such setting; see ``with_settings``.
    """
    agent = AGENTS[name](env, seed)
    try:
        return type(agent)(with_settings(agent.config, settings), seed)
    except ValueError as error:
        raise ValueError(f"settings of {name}: {error}") from None


def read_tuned(file: Path) -> dict[str, Any]:
    """Return what ``pmlm tune`` wrote: its numbers, and under ``agents`` what was found, by name.

    Raises:
        ValueError: The file is not there, or is something else.
    """
    if not file.is_file():
        raise ValueError(f"{file} is not there: make it with `pmlm tune`")
    content = read_object(file)
    agents = content.get("agents")
    if not isinstance(agents, dict):
        raise ValueError(f"{file} is not what `pmlm tune` writes: it has no table of agents")
    for name, found in agents.items():
        if name not in AGENTS:
            raise ValueError(f"{file}: there is no agent {name!r}: use some of {', '.join(AGENTS)}")
        if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
            raise ValueError(f"{file} is not what `pmlm tune` writes: {name} has no table of settings")
    return content


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
