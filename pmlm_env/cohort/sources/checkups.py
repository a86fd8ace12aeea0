"""Reading check-ups from a long table (one value per row) or a wide one (one check-up per row)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, has_value, parse_datetimes, parse_numbers
from pmlm_env.cohort.schema import Indicator, Schema
from pmlm_env.cohort.sources.checks import Problems, require
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.units import unit_problem
from pmlm_env.cohort.wording import bare, named, plain, quoted, suggestion, tidy

#: Marks a patient whose own row has a problem, instead of the row index.
DROPPED = -2
_UNKNOWN = -1

_LONG_COLUMNS = ("patient_id", "date", "indicator", "value", "unit")

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


def from_long(table: Table, patients: Mapping[str, int], schema: Schema, problems: Problems) -> CheckUps:
    """Read rows of patient_id, date, indicator, value and optionally unit.

    A check-up is a calendar day; an indicator measured several times in a day is averaged. An empty value is a problem,
    because a row states that something was measured. A unit may have any spelling that leaves the value unchanged
    (see ``pmlm_env.cohort.units``); text after it is a note ("10^9/L derived"), as is any text for an indicator
    without unit (pH).

    Args:
        table: The file.
        patients: patient_id -> index, or ``DROPPED``.
        schema: The indicators; a file may use their names or synonyms.
        problems: Collects problems; rows with one are left out.

    Returns:
        The valid check-ups.

    Raises:
        CohortError: A column is missing, or there are too many values.
    """
    require(table, _LONG_COLUMNS[:4], optional=_LONG_COLUMNS[4:])
    rows = _rows(table, "date", patients, problems)
    table = rows.table
    names, texts = table.columns["indicator"], table.columns["value"]
    units = table.columns.get("unit") or [""] * len(names)

    indicators, position_of = schema.indicators, _positions(names, schema)
    position = np.array([position_of.get(name, _UNKNOWN) for name in names], dtype=np.int64)
    known = position != _UNKNOWN
    problems.add("unknown indicator", table, ~known, "indicator", lambda i: _unknown_indicator(names[i], schema), names)

    pairs = list(zip(position.tolist(), units, strict=True))
    wrong_unit = known & np.array([bool(unit_problem(unit, indicators[k].unit)) for k, unit in pairs], dtype=np.bool_)
    problems.add(
        "wrong unit", table, wrong_unit, "unit", lambda i: _wrong_unit(units[i], indicators[position[i]]), pairs
    )

    missing = ~has_value(texts)
    advice = "the cell is empty; enter the value, or remove the row if nothing was measured"
    problems.add("missing value", table, missing, "value", lambda i: advice)
    # The bounds do not apply to a value in another unit.
    value, bad = _values(table, "value", np.where(wrong_unit, _UNKNOWN, position), schema, problems)
    valid = rows.valid & known & ~wrong_unit & ~missing & ~bad
    of_valid_patient = rows.patient != DROPPED
    counted = of_valid_patient & known
    totals = np.bincount(position[counted], minlength=len(indicators))
    dropped = np.bincount(position[counted & ~valid], minlength=len(indicators))
    used = np.flatnonzero(valid & of_valid_patient)
    return _by_day(
        rows,
        schema,
        used,
        position[used],
        value[used],
        of_dropped_patients=int(np.sum(valid & (rows.patient == DROPPED))),
        dropped_values=DropCount(
            int(np.sum(of_valid_patient & ~valid)) + len(table.malformed),
            int(np.sum(of_valid_patient)) + len(table.malformed),
        ),
        dropped_by_indicator=_drop_counts(schema, dropped, totals),
        ignored_columns=tuple(name for name in table.columns if name not in _LONG_COLUMNS),
        read_as=_read_as(position_of, schema),
    )


def from_wide(table: Table, patients: Mapping[str, int], schema: Schema, problems: Problems) -> CheckUps:
    """Read rows of patient_id, date (or day) and one column per indicator; an empty cell = not measured.

    A check-up is a calendar day, as in a long table. A value with a problem is left out and the rest of its check-up
    is used, so that the same values in a long table give the same cohort.

    Args:
        table: The file.
        patients: patient_id -> index, or ``DROPPED``.
        schema: The indicators; a file may use their names or synonyms.
        problems: Collects problems.

    Returns:
        The valid check-ups.

    Raises:
        CohortError: A column is missing, no column is an indicator, two are the same, or there are too many values.
    """
    date = "day" if "day" in table.columns and "date" not in table.columns else "date"
    require(table, ("patient_id", date), advice="" if date in table.columns else "The date may also be named 'day'.")
    others = [name for name in table.columns if name not in ("patient_id", date)]
    measured = _positions(others, schema)
    unknown = [name for name in others if name not in measured]
    if not measured:
        found = ", ".join(f"{quoted(name)}{_similar(name, schema)}" for name in unknown[:50]) or "none"
        location = table.location(table.header_row)
        raise CohortError(
            f"{table.name}, {location}, no column is an indicator of the schema. Found besides the date: {found}. "
            "Describe other indicators in schema.toml (docs/cohort-format.md)"
        )
    _check_columns(table, measured, schema)
    problems.add_columns("unknown indicator column", table, unknown, lambda name: _unknown_indicator(name, schema))
    rows = _rows(table, date, patients, problems)
    table, of_valid_patient = rows.table, rows.patient != DROPPED

    _check_size(table, len(table.rows), schema)
    valid = np.zeros((len(table.rows), len(schema.indicators)), dtype=np.bool_)
    values, present = np.full(valid.shape, np.nan), valid.copy()
    for name, k in measured.items():
        values[:, k], bad = _values(table, name, np.full(len(table.rows), k), schema, problems)
        present[:, k] = has_value(table.columns[name])
        valid[:, k] = rows.valid & present[:, k] & ~bad
    counted = present & of_valid_patient[:, None]
    dropped_by_indicator = _drop_counts(schema, np.sum(counted & ~valid, axis=0), np.sum(counted, axis=0))
    dropped = sum(int(np.sum(of_valid_patient & has_value(table.columns[name]))) for name in unknown)
    dropped += len(table.malformed) * len(measured)
    used, position = np.nonzero(valid & of_valid_patient[:, None])
    return _by_day(
        rows,
        schema,
        used,
        position,
        values[used, position],
        of_dropped_patients=int(np.sum(rows.valid & (rows.patient == DROPPED))),
        dropped_values=DropCount(
            dropped + sum(each.dropped for each in dropped_by_indicator.values()),
            dropped + sum(each.total for each in dropped_by_indicator.values()),
        ),
        dropped_by_indicator=dropped_by_indicator,
        empty=int(np.sum(rows.valid & of_valid_patient & ~present.any(axis=1))),
        read_as=_read_as(measured, schema),
    )


def _positions(names: Iterable[str], schema: Schema) -> dict[str, int]:
    """Return the position of each name that is an indicator."""
    found = {}
    for name in dict.fromkeys(names):
        with suppress(KeyError):
            found[name] = schema.index(name)
    return found


def _read_as(positions: Mapping[str, int], schema: Schema) -> dict[str, str]:
    """Return the indicator of each name that is not an indicator's own."""
    return {tidy(name): schema.names[k] for name, k in positions.items() if tidy(name) != schema.names[k]}


def _check_columns(table: Table, measured: Mapping[str, int], schema: Schema) -> None:
    """Check that no two columns are the same indicator.

    Raises:
        CohortError: Two are.
    """
    columns: dict[int, str] = {}
    for name, k in measured.items():
        if k in columns:
            raise CohortError(
                f"{table.name}, {table.location(table.header_row)}, columns {quoted(columns[k])} and {quoted(name)} "
                f"are both the indicator {bare(schema.names[k])}: keep one, or write the table in the long form"
            )
        columns[k] = name


def _check_size(table: Table, checkups: int, schema: Schema) -> None:
    """Check that an array of all values fits into memory.

    Raises:
        CohortError: It does not.
    """
    if checkups * len(schema.indicators) > MAX_VALUES:
        raise CohortError(
            f"{table.name} has {checkups:,} check-ups: with the schema's {len(schema.indicators):,} indicators, at "
            f"most {MAX_VALUES // len(schema.indicators):,} are read; keep only those that are needed"
        )


def _drop_counts(schema: Schema, dropped: npt.NDArray[np.int64], totals: npt.NDArray[np.int64]) -> dict[str, DropCount]:
    """Return the counts of each indicator that has values."""
    counts = zip(schema.names, dropped.tolist(), totals.tolist(), strict=True)
    return {name: DropCount(few, total) for name, few, total in counts if total}


class _Rows(NamedTuple):
    """The rows of known patients, each row's patient and timestamp, and whether both are valid."""

    table: Table
    patient: npt.NDArray[np.int64]
    timestamp: npt.NDArray[np.datetime64]
    valid: npt.NDArray[np.bool_]
    outside_rows: int
    outside_people: int


def _rows(table: Table, date: str, patients: Mapping[str, int], problems: Problems) -> _Rows:
    """Leave out rows of people who are not among the patients; find patient and timestamp of the others.

    An identifier that differs from a patient's only in case or leading zeros, which spreadsheets drop, is a problem.
    """
    ids = [name.strip() for name in table.columns["patient_id"]]
    similar_to_patient = {plain(name) for name in patients}
    outside = {name for name in set(ids) if name and name not in patients and plain(name) not in similar_to_patient}
    inside = np.array([name not in outside for name in ids], dtype=np.bool_)
    if outside:
        table, ids = table.where(inside), [name for name in ids if name not in outside]
    patient = np.array([patients.get(name, _UNKNOWN) for name in ids], dtype=np.int64)
    problems.add(
        "unknown patient",
        table,
        patient == _UNKNOWN,
        "patient_id",
        lambda i: _unknown_patient(ids[i], patients),
        ids,
    )
    dates = table.columns[date]
    timestamp = parse_datetimes(dates)
    undated = np.isnat(timestamp)
    problems.add("unparsable date", table, undated, date, lambda i: not_a_date(dates[i]))
    valid = (patient != _UNKNOWN) & ~undated
    return _Rows(table, patient, timestamp, valid, int(np.sum(~inside)), len(outside))


def _by_day(
    rows: _Rows,
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
) -> CheckUps:
    """Average valid values, each with its row and indicator, into one check-up per patient and day."""
    patient, day = rows.patient[used], rows.timestamp[used].astype("datetime64[D]")
    days, day_code = np.unique(day, return_inverse=True)
    keys, checkup = np.unique(patient * max(len(days), 1) + day_code, return_inverse=True)
    _check_size(rows.table, len(keys), schema)
    n_indicators = len(schema.indicators)
    cell = checkup * n_indicators + position
    count = np.bincount(cell, minlength=len(keys) * n_indicators)
    total = np.bincount(cell, weights=value, minlength=len(keys) * n_indicators)
    mean = np.full(len(count), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    cells = rows.table.columns.values()
    return CheckUps(
        patient=keys // max(len(days), 1),
        day=days[keys % max(len(days), 1)],
        values=mean.reshape(-1, n_indicators),
        counts=count.reshape(-1, n_indicators),
        outside_rows=rows.outside_rows,
        outside_people=rows.outside_people,
        of_dropped_patients=of_dropped_patients,
        repeated=len(rows.table.rows) - len(set(map(hash, zip(*cells, strict=True)))),
        dropped_values=dropped_values,
        dropped_by_indicator=dropped_by_indicator,
        empty=empty,
        ignored_columns=ignored_columns,
        read_as=read_as,
    )


def _values(
    table: Table, column: str, position: npt.NDArray[np.int64], schema: Schema, problems: Problems
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return a column as numbers, and which cells are not possible numbers; an empty cell is NaN and valid."""
    texts = table.columns[column]
    value = parse_numbers(texts)
    unparsable = np.isnan(value) & has_value(texts)
    low, high = schema.bounds
    # A comparison with NaN is False; an unknown indicator (-1) has no bounds.
    impossible = (position >= 0) & ((value < low[position]) | (value > high[position]))
    problems.add("unparsable value", table, unparsable, column, lambda i: _not_a_number(texts[i]))
    problems.add("impossible value", table, impossible, column, partial(_impossible, texts, value, position, schema))
    return value, unparsable | impossible


def _wrong_unit(unit: str, indicator: Indicator) -> str:
    problem = unit_problem(unit, indicator.unit)
    return f"{quoted(unit)} is not the unit of {bare(indicator.name)}, {indicator.unit}: {problem}"


def _unknown_indicator(name: str, schema: Schema) -> str:
    return (
        f"{quoted(name)} is not an indicator of the schema{_similar(name, schema)}; rename or remove it, or add it to "
        "the schema (docs/cohort-format.md)"
    )


def _similar(name: str, schema: Schema) -> str:
    return suggestion(name, [each for indicator in schema.indicators for each in (indicator.name, *indicator.synonyms)])


def _unknown_patient(name: str, patients: Mapping[str, int]) -> str:
    if not name:
        return "the cell is empty; name the patient, or remove the row"
    meant = named([known for known in patients if plain(known) == plain(name)])
    return f"{quoted(name)} is not in the patients' table (did you mean {meant}?); write it as in that table"


def not_a_date(text: str) -> str:
    """Describe a cell that should hold a date but does not."""
    return f"{quoted(text)} is not a date; write {DATE_FORMAT}"


def _not_a_number(text: str) -> str:
    return f"{quoted(text)} is not a number; write it as 12.5, or remove it if it was not measured"


def _impossible(
    texts: Sequence[str], value: npt.NDArray[np.float64], position: npt.NDArray[np.int64], schema: Schema, i: int
) -> str:
    indicator = schema.indicators[position[i]]
    found = f"{bare(indicator.name)} {bare(texts[i].strip())}"
    if value[i] < 0 and indicator.low is None:
        return f"{found} is negative, and negative values are not supported yet; correct or remove it"
    low, high = (each[position[i]] for each in schema.bounds)
    bounds = f"{low:g} to {high:g} {indicator.unit}".rstrip()
    return f"{found} is outside {bounds}; it may be a typing error or in another unit: correct or remove it"
