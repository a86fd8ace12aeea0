"""Check-ups from a long table (one value a row) or a wide one (one check-up a row)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, filled, moments, numbers
from pmlm_env.cohort.schema import INDICATOR_NAMES, INDICATORS, N_INDICATORS
from pmlm_env.cohort.sources.checks import Problems, require
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.units import unit_problem
from pmlm_env.cohort.wording import bare, named, plain, quoted, suggestion

#: Stands in the index of patients for one whose own row was bad.
DROPPED = -2
_UNKNOWN = -1

_LONG_COLUMNS = ("patient_id", "date", "indicator", "value", "unit")
_POSITION = {name: i for i, name in enumerate(INDICATOR_NAMES)}
_LOW = np.array([indicator.low for indicator in INDICATORS])
_HIGH = np.array([indicator.high for indicator in INDICATORS])


class Loss(NamedTuple):
    """How many values have a problem, of how many."""

    lost: int
    total: int


@dataclass(frozen=True, eq=False)
class CheckUps:
    """The sound check-ups of all patients, ordered by patient and then by day.

    Attributes:
        patient: Index of the patient, shape (n,).
        day: Calendar day, shape (n,), datetime64[D].
        values: Shape (n, 35); NaN = not measured, never all of a row.
        counts: How many values each mean is of, shape (n, 35).
        outside_rows: Rows of people who are not among the patients.
        outside_people: How many people they are of.
        orphans: Rows that go with a patient whose own row was bad.
        repeated: Rows that are an earlier one again, cell by cell.
        loss: Of all values of patients whose own row is sound.
        losses: Indicator -> of its values.
        empty: Rows without any value.
        ignored_columns: Columns that mean nothing here.
    """

    patient: npt.NDArray[np.int64]
    day: npt.NDArray[np.datetime64]
    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    outside_rows: int
    outside_people: int
    orphans: int
    repeated: int
    loss: Loss
    losses: Mapping[str, Loss]
    empty: int = 0
    ignored_columns: tuple[str, ...] = ()


def from_long(table: Table, patients: Mapping[str, int], problems: Problems) -> CheckUps:
    """Read rows of patient_id, date, indicator, value and perhaps unit.

    A check-up is a calendar day; an indicator measured several times in a day is averaged. A row says that
    something was measured, so that an empty value is a problem here. A unit may be written in any way that leaves the
    value as it is (see ``pmlm_env.cohort.units``); what follows it is a note ("10^9/L derived"), as is anything where
    the indicator has no unit (pH).

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
    rows = _rows(table, "date", patients, problems)
    table = rows.table
    names, texts = table.columns["indicator"], table.columns["value"]
    units = table.columns.get("unit") or [""] * len(names)

    position = np.array([_POSITION.get(name.strip(), _UNKNOWN) for name in names], dtype=np.int64)
    known = position != _UNKNOWN
    problems.add("unknown indicator", table, ~known, "indicator", lambda i: _unknown_indicator(names[i]), names)

    pairs = list(zip(position.tolist(), units, strict=True))
    foreign = known & np.array([bool(_unit_problem(*pair)) for pair in pairs], dtype=np.bool_)
    problems.add("wrong unit", table, foreign, "unit", lambda i: _wrong_unit(units[i], position[i]), pairs)

    missing = ~filled(texts)
    advice = "the cell holds no value; give it, or remove the row if nothing was measured"
    problems.add("missing value", table, missing, "value", lambda i: advice)
    # Of a value in another unit nobody knows what is possible.
    value, bad = _values(table, "value", np.where(foreign, _UNKNOWN, position), problems)
    sound = rows.sound & known & ~foreign & ~missing & ~bad
    counted = rows.patient != DROPPED
    losses = {
        name: Loss(int(np.sum(of & ~sound)), int(np.sum(of)))
        for k, name in enumerate(INDICATOR_NAMES)
        if (of := counted & (position == k)).any()
    }
    used = np.flatnonzero(sound & counted)
    return _by_day(
        rows,
        used,
        position[used],
        value[used],
        orphans=int(np.sum(sound & (rows.patient == DROPPED))),
        loss=Loss(int(np.sum(counted & ~sound)) + len(table.misfits), int(np.sum(counted)) + len(table.misfits)),
        losses=losses,
        ignored_columns=tuple(name for name in table.columns if name not in _LONG_COLUMNS),
    )


def from_wide(table: Table, patients: Mapping[str, int], problems: Problems) -> CheckUps:
    """Read rows of patient_id, date (or day) and one column an indicator; an empty cell = not measured.

    A check-up is a calendar day, as in a long table. A value that has a problem is left out and the rest of its
    check-up stays, so that the same values in a long table give the same cohort.

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
        found = ", ".join(f"{quoted(name)}{suggestion(name, INDICATOR_NAMES)}" for name in unknown[:50]) or "none"
        place = table.place(table.header_row)
        raise CohortError(f"{table.name}, {place}, no column is an indicator. Found besides the date: {found}")
    problems.add_columns("unknown indicator column", table, unknown, _unknown_indicator)
    rows = _rows(table, date, patients, problems)
    table, counted = rows.table, rows.patient != DROPPED

    sound = np.zeros((len(table.rows), N_INDICATORS), dtype=np.bool_)
    values, given = np.full(sound.shape, np.nan), sound.copy()
    for name in measured:
        k = _POSITION[name]
        values[:, k], bad = _values(table, name, np.full(len(table.rows), k), problems)
        given[:, k] = filled(table.columns[name])
        sound[:, k] = rows.sound & given[:, k] & ~bad
    losses = {
        name: Loss(int(np.sum(of & ~sound[:, k])), int(np.sum(of)))
        for name, k in _POSITION.items()
        if (of := counted & given[:, k]).any()
    }
    lost = sum(int(np.sum(counted & filled(table.columns[name]))) for name in unknown)
    lost += len(table.misfits) * len(measured)
    used, position = np.nonzero(sound & counted[:, None])
    return _by_day(
        rows,
        used,
        position,
        values[used, position],
        orphans=int(np.sum(rows.sound & (rows.patient == DROPPED))),
        loss=Loss(
            lost + sum(each.lost for each in losses.values()), lost + sum(each.total for each in losses.values())
        ),
        losses=losses,
        empty=int(np.sum(rows.sound & counted & ~given.any(axis=1))),
    )


class _Rows(NamedTuple):
    """The rows of patients: the table of them, each one's patient and moment, and whether both are known."""

    table: Table
    patient: npt.NDArray[np.int64]
    moment: npt.NDArray[np.datetime64]
    sound: npt.NDArray[np.bool_]
    outside_rows: int
    outside_people: int


def _rows(table: Table, date: str, patients: Mapping[str, int], problems: Problems) -> _Rows:
    """Leave out the rows of people who are not among the patients, and say whose and of when the others are.

    An identifier that is a patient's but for letter case or leading zeros, which spreadsheets eat, is a problem.
    """
    ids = [name.strip() for name in table.columns["patient_id"]]
    near = {plain(name) for name in patients}
    outside = {name for name in set(ids) if name and name not in patients and plain(name) not in near}
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
    moment = moments(dates)
    undated = np.isnat(moment)
    problems.add("unparsable date", table, undated, date, lambda i: not_a_date(dates[i]))
    sound = (patient != _UNKNOWN) & ~undated
    return _Rows(table, patient, moment, sound, int(np.sum(~inside)), len(outside))


def _by_day(
    rows: _Rows,
    used: npt.NDArray[np.int64],
    position: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
    *,
    orphans: int,
    loss: Loss,
    losses: Mapping[str, Loss],
    empty: int = 0,
    ignored_columns: tuple[str, ...] = (),
) -> CheckUps:
    """Gather sound values, each with its row and indicator, into one check-up for each patient and day."""
    patient, day = rows.patient[used], rows.moment[used].astype("datetime64[D]")
    days, day_code = np.unique(day, return_inverse=True)
    keys, checkup = np.unique(patient * max(len(days), 1) + day_code, return_inverse=True)
    cell = checkup * N_INDICATORS + position
    count = np.bincount(cell, minlength=len(keys) * N_INDICATORS)
    total = np.bincount(cell, weights=value, minlength=len(keys) * N_INDICATORS)
    mean = np.full(len(count), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    cells = rows.table.columns.values()
    return CheckUps(
        patient=keys // max(len(days), 1),
        day=days[keys % max(len(days), 1)],
        values=mean.reshape(-1, N_INDICATORS),
        counts=count.reshape(-1, N_INDICATORS),
        outside_rows=rows.outside_rows,
        outside_people=rows.outside_people,
        orphans=orphans,
        repeated=len(rows.table.rows) - len(set(map(hash, zip(*cells, strict=True)))),
        loss=loss,
        losses=losses,
        empty=empty,
        ignored_columns=ignored_columns,
    )


def _values(
    table: Table, column: str, position: npt.NDArray[np.int64], problems: Problems
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return a column as numbers, and which are not numbers or cannot be; an empty cell is NaN and not bad."""
    texts = table.columns[column]
    value = numbers(texts)
    unparsable = np.isnan(value) & filled(texts)
    # A comparison with NaN is False; an unknown indicator (-1) has no bounds.
    impossible = (position >= 0) & ((value < _LOW[position]) | (value > _HIGH[position]))
    problems.add("unparsable value", table, unparsable, column, lambda i: _not_a_number(texts[i]))
    problems.add("impossible value", table, impossible, column, partial(_impossible, texts, position))
    return value, unparsable | impossible


def _unit_problem(position: int, unit: str) -> str:
    return unit_problem(unit, INDICATORS[position].unit)


def _wrong_unit(unit: str, position: int) -> str:
    indicator = INDICATORS[position]
    return f"{quoted(unit)} is not the unit of {indicator.name}, {indicator.unit}: {_unit_problem(position, unit)}"


def _unknown_indicator(name: str) -> str:
    hint = suggestion(name, INDICATOR_NAMES)
    return f"{quoted(name)} is not an indicator{hint}; rename or remove it (docs/cohort-format.md has the 35 names)"


def _unknown_patient(name: str, patients: Mapping[str, int]) -> str:
    if not name:
        return "the cell is empty; name the patient, or remove the row"
    meant = named([known for known in patients if plain(known) == plain(name)])
    return f"{quoted(name)} is not in the patients' table (did you mean {meant}?); write it as it is there"


def not_a_date(text: str) -> str:
    """Say what is wrong with a cell that should hold a date."""
    return f"{quoted(text)} is not a date; write {DATE_FORMAT}"


def _not_a_number(text: str) -> str:
    return f"{quoted(text)} is not a number; write it as 12.5, or remove it if it was not measured"


def _impossible(texts: Sequence[str], position: npt.NDArray[np.int64], i: int) -> str:
    indicator = INDICATORS[position[i]]
    bounds = f"{indicator.low:g} to {indicator.high:g} {indicator.unit}".rstrip()
    found = f"{indicator.name} {bare(texts[i].strip())}"
    return f"{found} is outside {bounds}; a typing error, or another unit? Correct or remove it"
