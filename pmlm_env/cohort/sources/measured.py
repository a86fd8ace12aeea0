"""What a table of check-ups measures: its values by the name, the unit and the code that it gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.indicator import RESERVED
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.sources.recognition import split_name
from pmlm_env.cohort.sources.results import Kind, decimal_mark, read_results
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import tidy


class Measured(NamedTuple):
    """The values of the patients to which a table gives one name, unit and code.

    Attributes:
        name: The name in the table, without a unit in brackets at its end.
        unit: Their unit, of its column or in those brackets; "" = not stated.
        code: Their code; "" = not stated.
        cells: Number of cells that hold a value, of any kind.
        values: Those that are numbers, shape (n,), float64.
        patients: The patient of each number, shape (n,), as the position in the patients' table.
        written: The name as the table has it.
        unread: The patient of each cell that cannot be read but is no word, such as ``12 g``, likewise; of a published
            table, which nobody can correct, none.
        ambiguous: How many of these cells are numbers that may have another value with a decimal comma, or have a
            percent sign.
    """

    name: str
    unit: str
    code: str
    cells: int
    values: npt.NDArray[np.float64]
    patients: npt.NDArray[np.int64]
    written: str
    unread: npt.NDArray[np.int64]
    ambiguous: int


def measured(
    people: Table, records: Table, long: bool, *, published: bool = False
) -> tuple[list[Measured], npt.NDArray[np.int64]]:
    """Group the values of a table of check-ups.

    Args:
        people: The patients' table; values of others do not count.
        records: The check-ups: patient_id, indicator, value and optionally unit and code; or, if not ``long``,
            patient_id and one column per indicator.
        long: The form of ``records``.
        published: Whether the files are those of a data set that the user cannot correct.

    Returns:
        The groups, and of a long table the group of each row, shape (n_rows,).
    """
    position = {name.strip(): k for k, name in enumerate(people.columns["patient_id"].texts)}
    ids = records.columns["patient_id"]
    known = np.array([position.get(name.strip(), -1) for name in ids.texts], dtype=np.int64)
    patient = ids.spread(known) if len(known) else np.empty(0, dtype=np.int64)
    if long:
        groups, group = _of_rows(records, patient)
    else:
        groups, group = list(_of_columns(records, patient)), np.empty(0, dtype=np.int64)
    if published:
        groups = [each._replace(unread=each.unread[:0], ambiguous=0) for each in groups]
    return groups, group


def _of_columns(records: Table, patient: npt.NDArray[np.int64]) -> Iterator[Measured]:
    columns = {header: cells for header, cells in records.columns.items() if header not in RESERVED}
    mark = records.decimal or decimal_mark(cells.texts for cells in columns.values())
    for header, cells in columns.items():
        kind, number = _numbers(cells, mark)
        kind[patient < 0] = Kind.EMPTY
        yield _group(header, records.units.get(header, ""), "", kind, number, patient)


def _of_rows(records: Table, patient: npt.NDArray[np.int64]) -> tuple[list[Measured], npt.NDArray[np.int64]]:
    names, units, codes = (records.column(column) for column in ("indicator", "unit", "code"))
    key, n = names.codes.astype(np.int64), len(names.texts)
    for cells in (units, codes):
        if n * len(cells.texts) >= 2**62:  # the product might overflow
            distinct, key = np.unique(key, return_inverse=True)
            n = len(distinct)
        key, n = key * len(cells.texts) + cells.codes, n * len(cells.texts)
    keys, first, group = np.unique(key, return_index=True, return_inverse=True)
    values = records.columns["value"]
    kind, number = _numbers(values, records.decimal or decimal_mark([values.texts]))
    kind[patient < 0] = Kind.EMPTY
    order = np.argsort(group, kind="stable")
    groups = []
    for row, rows in zip(first.tolist(), np.split(order, np.cumsum(np.bincount(group))[:-1]) if len(keys) else [],
                         strict=True):  # fmt: skip
        groups.append(_group(names[row], units[row], codes[row], kind[rows], number[rows], patient[rows]))
    return groups, group.astype(np.int64)


def _group(
    written: str,
    unit: str,
    code: str,
    kind: npt.NDArray[np.int8],
    number: npt.NDArray[np.float64],
    patient: npt.NDArray[np.int64],
) -> Measured:
    given = kind != Kind.EMPTY
    numeric = given & ~np.isnan(number)
    name, stated = split_name(written)
    return Measured(
        name,
        tidy(unit) or stated,
        tidy(code),
        int(given.sum()),
        number[numeric],
        patient[numeric],
        written,
        patient[kind > Kind.WORD],
        int((kind >= Kind.AMBIGUOUS).sum()),
    )


def _numbers(cells: Cells, mark: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """Return the ``Kind`` of each cell, and the number in it, NaN if none."""
    results = read_results(cells.texts, mark)
    return cells.spread(results.kinds), cells.spread(results.values)
