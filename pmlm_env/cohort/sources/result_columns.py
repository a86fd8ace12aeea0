"""The results of a table as numbers in the units of the schema, checked and counted by the form that they had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Schema
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.sources.checks import Problems
from pmlm_env.cohort.sources.results import Kind, Results, decimal_mark, read_results
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import bare, folded, quoted, tidy

UNKNOWN = -1


@dataclass
class Forms:
    """How many results had which form.

    Attributes:
        limits: Limits (``<0.1``), read as the limit itself.
        flagged: Numbers with a flag (``12.5 H``).
        coded: Words that the schema gives a number.
        words: Results that are no numbers, left out: text -> number.
        decimal_comma: Whether a comma marks the decimals.
    """

    limits: int = 0
    flagged: int = 0
    coded: int = 0
    words: Counter[str] = field(default_factory=Counter)
    decimal_comma: bool = False


class Read(NamedTuple):
    """A column of results.

    Attributes:
        value: The numbers, shape (n,); NaN where there is none.
        present: Which cells are not empty.
        bad: Which cells cannot be used: they are no numbers, or impossible ones.
    """

    value: npt.NDArray[np.float64]
    present: npt.NDArray[np.bool_]
    bad: npt.NDArray[np.bool_]


class ResultReader:
    """Reads the columns of results of one table, which mark decimals in the same way."""

    def __init__(self, table: Table, columns: Iterable[str], schema: Schema, problems: Problems) -> None:
        """Find out what marks the decimals.

        Args:
            table: The table.
            columns: Its columns of results.
            schema: The indicators.
            problems: Collects problems.
        """
        self._table, self._schema, self._problems = table, schema, problems
        self._mark = table.decimal or decimal_mark(table.columns[name].texts for name in columns)
        self.forms = Forms(decimal_comma=self._mark == ",")

    def column(
        self,
        name: str,
        position: npt.NDArray[np.int64],
        times: float | npt.NDArray[np.float64] = 1.0,
        plus: float | npt.NDArray[np.float64] = 0.0,
        over: float | npt.NDArray[np.float64] = 1.0,
    ) -> Read:
        """Read a column and check its bounds.

        Args:
            name: The column.
            position: The indicator of each row, shape (n,); negative = unknown, so without bounds.
            times: What each number is multiplied by, to be in the unit of the schema.
            plus: What is then added to it.
            over: What it is then divided by.
        """
        cells = self._table.columns[name]
        results = read_results(cells.texts, self._mark)
        kind = cells.spread(results.kinds)
        value = (cells.spread(results.values) * times + plus) / over
        self._use_words(cells, position, value, kind)
        self._count(cells, results, kind, position)
        low, high = self._schema.bounds
        # A comparison with NaN is False.
        impossible = (position >= 0) & ((value < low[position]) | (value > high[position]))
        for kinds, what in (
            ((Kind.UNREADABLE, Kind.PERCENT), "unparsable value"),
            ((Kind.AMBIGUOUS,), "ambiguous number"),
        ):
            self._problems.add(what, self._table, np.isin(kind, kinds), name, lambda i: self._not_a_number(cells[i]))
        describe = partial(self._impossible, cells, value, position)
        self._problems.add("impossible value", self._table, impossible, name, describe)
        return Read(value, kind != Kind.EMPTY, (kind >= Kind.WORD) | impossible)

    def _use_words(
        self,
        cells: Cells,
        position: npt.NDArray[np.int64],
        value: npt.NDArray[np.float64],
        kind: npt.NDArray[np.int8],
    ) -> None:
        """Give words the numbers that the schema has for them."""
        for k, indicator in enumerate(self._schema.indicators):
            numbers = {folded(tidy(word)): number for word, number in indicator.words}
            if not numbers or not (rows := position == k).any():
                continue
            of_text = np.array([numbers.get(folded(tidy(text)), np.nan) for text in cells.texts])
            found = cells.spread(of_text)
            rows &= np.isfinite(found)
            value[rows], kind[rows] = found[rows], Kind.NUMBER
            self.forms.coded += int(rows.sum())

    def _count(
        self, cells: Cells, results: Results, kind: npt.NDArray[np.int8], position: npt.NDArray[np.int64]
    ) -> None:
        known = position >= 0
        self.forms.limits += int(np.sum(known & (kind == Kind.LIMIT)))
        self.forms.flagged += int(np.sum(known & (kind == Kind.FLAGGED)))
        if (results.kinds == Kind.WORD).any():
            counts = np.bincount(cells.codes[known & (kind == Kind.WORD)], minlength=len(cells.texts))
            self.forms.words.update({tidy(cells.texts[i]): int(counts[i]) for i in np.flatnonzero(counts).tolist()})

    def _not_a_number(self, text: str) -> str:
        if "," in text and not self._mark:
            return (
                f"{quoted(text)} may have a decimal comma or a group of thousands, and the other numbers do not tell "
                'or differ; say which with decimal = "," or decimal = "." in map.toml (docs/cohort-format.md)'
            )
        if text.strip().endswith("%"):
            return f"{quoted(text)} has a percent sign; write it as 12.5, and % as the unit of its row or column"
        return f"{quoted(text)} is not a number; write it as 12.5, or remove it if it was not measured"

    def _impossible(self, cells: Cells, value: npt.NDArray[np.float64], position: npt.NDArray[np.int64], i: int) -> str:
        indicator = self._schema.indicators[position[i]]
        found = f"{bare(indicator.name)} {bare(cells[i].strip())}"
        if value[i] < 0 and indicator.low is None:
            advice = f"correct or remove it, or give {bare(indicator.name)} a negative low in the schema"
            return f"{found} is negative; {advice}"
        low, high = (each[position[i]] for each in self._schema.bounds)
        bounds = f"{low:g} to {high:g} {indicator.unit}".rstrip()
        return f"{found} is outside {bounds}; it may be a typing error or in another unit: correct or remove it"
