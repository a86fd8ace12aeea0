"""Check-ups from a long table (one value a row) or a wide one (one check-up a row)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.checks import Problems, quoted, require, suggestion
from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, filled, moments, numbers
from pmlm_env.cohort.schema import INDICATOR_NAMES, INDICATORS, N_INDICATORS
from pmlm_env.cohort.tables import Table

#: Stands in the index of patients for one whose own row was bad.
DROPPED = -2
_UNKNOWN = -1

_LONG_COLUMNS = ("patient_id", "date", "indicator", "value", "unit")
_POSITION = {name: i for i, name in enumerate(INDICATOR_NAMES)}
_LOW = np.array([indicator.low for indicator in INDICATORS])
_HIGH = np.array([indicator.high for indicator in INDICATORS])


@dataclass(frozen=True, eq=False)
class CheckUps:
    """The sound check-ups of all patients, ordered by patient and then by day.

    Attributes:
        patient: Index of the patient, shape (n,).
        day: Calendar day, shape (n,), datetime64[D].
        values: Shape (n, 35); NaN = not measured, never all of a row.
        orphans: Rows that go with a patient whose own row was bad.
        empty: Rows without any value.
        averaged: Values merged with others of their day.
        ignored_columns: Columns that mean nothing here.
    """

    patient: npt.NDArray[np.int64]
    day: npt.NDArray[np.datetime64]
    values: npt.NDArray[np.float64]
    orphans: int
    empty: int = 0
    averaged: int = 0
    ignored_columns: tuple[str, ...] = ()


def from_long(table: Table, patients: Mapping[str, int], problems: Problems) -> CheckUps:
    """Read rows of patient_id, date, indicator, value and perhaps unit.

    A check-up is a calendar day; an indicator measured several times in a day is averaged. A row says that
    something was measured, so that an empty value is a problem here. The first word of a unit must be the
    indicator's; what follows is a note ("10^9/L derived"), as is anything where the indicator has no unit (pH).

    Args:
        table: The file.
        patients: patient_id -> index, or ``DROPPED``.
        problems: Where problems are noted; rows that have one are left out.

    Returns:
        The sound check-ups.

    Raises:
        CohortError: A column is missing.
    """
    require(table, _LONG_COLUMNS[:4], optional=_LONG_COLUMNS[4:])
    names, texts = table.columns["indicator"], table.columns["value"]
    units = table.columns.get("unit") or [""] * len(names)
    patient, moment, sound = _who_and_when(table, "date", patients, problems)

    position = np.array([_POSITION.get(name.strip(), _UNKNOWN) for name in names], dtype=np.int64)
    known = position != _UNKNOWN
    problems.add("unknown indicator", table, ~known, "indicator", lambda i: _unknown_indicator(names[i]))

    pairs = list(zip(position.tolist(), units, strict=True))
    fits = {pair: _unit_fits(*pair) for pair in set(pairs)}
    foreign = known & ~np.array([fits[pair] for pair in pairs], dtype=np.bool_)
    problems.add("wrong unit", table, foreign, "unit", lambda i: _wrong_unit(units[i], position[i]))

    missing = ~filled(texts)
    advice = "the cell is empty; give the value, or remove the row if nothing was measured"
    problems.add("missing value", table, missing, "value", lambda i: advice)
    value, bad = _values(table, "value", position, problems)
    sound &= known & ~foreign & ~missing & ~bad
    sound &= _first_of_kind(table, "indicator", (patient, moment, position), sound & (patient >= 0), problems)

    rows = np.flatnonzero(sound & (patient >= 0))
    days, day_code = np.unique(moment[rows].astype("datetime64[D]"), return_inverse=True)
    keys, checkup = np.unique(patient[rows] * max(len(days), 1) + day_code, return_inverse=True)
    cell = checkup * N_INDICATORS + position[rows]
    count = np.bincount(cell, minlength=len(keys) * N_INDICATORS)
    total = np.bincount(cell, weights=value[rows], minlength=len(keys) * N_INDICATORS)
    mean = np.full(len(count), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return CheckUps(
        patient=keys // max(len(days), 1),
        day=days[keys % max(len(days), 1)],
        values=mean.reshape(-1, N_INDICATORS),
        orphans=int(np.sum(sound & (patient == DROPPED))),
        averaged=int(count[count > 1].sum()),
        ignored_columns=tuple(name for name in table.columns if name not in _LONG_COLUMNS),
    )


def from_wide(table: Table, patients: Mapping[str, int], problems: Problems) -> CheckUps:
    """Read rows of patient_id, date (or day) and one column an indicator; an empty cell = not measured.

    A value that has a problem is left out and the rest of its check-up stays, so that the same values in a
    long table give the same cohort.

    Args:
        table: The file.
        patients: patient_id -> index, or ``DROPPED``.
        problems: Where problems are noted.

    Returns:
        The sound check-ups.

    Raises:
        CohortError: A column is missing, or no column is an indicator.
    """
    date = "day" if "day" in table.columns and "date" not in table.columns else "date"
    require(table, ("patient_id", date), advice="" if date in table.columns else "The date may also be named 'day'.")
    measured = [name for name in table.columns if name in _POSITION]
    unknown = [name for name in table.columns if name not in _POSITION and name not in ("patient_id", date)]
    if not measured:
        found = ", ".join(f"{quoted(name)}{suggestion(name, INDICATOR_NAMES)}" for name in unknown) or "none"
        place = table.place(table.header_row)
        raise CohortError(f"{table.name}, {place}, no column is an indicator. Found besides the date: {found}")
    for name in unknown:
        problems.add_column("unknown indicator column", table, name, _unknown_indicator(name))
    patient, moment, sound = _who_and_when(table, date, patients, problems)

    values = np.full((len(table.rows), N_INDICATORS), np.nan)
    given = np.zeros(len(table.rows), dtype=np.bool_)
    for name in measured:
        position = np.full(len(table.rows), _POSITION[name])
        value, bad = _values(table, name, position, problems)
        values[:, _POSITION[name]] = np.where(bad, np.nan, value)
        given |= filled(table.columns[name])

    day = moment.astype("datetime64[D]")
    sound &= _first_of_kind(table, date, (patient, day), sound & (patient >= 0), problems)
    rows = np.flatnonzero(sound & (patient >= 0) & ~np.isnan(values).all(axis=1))
    rows = rows[np.lexsort((day[rows], patient[rows]))]
    return CheckUps(
        patient=patient[rows],
        day=day[rows],
        values=values[rows],
        orphans=int(np.sum(sound & (patient == DROPPED))),
        empty=int(np.sum(sound & (patient >= 0) & ~given)),
    )


def _who_and_when(
    table: Table, date: str, patients: Mapping[str, int], problems: Problems
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.datetime64], npt.NDArray[np.bool_]]:
    """Return the patient's index, the moment, and whether both are known, of each row."""
    ids, dates = table.columns["patient_id"], table.columns[date]
    patient = np.array([patients.get(name, _UNKNOWN) for name in ids], dtype=np.int64)
    moment = moments(dates)
    problems.add(
        "unknown patient", table, patient == _UNKNOWN, "patient_id", lambda i: _unknown_patient(ids[i], patients)
    )
    problems.add(
        "unparsable date",
        table,
        np.isnat(moment),
        date,
        lambda i: f"{quoted(dates[i])} is not a date; write {DATE_FORMAT}",
    )
    return patient, moment, (patient != _UNKNOWN) & ~np.isnat(moment)


def _values(
    table: Table, column: str, position: npt.NDArray[np.int64], problems: Problems
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return a column as numbers, and which are not numbers or cannot be; an empty cell is NaN and not bad."""
    texts = table.columns[column]
    value = numbers(texts)
    unparsable = np.isnan(value) & filled(texts)
    # A comparison with NaN is False; an unknown indicator (-1) has no bounds.
    impossible = (position >= 0) & ((value < _LOW[position]) | (value > _HIGH[position]))
    problems.add("unparsable value", table, unparsable, column, partial(_not_a_number, texts))
    problems.add("impossible value", table, impossible, column, partial(_impossible, texts, position))
    return value, unparsable | impossible


def _first_of_kind(
    table: Table,
    column: str,
    keys: Sequence[npt.NDArray[np.int64] | npt.NDArray[np.datetime64]],
    among: npt.NDArray[np.bool_],
    problems: Problems,
) -> npt.NDArray[np.bool_]:
    """Return False for the rows, among those told, whose keys were in an earlier one of them."""
    rows = np.flatnonzero(among)
    code = np.zeros(len(rows), dtype=np.int64)
    for key in keys:
        distinct, inverse = np.unique(key[rows], return_inverse=True)
        code = code * len(distinct) + inverse
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    earlier = np.arange(len(table.rows))
    earlier[rows] = rows[first[inverse]]
    repeated: npt.NDArray[np.bool_] = earlier != np.arange(len(table.rows))

    def say(i: int) -> str:
        found = f"{quoted(table.columns[column][i])} of patient {table.columns['patient_id'][i]}"
        return f"{found} at this time is in {table.place(int(table.rows[earlier[i]]))} already; remove one of them"

    problems.add("duplicate check-up", table, repeated, column, say)
    return ~repeated


def _unit_fits(position: int, unit: str) -> bool:
    expected = INDICATORS[position].unit
    words = unit.replace("\u00b5", "u").replace("\u03bc", "u").split()
    return not expected or not words or words[0] == expected


def _wrong_unit(unit: str, position: int) -> str:
    indicator = INDICATORS[position]
    return f"{quoted(unit)} is not the unit of {indicator.name}; convert the value to {indicator.unit}"


def _unknown_indicator(name: str) -> str:
    known = "the 35 names are pmlm_env.cohort.INDICATOR_NAMES"
    return f"{quoted(name)} is not an indicator{suggestion(name, INDICATOR_NAMES)}; rename or remove it ({known})"


def _unknown_patient(name: str, patients: Mapping[str, int]) -> str:
    hint = suggestion(name, patients)
    return f"{quoted(name)} is not in the patients' table{hint}; add the patient there or remove the row"


def _not_a_number(texts: Sequence[str], i: int) -> str:
    return f"{quoted(texts[i])} is not a number; write it as 12.5, or remove it if it was not measured"


def _impossible(texts: Sequence[str], position: npt.NDArray[np.int64], i: int) -> str:
    indicator = INDICATORS[position[i]]
    bounds = f"{indicator.low:g} to {indicator.high:g} {indicator.unit}".rstrip()
    found = f"{indicator.name} {texts[i].strip()}"
    return f"{found} is outside {bounds}; a typing error, or another unit? Correct or remove it"
