"""What may be wrong with a cohort on disk: gathered, said in lines a person can act on, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.table_files import Table
from pmlm_env.cohort.wording import SHOWN, bare, named, suggestion

#: How alike two names are that are meant to be the same.
_SAME = 0.85
#: Examples of each kind of problem where there are too many to show them all.
_EXAMPLES = 3


class Problems:
    """The problems of one run: all are counted, the first ``SHOWN`` of each kind are put into words."""

    def __init__(self) -> None:
        """Start with none."""
        self.counts: Counter[str] = Counter()
        self._files: dict[str, int] = {}
        self._lines: dict[str, list[tuple[int, int, str]]] = {}
        self._merged: set[str] = set()

    def add(
        self,
        kind: str,
        table: Table,
        bad: npt.NDArray[np.bool_],
        column: str,
        say: Callable[[int], str],
        same: Sequence[Hashable] | None = None,
    ) -> None:
        """Note the rows of a table that have a problem.

        Args:
            kind: The sort of problem, as counted.
            table: Where it was found.
            bad: Whether a row has it, one flag a row.
            column: The column that has it.
            say: Row index -> the value found, what is allowed, what to do.
            same: One value a row: rows that have the same one are told in one line, the most frequent ones first.
        """
        where = np.flatnonzero(bad).tolist()
        if not where:
            return
        self.counts[kind] += len(where)
        if same is None:
            for index in where[:SHOWN]:
                self._say(kind, table, int(table.rows[index]), f"column {bare(column)}: {say(index)}")
            return
        self._merged.add(kind)
        first: dict[Hashable, int] = {}
        for index in where:
            first.setdefault(same[index], index)
        for value, count in Counter(same[index] for index in where).most_common(SHOWN):
            index, rows = first[value], f" ({count:,} rows)" if count > 1 else ""
            self._say(kind, table, int(table.rows[index]), f"column {bare(column)}: {say(index)}{rows}")

    def add_columns(self, kind: str, table: Table, columns: Collection[str], say: Callable[[str], str]) -> None:
        """Note a problem with columns as a whole."""
        for column in list(columns)[:SHOWN]:
            self._say(kind, table, table.header_row, f"column {bare(column)}: {say(column)}")
        if columns:
            self.counts[kind] += len(columns)

    def add_misfits(self, table: Table) -> None:
        """Note the rows that have more or fewer cells than the header."""
        kind = "wrong number of cells"
        for row, cells in table.misfits[:SHOWN]:
            advice = 'put cells that hold commas or line breaks in double quotes ("...")'
            self._say(kind, table, row, f"{cells} cells where the header has {len(table.columns)}; {advice}")
        if table.misfits:
            self.counts[kind] += len(table.misfits)

    def lines(self) -> tuple[str, ...]:
        """Return the problems in words, in the order of files and rows; some of each kind where they are many."""
        few = self.counts.total() <= SHOWN
        chosen = [line for kind in self._lines for line in self._lines[kind][: None if few else self._shown(kind)]]
        return tuple(text for _, _, text in sorted(chosen, key=lambda line: line[:2]))

    def message(self, folder: Path) -> str:
        """Return the problems in words and their number; where they are many, by kind, with examples of each."""
        total = self.counts.total()
        head = f"{total:,} problem{'s' if total > 1 else ''} in {folder}"
        if total <= SHOWN:
            return "\n".join([head, *(f"  {line}" for line in self.lines())])
        said = [f"{head}; by kind, with examples:"]
        for kind, count in self.counts.most_common():
            said.append(f"  {count:,} x {kind}:")
            said += [f"    {text}" for _, _, text in self._lines[kind][: self._shown(kind)]]
        return "\n".join(said)

    def _shown(self, kind: str) -> int:
        return SHOWN if kind in self._merged else _EXAMPLES

    def _say(self, kind: str, table: Table, row: int, text: str) -> None:
        order = self._files.setdefault(table.name, len(self._files))
        self._lines.setdefault(kind, []).append((order, row, f"{table.name}, {table.place(row)}, {text}"))


def require(table: Table, needed: Collection[str], optional: Collection[str] = (), advice: str = "") -> None:
    """Check that a table has its columns.

    Args:
        table: The table.
        needed: Columns that must be there.
        optional: Columns that may be missing, but not be there under nearly the same name (``Units``).
        advice: What else can be done about a missing column.

    Raises:
        CohortError: One is missing; the message suggests a near one that is there.
    """
    header = list(table.columns)
    missing = [name for name in needed if name not in table.columns]
    missing += [name for name in optional if name not in table.columns and suggestion(name, header, _SAME)]
    if not missing:
        return
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        advice = "Separate the columns with commas."
    said = "; ".join(f"no column {name!r}{suggestion(name, header)}" for name in missing)
    text = f"{table.name}, {table.place(table.header_row)}, {said}. Found: {named(header, shown=50)}."
    raise CohortError(f"{text} Names are matched letter by letter: rename or add the column. {advice}".rstrip())
