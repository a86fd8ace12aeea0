"""Check-ups: the valid values of a table of check-ups, averaged by patient and day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import Schema
from pmlm_env.cohort.sources.cells import distinct_rows
from pmlm_env.cohort.sources.table_files import Table

#: Marks a patient whose own row has a problem, instead of the row index.
DROPPED = -2

#: Limit on check-ups times indicators, because a small table may have many of both. A value takes about 20 bytes.
MAX_VALUES = 300_000_000


class DropCount(NamedTuple):
    """Number of values left out because of a problem, and total number of values."""

    dropped: int
    total: int


@dataclass(frozen=True, eq=False)
class CheckUps:
    """The valid check-ups of all patients, sorted by patient and day.

    Attributes:
        patient: Index of the patient, shape (n,).
        day: Calendar day, shape (n,), datetime64[D].
        values: Shape (n, n_indicators); NaN = not measured; no row is all NaN.
        counts: Number of values averaged into each value, shape (n, n_indicators).
        outside_rows: Number of rows of people who are not among the patients.
        outside_people: Number of these people.
        of_dropped_patients: Number of rows of patients marked ``DROPPED``.
        repeated: Number of rows that repeat an earlier row exactly.
        dropped_values: Count over all values of patients not marked ``DROPPED``.
        dropped_by_indicator: The same by indicator.
        empty: Number of rows without any value.
        ignored_columns: Columns that are not used.
        read_as: Other names and spellings of indicators in the file -> the indicator's name.
        converted: What was converted to another unit, such as "hgb from g/dL to g/L" -> number of values.
    """

    patient: npt.NDArray[np.int64]
    day: npt.NDArray[np.datetime64]
    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    outside_rows: int
    outside_people: int
    of_dropped_patients: int
    repeated: int
    dropped_values: DropCount
    dropped_by_indicator: Mapping[str, DropCount]
    empty: int = 0
    ignored_columns: tuple[str, ...] = ()
    read_as: Mapping[str, str] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)

    def take(self, keep: npt.NDArray[np.bool_]) -> CheckUps:
        """Return the flagged check-ups; what was left out before is not counted anew."""
        kept = {name: getattr(self, name)[keep] for name in ("patient", "day", "values", "counts")}
        return replace(self, **kept)


class Rows(NamedTuple):
    """The rows of known patients, each row's patient and timestamp, and whether both are valid."""

    table: Table
    patient: npt.NDArray[np.int64]
    timestamp: npt.NDArray[np.datetime64]
    valid: npt.NDArray[np.bool_]
    outside_rows: int
    outside_people: int


def by_day(
    rows: Rows,
    schema: Schema,
    used: npt.NDArray[np.int64],
    position: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
    *,
    of_dropped_patients: int,
    dropped_values: DropCount,
    dropped_by_indicator: Mapping[str, DropCount],
    empty: int = 0,
    ignored_columns: tuple[str, ...] = (),
    read_as: Mapping[str, str],
    converted: Mapping[str, int] | None = None,
) -> CheckUps:
    """Average valid values, each with its row and indicator, into one check-up per patient and day."""
    patient, day = rows.patient[used], rows.timestamp[used].astype("datetime64[D]")
    days, day_code = np.unique(day, return_inverse=True)
    keys, checkup = np.unique(patient * max(len(days), 1) + day_code, return_inverse=True)
    check_size(rows.table, len(keys), schema)
    n_indicators = len(schema.indicators)
    cell = checkup * n_indicators + position
    count = np.bincount(cell, minlength=len(keys) * n_indicators)
    total = np.bincount(cell, weights=value, minlength=len(keys) * n_indicators)
    mean = np.full(len(count), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return CheckUps(
        patient=keys // max(len(days), 1),
        day=days[keys % max(len(days), 1)],
        values=mean.reshape(-1, n_indicators),
        counts=count.reshape(-1, n_indicators),
        outside_rows=rows.outside_rows,
        outside_people=rows.outside_people,
        of_dropped_patients=of_dropped_patients,
        repeated=len(rows.table.rows) - distinct_rows([*rows.table.columns.values()]),
        dropped_values=dropped_values,
        dropped_by_indicator=dropped_by_indicator,
        empty=empty,
        ignored_columns=ignored_columns,
        read_as=read_as,
        converted=converted or {},
    )


def check_size(table: Table, checkups: int, schema: Schema) -> None:
    """Check that an array of all values fits into memory.

    Raises:
        CohortError: It does not.
    """
    if checkups * len(schema.indicators) > MAX_VALUES:
        raise CohortError(
            f"{table.name} has {checkups:,} check-ups: with the schema's {len(schema.indicators):,} indicators, at "
            f"most {MAX_VALUES // len(schema.indicators):,} are read; keep only those that are needed"
        )
