"""Where the prompts of a saved run go: a run folder may come from somebody else, so it does not decide that alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from agents.settings import option
from agents.training.config import editor_in, named_classes
from pmlm_env.llm import LLMOptions
from pmlm_env.llm.http.providers import load_providers
from pmlm_env.llm.storage.location import is_url

Options = TypeVar("Options", bound=LLMOptions)

#: Settings of a run that say where requests go.
_OPTIONS = ("base_url", "providers")

#: Settings of a provider that determine where requests go, and what they contain besides the prompt.
_WHERE_AND_HOW = ("base_url", "allow_http", "api_key_env", "headers", "query", "extra_body")


def with_destination(
    given: Options, saved: Mapping[str, Any], file: Path, *, replay: bool = False, editor: str | None = None
) -> Options:
    """Return LLM options with the address and the providers' file that a run was trained with, where none are given.

    Args:
        given: The options, with ``base_url`` and ``providers`` only if the user has given them.
        saved: ``models`` in the run's settings.
        file: The run's ``config.json``, for the message.
        replay: Whether no request is sent, so that it does not matter where it would go.
        editor: The LLM that the run's agent itself asks for edits, if it asks one.

    Raises:
        ValueError: The run changes where prompts and the key are sent, and the user has not given that again.
    """
    missing: dict[str, Any] = {name: saved.get(name) for name in _OPTIONS if getattr(given, name) is None}
    changed = _changes_destination({"llm": given.llm, **missing}, editor)
    if changed and not replay:
        raise ValueError(
            f"{file} changes where or how the prompts and the key for its LLM are sent, and a run folder may come from "
            f"somebody else: nothing was sent. If you trust it, add{_as_options(changed)}"
        )
    return replace(given, **missing)


def given_again(settings: Mapping[str, Any]) -> str:
    """Return the options that a run's next command has to repeat, each after a space; "" if there are none.

    Args:
        settings: The run's settings as JSON values; see ``agents.settings.plain``.

    Raises:
        ValueError: The providers' file is invalid.
    """
    flags = " --allow-import" if named_classes(settings) else ""
    flags += " --send-values" if settings["calls"].get("send_values") else ""
    cache = settings["calls"].get("cache")
    flags += f" --cache {shlex.quote(cache)}" if is_url(cache) else ""
    return flags + _as_options(_changes_destination(settings["models"], editor_in(settings)))


def _changes_destination(models: Mapping[str, Any], editor: str | None = None) -> dict[str, str]:
    """Return those of ``base_url`` and ``providers`` that make requests differ from the built-in provider's."""
    names = {name: models.get(name) for name in _OPTIONS}
    kinds = [str(llm).partition(":")[0] for llm in (models["llm"], editor) if llm is not None]
    file = names["providers"]
    if file is not None and all(_where_and_how(kind, file) == _where_and_how(kind, None) for kind in kinds):
        names["providers"] = None  # it has limits or prices only, or does not concern these LLMs
    return {name: str(value) for name, value in names.items() if value is not None}


def _where_and_how(provider: str, file: str | None) -> dict[str, Any] | None:
    found = load_providers(file).get(provider)
    if found is None:
        return None
    where = {name: found.settings.get(name) for name in _WHERE_AND_HOW}
    several = [{name: own.get(name) for name in _WHERE_AND_HOW} for own, _ in found.endpoints]
    return {**where, "endpoints": several}


def _as_options(values: Mapping[str, str]) -> str:
    return "".join(f" {option(name)} {shlex.quote(value)}" for name, value in values.items())
