"""The settings that ``pmlm tune`` tries for each agent, and a reader for the file it writes."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from agents import registry
from agents.settings import Choices, Integers, Range
from pmlm_env.io.checked_files import read_object

if TYPE_CHECKING:
    import optuna


def first_trial(name: str, env: registry.BenchmarkEnv) -> dict[str, Any]:
    """Return an agent's default settings in the form that Optuna expects.

    Raises:
        ValueError: The agent's ``space`` names something that is not a setting, or does not contain a default.
    """
    config, first = registry.settings_of(name, env), {}
    for key, within in registry.class_of(name).space.items():
        value = getattr(config, key, None)
        if not (value in within.values if isinstance(within, Choices) else _is_between(value, within.low, within.high)):
            raise ValueError(f"the agent {name}: the default of {key}, {value!r}, is not within its `space`, {within}")
        first[key] = within.values.index(value) if isinstance(within, Choices) else value
    return first


def _is_between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high


def draw(trial: optuna.Trial, name: str) -> dict[str, Any]:
    """Draw an agent's settings for a trial."""
    return {key: _draw(trial, key, within) for key, within in registry.class_of(name).space.items()}


def _draw(trial: optuna.Trial, key: str, within: Range) -> Any:
    if isinstance(within, Choices):  # by index, because Optuna does not accept every type of value
        return within.values[trial.suggest_categorical(key, range(len(within.values)))]
    if isinstance(within, Integers):
        return trial.suggest_int(key, within.low, within.high)
    return trial.suggest_float(key, within.low, within.high, log=within.log)


def read_tuned(file: Path) -> dict[str, Any]:
    """Return the content of a ``pmlm tune`` file: its settings and identity, and the results by name in ``agents``.

    Raises:
        ValueError: The file is missing or was not written by ``pmlm tune``.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist: create it with `pmlm tune`")
    content = read_object(file)
    agents = content.get("agents")
    if not isinstance(agents, dict):
        raise ValueError(f"{file} was not written by `pmlm tune`: it has no table 'agents'")
    for name, found in agents.items():
        if not registry.REGISTRY.knows(name):  # imports nothing: the file may come from a stranger
            raise ValueError(f"{file}: there is no agent {shortened(name)}: install the package that adds it")
        if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
            raise ValueError(f"{file} was not written by `pmlm tune`: {name} has no table 'settings'")
    return content
