"""Collecting the problems found in a cohort's files, as counts and actionable messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import SHOWN, bare, folded, named, quoted, suggestion

#: Similarity (``difflib``) above which two names are taken to mean the same column.
_SAME_NAME = 0.85
#: Examples per kind of problem if there are too many to show all.
_EXAMPLES = 3


class Problems:
    """The problems found in one run: all are counted, the first ``SHOWN`` of each kind are described."""

    def __init__(self) -> None:
        """Start without problems."""
        self.counts: Counter[str] = Counter()
        self._files: dict[str, int] = {}
        self._lines: dict[str, list[tuple[int, int, str]]] = {}
        self._grouped_kinds: set[str] = set()

    def add(
        self,
        kind: str,
        table: Table,
        bad: npt.NDArray[np.bool_],
        column: str,
        describe: Callable[[int], str],
        group_by: Sequence[Hashable] | None = None,
    ) -> None:
        """Record the rows of a table that have a problem.

        Args:
            kind: The kind of problem, for counting.
            table: Where it was found.
            bad: Whether a row has it, one flag per row.
            column: The column that has it.
            describe: Maps a row index to the value found, what is allowed and what to do.
            group_by: One value per row; rows with equal values share one line, the most frequent first.
        """
        indices = np.flatnonzero(bad).tolist()
        if not indices:
            return
        self.counts[kind] += len(indices)
        if group_by is None:
            for index in indices[:SHOWN]:
                self._add_line(kind, table, int(table.rows[index]), f"{_of(table, column)}: {describe(index)}")
            return
        self._grouped_kinds.add(kind)
        first: dict[Hashable, int] = {}
        for index in indices:
            first.setdefault(group_by[index], index)
        for value, count in Counter(group_by[index] for index in indices).most_common(SHOWN):
            index, rows = first[value], f" ({count:,} rows)" if count > 1 else ""
            self._add_line(kind, table, int(table.rows[index]), f"{_of(table, column)}: {describe(index)}{rows}")

    def add_columns(self, kind: str, table: Table, columns: Collection[str], describe: Callable[[str], str]) -> None:
        """Record a problem with whole columns."""
        for column in list(columns)[:SHOWN]:
            self._add_line(kind, table, table.header_row, f"{_of(table, column)}: {describe(column)}")
        if columns:
            self.counts[kind] += len(columns)

    def add_malformed(self, table: Table) -> None:
        """Record the rows that have more or fewer cells than the header."""
        kind = "wrong number of cells"
        for row, cells in table.malformed[:SHOWN]:
            advice = 'put cells that contain commas or line breaks in double quotes ("...")'
            self._add_line(kind, table, row, f"{cells} cells where the header has {len(table.columns)}; {advice}")
        if table.malformed:
            self.counts[kind] += len(table.malformed)

    def lines(self) -> tuple[str, ...]:
        """Return the descriptions ordered by file and row; only some of each kind if there are many."""
        few = self.counts.total() <= SHOWN
        chosen = [
            line for kind, lines in self._lines.items() for line in lines[: None if few else self._number_shown(kind)]
        ]
        return tuple(text for _, _, text in sorted(chosen, key=lambda line: line[:2]))

    def message(self, folder: Path) -> str:
        """Return a message with all problems or, if there are many, their counts and examples by kind."""
        total = self.counts.total()
        head = f"{total:,} problem{'s' if total > 1 else ''} in {folder}"
        if total <= SHOWN:
            return "\n".join([head, *(f"  {line}" for line in self.lines())])
        lines = [f"{head}; by kind, with examples:"]
        for kind, count in self.counts.most_common():
            lines.append(f"  {count:,} x {kind}:")
            lines += [f"    {text}" for _, _, text in self._lines[kind][: self._number_shown(kind)]]
        return "\n".join(lines)

    def _number_shown(self, kind: str) -> int:
        return SHOWN if kind in self._grouped_kinds else _EXAMPLES

    def _add_line(self, kind: str, table: Table, row: int, text: str) -> None:
        order = self._files.setdefault(table.name, len(self._files))
        self._lines.setdefault(kind, []).append((order, row, f"{table.name}, {table.location(row)}, {text}"))


def _of(table: Table, column: str) -> str:
    return f"column {bare(table.called(column))}"


def require(table: Table, needed: Collection[str], optional: Collection[str] = (), advice: str = "") -> None:
    """Check that a table has the columns that it needs.

    Args:
        table: The table.
        needed: Required columns.
        optional: Columns that may be missing, but must not be present under a similar name (``Units``).
        advice: What else can be done about a missing column.

    Raises:
        CohortError: A column is missing; the message suggests a similar one.
    """
    header = list(table.columns)
    missing = [name for name in needed if name not in table.columns]
    missing += [name for name in optional if name not in (*table.columns, *needed) and _alike(name, header)]
    if not missing:
        return
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        advice = "Separate the columns with commas."
    missing_columns = "; ".join(f"no column {name!r}{_hint(name, header)}" for name in missing)
    found = named([table.called(name) for name in header], shown=50)
    if table.renamed:
        found += f"; read as: {named(header, shown=50)}"
    text = f"{table.name}, {table.location(table.header_row)}, {missing_columns}. Found: {found}."
    cure = "Names must match exactly: rename or add the column, "
    cure += f'or say in map.toml which it is: [columns] YOUR_NAME = "{missing[0]}" (docs/cohort-format.md).'
    raise CohortError(f"{text} {cure} {advice}".rstrip())


def _alike(name: str, header: Sequence[str]) -> list[str]:
    """Return the columns whose names, in any letter case, are so similar that they mean the same."""
    return [each for each in header if suggestion(name, [folded(each)], _SAME_NAME)]


def _hint(name: str, header: Sequence[str]) -> str:
    """Return which column a missing one may be, for a message; "" if none is similar."""
    alike = _alike(name, header)[:2]
    return f" (did you mean {' or '.join(map(quoted, alike))}?)" if alike else suggestion(name, header)


def two_columns(table: Table, one: str, other: str, indicator: str) -> CohortError:
    """Return the error that two columns of a table are one indicator."""
    return CohortError(
        f"{table.name}, {table.location(table.header_row)}, columns {quoted(table.called(one))} and "
        f"{quoted(table.called(other))} are both the indicator {bare(indicator)}: keep one, or write the table in the "
        "long form"
    )
