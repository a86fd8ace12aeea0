"""Writing a schema as a TOML file for people to read and change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from pmlm_env.cohort.indicator import Indicator
from pmlm_env.cohort.schema import Cohort
from pmlm_env.core.labels import Label


def schema_toml(cohort: Cohort, notes: Sequence[str] = ()) -> str:
    """Return a cohort's schema as TOML, which ``Schema.load`` reads back as an equal schema.

    Args:
        cohort: The patients; comments say of each indicator how many have it, and its median.
        notes: Lines for a comment at the beginning.
    """
    schema = cohort.schema
    values = np.concatenate([np.empty((0, len(schema.names))), *(patient.values for patient in cohort)])
    has = [(~np.isnan(patient.values)).any(axis=0) for patient in cohort]
    shares = np.mean(has, axis=0) if has else np.zeros(len(schema.names))
    head = ["The schema of this cohort: what it measures. Change it as you like; docs/schema.md has all keys.", *notes]
    lines = [f"# {line}" for text in head for line in text.splitlines()]
    lines += [f"{key} = {_value(getattr(schema, key))}" for key in ("language", "templates", "max_checkups")]
    if schema.ignored:
        lines += [
            "",
            "# Names in the tables that are left out. To use one, remove it here and add it to the indicators.",
        ]
        lines += ["ignored = [", *(f"  {_value(name)}," for name in schema.ignored), "]"]
    lines += ["", "indicators = ["]
    for k, indicator in enumerate(schema.indicators):
        measured = values[~np.isnan(values[:, k]), k]
        median = f", median {np.median(measured):.4g}" if len(measured) else ""
        lines += [f"  # {shares[k]:.0%} of the patients{median}", f"  {_table(indicator)},"]
    lines.append("]")
    if schema.labels:
        lines += ["", "labels = [", *(f"  {_table(label)}," for label in schema.labels), "]"]
    return "\n".join(lines) + "\n"


def _table(entry: Indicator | Label) -> str:
    return f"{{ {', '.join(_pairs(entry))} }}"


def _pairs(entry: Indicator | Label) -> Iterator[str]:
    for each in fields(entry):
        value = getattr(entry, each.name)
        if each.name == "words" and value:
            numbers = (f"{_value(word)} = {_value(number)}" for word, number in value)
            yield f"words = {{ {', '.join(numbers)} }}"
        elif each.name == "name" or not (value is None or value is False or value in ("", ())):
            yield f"{each.name} = {_value(value)}"


def _value(value: Any) -> str:
    """Return a value as TOML, whose strings may be written as JSON's."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float | np.floating):
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
    return json.dumps(value, ensure_ascii=False)
