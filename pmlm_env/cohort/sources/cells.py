"""Columns of text in which each distinct text is stored, and worked on, once: a million rows have few units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)


class Cells(Sequence[str]):
    """One column of a table: a sequence of its cells.

    Args:
        texts: The distinct texts.
        codes: Which text each row has, shape (n_rows,), int32.
    """

    __slots__ = ("codes", "texts")

    def __init__(self, texts: Sequence[str], codes: npt.NDArray[np.int32]) -> None:
        """Store the arguments."""
        self.texts, self.codes = texts, codes

    @classmethod
    def of(cls, cells: Iterable[str]) -> Cells:
        """Return a column of these cells."""
        if isinstance(cells, Cells):
            return cells
        builder = CellsBuilder()
        builder.extend(cells)
        return builder.cells()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Cells: ...
    def __getitem__(self, index: int | slice) -> str | Cells:
        """Return one cell, or the column of a slice of rows."""
        return Cells(self.texts, self.codes[index]) if isinstance(index, slice) else self.texts[self.codes[index]]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the cells."""
        return map(self.texts.__getitem__, self.codes.tolist())

    def take(self, rows: npt.NDArray[Any]) -> Cells:
        """Return the column of the given rows: their indices, or a flag for each row.

        Texts that none of these rows has are dropped.
        """
        codes = self.codes[rows]
        used = np.zeros(len(self.texts), dtype=np.bool_)
        used[codes] = True
        if used.all():
            return Cells(self.texts, codes)
        renumbered = (np.cumsum(used) - 1).astype(np.int32)
        return Cells([self.texts[i] for i in np.flatnonzero(used).tolist()], renumbered[codes])

    def spread(self, per_text: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return the row-wise form of an array that has one entry per distinct text, shape (n_rows,)."""
        spread: npt.NDArray[Scalar] = per_text[self.codes]
        return spread

    def renamed(self, texts: Iterable[str]) -> Cells:
        """Return the column with other texts in place of ``self.texts``; these may be equal."""
        distinct = Cells.of(texts)
        return Cells(distinct.texts, distinct.codes[self.codes])


class CellsBuilder:
    """Collects the cells of a column batch by batch, so that equal texts take memory once."""

    def __init__(self) -> None:
        """Start without cells."""
        self._known: defaultdict[str, int] = defaultdict()
        self._known.default_factory = self._known.__len__
        self._parts: list[npt.NDArray[np.int32]] = []

    def extend(self, cells: Iterable[str]) -> None:
        """Append cells."""
        if isinstance(cells, Cells):
            known = np.fromiter(map(self._known.__getitem__, cells.texts), dtype=np.int32)
            self._parts.append(cells.spread(known))
            return
        self._parts.append(np.fromiter(map(self._known.__getitem__, cells), dtype=np.int32))

    def cells(self) -> Cells:
        """Return the column."""
        codes = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int32)
        return Cells(list(self._known), codes)


def distinct_rows(columns: Sequence[Cells]) -> int:
    """Return the number of distinct rows of a table."""
    if not columns:
        return 0
    key, n = columns[0].codes.astype(np.int64), len(columns[0].texts)
    for column in columns[1:]:
        if n * len(column.texts) >= 2**62:  # the next product might overflow
            distinct, key = np.unique(key, return_inverse=True)
            n = len(distinct)
        key, n = key * len(column.texts) + column.codes, n * len(column.texts)
    return len(np.unique(key))
