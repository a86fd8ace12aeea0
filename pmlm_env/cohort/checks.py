"""What may be wrong with a cohort on disk: gathered, said in lines a person can act on, counted."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.tables import Table

#: How many problems, or patients, a message names before it only counts the rest.
SHOWN = 10
_LONGEST_VALUE = 60


@dataclass(frozen=True)
class ReadReport:
    """What was read, and everything in the files that did not come into the cohort.

    Attributes:
        patients: Patients in the cohort.
        checkups: Check-ups in the cohort.
        patients_without_checkups: Patients left out as no value of theirs was read, in the order of the file.
        dropped: Kind of problem -> how many rows (or single values of a wide table) had it and were dropped;
            one that has two problems counts under both.
        examples: The first problems, one a line, as ``CohortError`` would have listed them.
        empty_checkups: Rows of a wide table without a single value, which carry nothing.
        averaged: Values of a long table that were merged into the mean of their day.
        ignored_columns: Columns of a long table that mean nothing here.
    """

    patients: int
    checkups: int
    patients_without_checkups: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    empty_checkups: int = 0
    averaged: int = 0
    ignored_columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the report as a few lines of text."""
        lines = [f"patients: {self.patients:,}, check-ups: {self.checkups:,}"]
        if self.patients_without_checkups:
            names = ", ".join(self.patients_without_checkups)
            lines.append(f"patients left out, no laboratory value ({len(self.patients_without_checkups):,}): {names}")
        if self.empty_checkups:
            lines.append(f"check-ups left out, no value at all: {self.empty_checkups:,}")
        if self.averaged:
            lines.append(f"values averaged with others of the same day: {self.averaged:,}")
        if self.ignored_columns:
            lines.append(f"columns not used: {', '.join(self.ignored_columns)}")
        if self.dropped:
            lines.append(f"dropped: {tally(self.dropped)}")
            lines.extend(f"  {example}" for example in self.examples)
        return "\n".join(lines)


class Problems:
    """The problems of one run: all are counted, the first ``SHOWN`` of each sort are put into words."""

    def __init__(self) -> None:
        """Start with none."""
        self.counts: Counter[str] = Counter()
        self._files: dict[str, int] = {}
        self._lines: list[tuple[int, int, str]] = []

    def add(self, kind: str, table: Table, bad: npt.NDArray[np.bool_], column: str, say: Callable[[int], str]) -> None:
        """Note the rows of a table that have a problem.

        Args:
            kind: The sort of problem, as counted.
            table: Where it was found.
            bad: Whether a row has it, one flag a row.
            column: The column that has it.
            say: Row index -> the value found, what is allowed, what to do.
        """
        where = np.flatnonzero(bad)
        for index in where[:SHOWN].tolist():
            self._say(table, int(table.rows[index]), f"column {column}: {say(index)}")
        if len(where):
            self.counts[kind] += len(where)

    def add_column(self, kind: str, table: Table, column: str, text: str) -> None:
        """Note a problem with a column as a whole."""
        self._say(table, table.header_row, f"column {column}: {text}")
        self.counts[kind] += 1

    def add_misfits(self, table: Table) -> None:
        """Note the rows that have more or fewer cells than the header."""
        for row, cells in table.misfits[:SHOWN]:
            advice = 'put cells that hold commas or line breaks in double quotes ("...")'
            self._say(table, row, f"{cells} cells where the header has {len(table.columns)}; {advice}")
        if table.misfits:
            self.counts["wrong number of cells"] += len(table.misfits)

    def lines(self) -> tuple[str, ...]:
        """Return the first problems in words, in the order of files and rows."""
        return tuple(text for _, _, text in sorted(self._lines, key=lambda line: line[:2])[:SHOWN])

    def message(self, folder: Path) -> str:
        """Return the first problems in words and the count of all."""
        lines, total = self.lines(), sum(self.counts.values())
        said = [f"{total:,} problem{'s' if total > 1 else ''} in {folder}", *(f"  {line}" for line in lines)]
        if total > len(lines):
            said.append(f"  ... and {total - len(lines):,} more; in all: {tally(self.counts)}")
        return "\n".join(said)

    def _say(self, table: Table, row: int, text: str) -> None:
        order = self._files.setdefault(table.name, len(self._files))
        self._lines.append((order, row, f"{table.name}, {table.place(row)}, {text}"))


def tally(counts: Mapping[str, int]) -> str:
    """Return ``{"missing label": 2}`` as "2 x missing label"."""
    return ", ".join(f"{count:,} x {kind}" for kind, count in counts.items())


def quoted(value: str) -> str:
    """Return ``value`` in quotes, on one line and not too long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}...{text[0]}"


def suggestion(word: str, known: Collection[str]) -> str:
    """Return " (did you mean 'hgb'?)", or nothing where no known word is near.

    Letter case, spaces around the word and lost leading zeros (spreadsheets eat them) are looked at first.
    """
    plain = _plain(word)
    near = [name for name in known if plain and _plain(name) == plain] or difflib.get_close_matches(word, known, n=2)
    return f" (did you mean {' or '.join(map(repr, near[:2]))}?)" if near else ""


def named(names: Collection[str], shown: int = SHOWN) -> str:
    """Return the first names, and the count of the rest."""
    rest = len(names) - shown
    return ", ".join(list(names)[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def require(table: Table, needed: Collection[str], optional: Collection[str] = (), advice: str = "") -> None:
    """Check that a table has its columns.

    Args:
        table: The table.
        needed: Columns that must be there.
        optional: Columns that may be missing, but not be there in other letters (``Unit``).
        advice: What else can be done about a missing column.

    Raises:
        CohortError: One is missing; the message suggests a near one that is there.
    """
    header = list(table.columns)
    plain = {_plain(name) for name in header}
    missing = [name for name in needed if name not in table.columns]
    missing += [name for name in optional if name not in table.columns and _plain(name) in plain]
    if not missing:
        return
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        advice = "Separate the columns with commas."
    said = "; ".join(f"no column {name!r}{suggestion(name, header)}" for name in missing)
    found = ", ".join(map(quoted, header))
    text = f"{table.name}, {table.place(table.header_row)}, {said}. Found: {found}."
    raise CohortError(f"{text} Names are matched letter by letter: rename or add the column. {advice}".rstrip())


def _plain(word: str) -> str:
    return word.strip().casefold().lstrip("0")
