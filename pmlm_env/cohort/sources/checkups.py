"""Reading check-ups from a long table (one value per row) or a wide one (one check-up per row)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, has_value, is_slashed, parse_datetimes
from pmlm_env.cohort.schema import Schema
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.sources.checks import Problems, require, two_columns
from pmlm_env.cohort.sources.daily import DROPPED, CheckUps, DropCount, Rows, by_day, check_size
from pmlm_env.cohort.sources.result_columns import UNKNOWN, ResultReader
from pmlm_env.cohort.sources.row_units import converted_from, unit_factors, wrong_unit
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.units import conversion
from pmlm_env.cohort.wording import named, plain, quoted, suggestion, tidy

_LONG_COLUMNS = ("patient_id", "date", "indicator", "value", "unit", "code")


def from_long(table: Table, patients: Mapping[str, int], schema: Schema, problems: Problems) -> CheckUps:
    """Read rows of patient_id, date, indicator, value and optionally unit and code.

    A check-up is a calendar day; an indicator measured several times in a day is averaged. An empty value is a problem,
    because a row states that something was measured. Values in another unit are converted if it is known how
    (``pmlm_env.cohort.units.conversion``). An indicator may be named by the column ``code`` instead of ``indicator``.

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
    require(table, _LONG_COLUMNS[:4], optional=("unit",))
    rows = _rows(table, "date", patients, problems)
    table = rows.table
    names = table.columns["indicator"]

    position, position_of = _indicators(table, schema)
    known = position != UNKNOWN
    strange = ~known & (rows.patient != UNKNOWN)  # a row without a patient has a problem already
    problems.add(
        "unknown indicator", table, strange, "indicator", lambda i: _unknown_indicator(names[i], schema), names
    )

    factors = unit_factors(table.column("unit"), position, schema)
    problems.add("wrong unit", table, factors.wrong, "unit", factors.problem, factors.pair.tolist())

    results = ResultReader(table, ["value"], schema, problems)
    # The bounds do not apply to a value in another unit.
    bounded = np.where(factors.wrong, UNKNOWN, position)
    read = results.column("value", bounded, factors.times, factors.plus, factors.over)
    advice = "the cell is empty; enter the value, or remove the row if nothing was measured"
    problems.add("missing value", table, ~read.present, "value", lambda i: advice)
    valid = rows.valid & known & ~factors.wrong & read.present & ~read.bad
    of_valid_patient = rows.patient != DROPPED
    counted = of_valid_patient & known
    totals = np.bincount(position[counted], minlength=len(schema.indicators))
    dropped = np.bincount(position[counted & ~valid], minlength=len(schema.indicators))
    used = np.flatnonzero(valid & of_valid_patient)
    return by_day(
        rows,
        schema,
        used,
        position[used],
        read.value[used],
        of_dropped_patients=int(np.sum(valid & (rows.patient == DROPPED))),
        dropped_values=DropCount(
            int(np.sum(of_valid_patient & ~valid)) + len(table.malformed),
            int(np.sum(of_valid_patient)) + len(table.malformed),
        ),
        dropped_by_indicator=_drop_counts(schema, dropped, totals),
        ignored_columns=tuple(name for name in table.columns if name not in _LONG_COLUMNS),
        read_as=_read_as(position_of, schema),
        converted=factors.counts(used),
        forms=results.forms,
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
        found = ", ".join(f"{quoted(table.called(name))}{_similar(name, schema)}" for name in unknown[:50]) or "none"
        location = table.location(table.header_row)
        raise CohortError(
            f"{table.name}, {location}, no column is an indicator of the schema. Found besides the date: {found}. "
            "Describe other indicators in schema.toml (docs/schema.md)"
        )
    _check_columns(table, measured, schema)
    problems.add_columns("unknown indicator column", table, unknown, lambda name: _unknown_indicator(name, schema))
    rows = _rows(table, date, patients, problems)
    table, of_valid_patient = rows.table, rows.patient != DROPPED

    check_size(table, len(table.rows), schema)
    valid = np.zeros((len(table.rows), len(schema.indicators)), dtype=np.bool_)
    values, present = np.full(valid.shape, np.nan), valid.copy()
    results, converted = ResultReader(table, measured, schema, problems), dict[str, int]()
    for name, k in measured.items():
        indicator, unit = schema.indicators[k], table.units.get(name, "")
        way = conversion(unit, indicator)
        if isinstance(way, str):
            messages = {name: wrong_unit(indicator, unit, way)}
            problems.add_columns("wrong unit", table, messages, messages.__getitem__)
            present[:, k] = results.column(name, np.full(len(table.rows), UNKNOWN)).present
            continue
        read = results.column(name, np.full(len(table.rows), k), *way.parts)
        values[:, k], present[:, k] = read.value, read.present
        valid[:, k] = rows.valid & present[:, k] & ~read.bad
        if way.changes and (count := int(np.sum(valid[:, k] & of_valid_patient))):
            converted[converted_from(indicator, unit)] = count
    counted = present & of_valid_patient[:, None]
    dropped_by_indicator = _drop_counts(schema, np.sum(counted & ~valid, axis=0), np.sum(counted, axis=0))
    dropped = sum(int(np.sum(of_valid_patient & _has_value(table.columns[name]))) for name in unknown)
    dropped += len(table.malformed) * len(measured)
    used, position = np.nonzero(valid & of_valid_patient[:, None])
    return by_day(
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
        converted=converted,
        forms=results.forms,
    )


def _indicators(table: Table, schema: Schema) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    """Return the indicator of each row of a long table, by name or else by code, and the positions of the names."""
    names, codes = table.columns["indicator"], table.column("code")
    by_name, by_code = _positions(names.texts, schema), _positions(codes.texts, schema)
    position, of_code = (
        cells.spread(np.array([found.get(text, UNKNOWN) for text in cells.texts], dtype=np.int64))
        for cells, found in ((names, by_name), (codes, by_code))
    )
    return np.where(position == UNKNOWN, of_code, position), by_name


def _has_value(cells: Cells) -> npt.NDArray[np.bool_]:
    return cells.spread(has_value(cells.texts))


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
            raise two_columns(table, columns[k], name, schema.names[k])
        columns[k] = name


def _drop_counts(schema: Schema, dropped: npt.NDArray[np.int64], totals: npt.NDArray[np.int64]) -> dict[str, DropCount]:
    """Return the counts of each indicator that has values."""
    counts = zip(schema.names, dropped.tolist(), totals.tolist(), strict=True)
    return {name: DropCount(few, total) for name, few, total in counts if total}


def _rows(table: Table, date: str, patients: Mapping[str, int], problems: Problems) -> Rows:
    """Leave out rows of people who are not among the patients; find patient and timestamp of the others.

    An identifier that differs from a patient's only in case or leading zeros, which spreadsheets drop, is a problem.
    """
    ids = table.columns["patient_id"].renamed(name.strip() for name in table.columns["patient_id"].texts)
    similar_to_patient = {plain(name) for name in patients}
    outside = [bool(name) and name not in patients and plain(name) not in similar_to_patient for name in ids.texts]
    inside = ~ids.spread(np.array(outside, dtype=np.bool_))
    if any(outside):
        table, ids = table.where(inside), ids.take(inside)
    patient = ids.spread(np.array([patients.get(name, UNKNOWN) for name in ids.texts], dtype=np.int64))
    problems.add(
        "unknown patient",
        table,
        patient == UNKNOWN,
        "patient_id",
        lambda i: _unknown_patient(ids[i], patients),
        ids,
    )
    dates = table.columns[date]
    timestamp = dates.spread(parse_datetimes(dates.texts, table.day_first))
    undated = np.isnat(timestamp)
    problems.add("unparsable date", table, undated, date, lambda i: not_a_date(dates[i]))
    valid = (patient != UNKNOWN) & ~undated
    return Rows(table, patient, timestamp, valid, int(np.sum(~inside)), sum(outside))


def _unknown_indicator(name: str, schema: Schema) -> str:
    return (
        f"{quoted(name)} is not an indicator of the schema{_similar(name, schema)}; rename or remove it, or add it to "
        "the schema, as an indicator or as ignored (docs/schema.md)"
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
    if is_slashed(text):
        return (
            f"{quoted(text)} may have the day or the month first, and the other dates do not tell or differ; say which "
            "with day_first = true or false in map.toml (docs/cohort-format.md)"
        )
    return f"{quoted(text)} is not a date; write {DATE_FORMAT}"
