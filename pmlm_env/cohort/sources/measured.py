"""What a table of check-ups measures: its values by the name, the unit and the code that it gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.indicator import RESERVED
from pmlm_env.cohort.parsing import has_value, parse_numbers
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.sources.recognition import split_name
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import tidy

#: The number in "<0.1", "12.5 H" and "7,4".
_NUMBER = re.compile(r"\s*[<>\u2264\u2265=~]*\s*([+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?)", re.IGNORECASE)


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
    """

    name: str
    unit: str
    code: str
    cells: int
    values: npt.NDArray[np.float64]
    patients: npt.NDArray[np.int64]
    written: str


def measured(people: Table, records: Table, long: bool) -> tuple[list[Measured], npt.NDArray[np.int64]]:
    """Group the values of a table of check-ups.

    Args:
        people: The patients' table; values of others do not count.
        records: The check-ups: patient_id, indicator, value and optionally unit and code; or, if not ``long``,
            patient_id and one column per indicator.
        long: The form of ``records``.

    Returns:
        The groups, and of a long table the group of each row, shape (n_rows,).
    """
    position = {name.strip(): k for k, name in enumerate(people.columns["patient_id"].texts)}
    ids = records.columns["patient_id"]
    known = np.array([position.get(name.strip(), -1) for name in ids.texts], dtype=np.int64)
    patient = ids.spread(known) if len(known) else np.empty(0, dtype=np.int64)
    if not long:
        return list(_of_columns(records, patient)), np.empty(0, dtype=np.int64)
    return _of_rows(records, patient)


def _of_columns(records: Table, patient: npt.NDArray[np.int64]) -> Iterator[Measured]:
    for header, cells in records.columns.items():
        if header not in RESERVED:
            given, number = _numbers(cells)
            yield _group(header, "", "", given & (patient >= 0), number, patient)


def _of_rows(records: Table, patient: npt.NDArray[np.int64]) -> tuple[list[Measured], npt.NDArray[np.int64]]:
    names, units, codes = (records.column(column) for column in ("indicator", "unit", "code"))
    key, n = names.codes.astype(np.int64), len(names.texts)
    for cells in (units, codes):
        if n * len(cells.texts) >= 2**62:  # the product might overflow
            distinct, key = np.unique(key, return_inverse=True)
            n = len(distinct)
        key, n = key * len(cells.texts) + cells.codes, n * len(cells.texts)
    keys, first, group = np.unique(key, return_index=True, return_inverse=True)
    given, number = _numbers(records.columns["value"])
    inside = given & (patient >= 0)
    order = np.argsort(group, kind="stable")
    groups = []
    for row, rows in zip(first.tolist(), np.split(order, np.cumsum(np.bincount(group))[:-1]) if len(keys) else [],
                         strict=True):  # fmt: skip
        groups.append(_group(names[row], units[row], codes[row], inside[rows], number[rows], patient[rows]))
    return groups, group.astype(np.int64)


def _group(
    written: str,
    unit: str,
    code: str,
    given: npt.NDArray[np.bool_],
    number: npt.NDArray[np.float64],
    patient: npt.NDArray[np.int64],
) -> Measured:
    numeric = given & ~np.isnan(number)
    name, stated = split_name(written)
    cells = int(given.sum())
    return Measured(name, tidy(unit) or stated, tidy(code), cells, number[numeric], patient[numeric], written)


def _numbers(cells: Cells) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Return which cells hold a value, and the number in each, NaN if none."""
    texts = [match[1].replace(",", ".") if (match := _NUMBER.match(text)) else "" for text in cells.texts]
    return cells.spread(has_value(cells.texts)), cells.spread(parse_numbers(texts))
