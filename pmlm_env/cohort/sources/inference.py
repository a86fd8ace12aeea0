"""A schema made from the tables, for a cohort that has none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from pmlm_env.cohort.indicator import RESERVED, Indicator
from pmlm_env.cohort.schema import OBSTETRIC, Schema
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import folded, tidy


def infer_schema(people: Table, records: Table, long: bool) -> tuple[Schema, tuple[str, ...]]:
    """Make a schema from what the tables have.

    Args:
        people: The patients' table; its labels, if it has any, tell whether the patients are the paper's.
        records: The check-ups.
        long: The form of ``records``: one value per row, or one column per indicator.

    Returns:
        The schema, and lines for the report: what was recognized as what, and what was left out, with counts.

    Raises:
        CohortError: No column or row is an indicator, or the values of one are in another unit than they seem to be.
    """
    built_in = Schema.load(OBSTETRIC)
    names = _names(records, long)
    if _mostly_known(people, built_in) and all(_knows(built_in, name) for name in names):
        return built_in, ()
    units: defaultdict[str, Counter[str]] = defaultdict(Counter)
    if long and "unit" in records.columns:
        for name, unit in zip(records.columns["indicator"], records.columns["unit"], strict=True):
            units[tidy(name)][tidy(unit)] += 1
    return Schema(
        tuple(Indicator(name, max(units[name], key=units[name].__getitem__, default="")) for name in names)
    ), ()


def recognized(records: Table, schema: Schema, long: bool, *, inferred: bool) -> Table:
    """Return the records as ``from_long`` and ``from_wide`` read them: by the names of the schema alone.

    Rows with a code that the schema or the catalogue knows get the name of that indicator, whatever they call it.

    Args:
        records: The check-ups.
        schema: What they are read by.
        long: Their form.
        inferred: Whether ``infer_schema`` made the schema of them: what it left out, and counted, is taken out.
    """
    if not inferred or schema == Schema.load(OBSTETRIC):
        return records
    if long:
        known = {name for name in set(records.columns["indicator"]) if _knows(schema, name)}
        return records.where(np.array([name in known for name in records.columns["indicator"]], dtype=np.bool_))
    kept = {name: cells for name, cells in records.columns.items() if name in RESERVED or _knows(schema, name)}
    return replace(records, columns=kept)


def _names(records: Table, long: bool) -> Collection[str]:
    names = records.columns["indicator"] if long else [name for name in records.columns if name not in RESERVED]
    return {folded(tidy(name)): tidy(name) for name in names}.values()


def _mostly_known(people: Table, schema: Schema) -> bool:
    known = {folded(name) for label in schema.labels for name in (label.name, *label.aliases)}
    labels = [folded(tidy(label)) for label in people.columns.get("label", ())]
    given = [label for label in labels if label]
    return 2 * sum(label in known for label in given) > len(given)


def _knows(schema: Schema, name: str) -> bool:
    try:
        schema.index(name)
    except KeyError:
        return False
    return True
