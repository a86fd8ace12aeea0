"""Runs of a results file, by the settings that they have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.experiments.rows import LLM_NAMES
from pmlm_env.io.text import as_text

#: A run, with its ``cell`` and its ``result``.
Run = Mapping[str, Any]

#: Settings that the first line of every section states, each with those that differ where it does.
_STATED = {"patients.cohort": ("patients.n", "patients.sha256"), "models.llm": ("models.llm_identity",)}

#: Characters of a setting in a heading.
_LONGEST = 40


def by_settings(
    runs: Sequence[Run], settings: Callable[[Mapping[str, Any]], Any] | None = None
) -> list[tuple[Any, list[Run]]]:
    """Return the runs by some of their settings, in the order of the first ones; see also ``sections``.

    Args:
        runs: The runs.
        settings: Returns these settings of a cell, as JSON values; by default its patients and models.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        cell = run["cell"]
        of_group = settings(cell) if settings else {name: cell[name] for name in ("patients", "models")}
        groups.setdefault(json.dumps(of_group, sort_keys=True), []).append(run)
    return [(json.loads(group), own) for group, own in groups.items()]


def sections(
    runs: Sequence[Run],
    section: Callable[[Any, list[Run]], str],
    settings: Callable[[Mapping[str, Any]], Any] | None = None,
) -> str:
    """Return a section for each group of runs with the same settings, each headed by what sets it apart.

    Args:
        runs: The runs.
        section: Makes the Markdown of a group's settings and runs.
        settings: As for ``by_settings``.
    """
    groups = by_settings(runs, settings)
    own = [_flat(group) for group, _ in groups]
    apart = [name for name in dict.fromkeys(name for each in own for name in each) if _differs(name, own)]
    stated = {each for name, more in _STATED.items() if name in apart for each in (name, *more)}
    apart = [name for name in apart if name not in stated]
    parts = []
    for of_group, (group, of_runs) in zip(own, groups, strict=True):
        named = ", ".join(f"{name} {_short(of_group[name])}" for name in apart if name in of_group)
        parts += [f"**With {as_text(named)}:**"] if named else []
        parts.append(section(group, of_runs))
    return "\n\n".join(parts)


def _flat(settings: Any, head: str = "") -> dict[str, Any]:
    """Return nested settings as a flat table, by their dotted names."""
    if not isinstance(settings, dict):
        return {head: settings}
    return {
        name: value
        for key, each in settings.items()
        for name, value in _flat(each, f"{head}.{key}" if head else key).items()
    }


def _differs(name: str, groups: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a setting differs between groups."""
    return any(name not in each or each[name] != groups[0].get(name) for each in groups)


def _short(value: Any) -> str:
    """Return a setting as text, of which long ones, such as digests, are shortened."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def without_llm(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patients and models of a cell, which several LLMs have in common; for ``by_settings``."""
    models = {name: value for name, value in cell["models"].items() if name not in LLM_NAMES}
    return {"patients": cell["patients"], "models": models}
