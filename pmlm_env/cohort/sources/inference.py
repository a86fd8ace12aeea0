"""The schema of tables that come without one."""

from __future__ import annotations

from pmlm_env.cohort.schema import OBSTETRIC, Schema
from pmlm_env.cohort.sources.table_files import Table


def infer_schema(people: Table, records: Table, long: bool) -> tuple[Schema, tuple[str, ...]]:
    """Return the schema of two tables, and lines for the report.

    Args:
        people: The table of patients.
        records: The table of check-ups.
        long: The form of ``records``; see ``assemble``.
    """
    return Schema.load(OBSTETRIC), ()
