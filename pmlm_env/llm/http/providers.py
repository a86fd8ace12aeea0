"""Endpoints by name: address, name of the key, accepted settings and prices."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pmlm_env.io.keys import holds_key
from pmlm_env.io.toml import read_toml, shown
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.storage.budget import MAX_AMOUNT, Price

#: The settings of a provider's table and their types.
_SETTINGS: Mapping[str, type | tuple[type, ...]] = {
    "base_url": str,
    "api_key_env": str,
    "send_temperature": bool,
    "send_seed": bool,
    "system_prompt": str,
    "max_tokens_name": str,
    "extra_body": dict,
    "headers": dict,
    "query": dict,
    "concurrency": int,
    "requests_per_minute": (int, float),
    "tokens_per_minute": (int, float),
    "connect_timeout": (int, float),
    "read_timeout": (int, float),
    "tries": int,
    "patience": (int, float),
    "backoff": (int, float),
    "allow_http": bool,
    "prices": dict,
    "endpoints": list,
}
#: The settings of one of several endpoints; all others are those of the provider, because replies must not depend on
#: which endpoint gives them.
_OF_ENDPOINT = (
    *("base_url", "api_key_env", "headers", "query", "allow_http", "concurrency", "requests_per_minute"),
    *("tokens_per_minute", "connect_timeout", "read_timeout", "weight"),
)
_LARGEST_WEIGHT = 1000
_TYPE_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    (int, float): "a number",
    dict: "a table",
    list: "a list",
}


@dataclass(frozen=True)
class Provider:
    """An endpoint from ``providers.toml`` or a user's file.

    Attributes:
        name: The NAME in ``NAME:MODEL``.
        settings: Arguments of ``OpenAIChat``, without those of ``endpoints``.
        endpoints: For each of several endpoints, the arguments that differ, and its weight; empty for a single one.
        send_temperature: Whether the endpoint's models accept a temperature.
        send_seed: Whether the endpoint accepts a seed.
        prices: Prices by model name.
    """

    name: str
    settings: Mapping[str, Any]
    send_temperature: bool = True
    send_seed: bool = True
    prices: Mapping[str, Price] = field(default_factory=dict)
    endpoints: Sequence[tuple[Mapping[str, Any], float]] = ()


def load_providers(path: str | Path | None = None) -> dict[str, Provider]:
    """Load the built-in providers and, optionally, a user's file that adds to them or overrides their settings.

    Args:
        path: A TOML file with one table per provider. A provider that is not built in needs a ``base_url``; its key is
            in ``NAME_API_KEY`` unless ``api_key_env`` names another variable.

    Raises:
        ValueError: The file is invalid; the message names the table and the setting.
    """
    with resources.as_file(resources.files(__package__) / "providers.toml") as built_in:
        tables = _checked(read_toml(built_in), str(built_in))
    if path is not None:
        for name, table in _checked(read_toml(Path(path)), str(path)).items():
            if name not in tables and not table.keys() & {
                "base_url",
                "endpoints",
            }:  # otherwise a typo would send prompts to OpenAI
                raise ValueError(
                    f"{path}, [{name}]: base_url is missing, and the name is none of {', '.join(sorted(tables))}"
                )
            usual = {"api_key_env": re.sub(r"[^A-Z0-9]", "_", name.upper()) + "_API_KEY"}
            tables[name] = {**tables.get(name, usual), **table}
    return {name: _provider(name, table, str(path)) for name, table in tables.items()}


def _checked(tables: Mapping[str, Any], file: str) -> dict[str, dict[str, Any]]:
    if _names_a_key(tables):
        raise ValueError(f"{file}: a name looks like a key (not shown): put the key into the environment")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"{file}: {name!r} is outside a table; begin with [PROVIDER]")
        if not name.isprintable() or ":" in name:
            raise ValueError(f"{file}: {name!r} cannot be the name of a provider: use letters, digits and hyphens")
        for key, value in table.items():
            if key not in _SETTINGS:
                raise ValueError(f"{file}, [{name}]: unknown {key!r}; a provider has {', '.join(_SETTINGS)}")
            types = _SETTINGS[key]
            if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
                raise ValueError(f"{file}, [{name}]: {key} is {shown(value)}: it should be {_TYPE_NAMES[types]}")
            if key != "api_key_env" and holds_key(json.dumps(value, default=str)):
                raise ValueError(
                    f"{file}, [{name}]: {key} contains what looks like a key: put the key into the environment"
                )
        for key in ("headers", "query"):
            for part, value in table.get(key, {}).items():
                if not isinstance(value, str):
                    raise ValueError(
                        f"{file}, [{name}]: {part!r} in {key} is {shown(value)}: it should be text, in quotes"
                    )
        try:
            json.dumps(table.get("extra_body"))
        except (TypeError, RecursionError):
            raise ValueError(
                f"{file}, [{name}]: extra_body contains a date or time, which JSON does not support"
            ) from None
    return {name: dict(table) for name, table in tables.items()}


def _names_a_key(tables: Mapping[str, Any]) -> bool:
    pending: list[tuple[str, Mapping[str, Any]]] = [("", tables)]
    while pending:
        above, table = pending.pop()
        if any(holds_key(f"{above}.{name}") for name in table):  # TOML splits a key at a full stop
            return True
        pending += [(name, value) for name, value in table.items() if isinstance(value, dict)]
    return False


def _provider(name: str, table: dict[str, Any], file: str) -> Provider:
    prices = {}
    for model, price in table.pop("prices", {}).items():
        numbers = price if isinstance(price, dict) else {}
        if numbers.keys() != {"prompt", "completion"} or not all(
            isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= MAX_AMOUNT
            for number in numbers.values()
        ):
            raise ValueError(
                f"{file}, [{name}.prices.{model!r}] should have prompt and completion, the prices of a million tokens"
            )
        prices[model] = Price(float(numbers["prompt"]), float(numbers["completion"]))
    flags = {key: table.pop(key) for key in ("send_temperature", "send_seed") if key in table}
    endpoints = _endpoints(name, table.pop("endpoints", None), file)
    for number, (settings, _) in enumerate(endpoints or [({}, 1.0)], start=1):
        try:
            OpenAIChat("some-model", **{**table, **settings})
        except ValueError as error:
            which = f", endpoint {number}" if endpoints else ""
            raise ValueError(f"{file}, [{name}]{which}: {error}") from None
    return Provider(name, table, prices=prices, endpoints=endpoints, **flags)


def _endpoints(name: str, tables: Any, file: str) -> list[tuple[Mapping[str, Any], float]]:
    """Return the settings and the weight of each of several endpoints."""
    if tables is None:
        return []
    if len(tables) < 1 or not all(isinstance(table, dict) and "base_url" in table for table in tables):
        raise ValueError(f"{file}, [{name}]: endpoints should be a list of tables, each with a base_url")
    found: list[tuple[Mapping[str, Any], float]] = []
    for number, table in enumerate(tables, start=1):
        where = f"{file}, [{name}], endpoint {number}"
        for key, value in table.items():
            if key not in _OF_ENDPOINT:
                raise ValueError(f"{where}: unknown {key!r}; one of several endpoints has {', '.join(_OF_ENDPOINT)}")
            types = _SETTINGS.get(key, (int, float))
            if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
                raise ValueError(f"{where}: {key} is {shown(value)}: it should be {_TYPE_NAMES[types]}")
        weight = float(table.get("weight", 1))
        if not 0 < weight <= _LARGEST_WEIGHT:
            raise ValueError(f"{where}: weight is {weight:g}: it should be above 0, at most {_LARGEST_WEIGHT}")
        found.append(({key: value for key, value in table.items() if key != "weight"}, weight))
    if len({table["base_url"] for table, _ in found}) < len(found):
        raise ValueError(f"{file}, [{name}]: two endpoints have the same base_url: give one a larger weight instead")
    return found
