"""Tables as columns of text with row numbers for messages, and the limits of their files.

Files may come from untrusted sources, so memory use is bounded (``MAX_CELLS`` and the other limits).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.wording import quoted

#: Limits of one file. A cell takes 4 bytes of memory, and each distinct text of a column about 150.
MAX_BYTES = 2**30
MAX_CELLS = 25_000_000
MAX_COLUMNS = 5_000
#: Characters per cell: the limit of Python's ``csv`` module.
MAX_CELL = 131_072
_THREE_DECIMALS = re.compile(r"-?\d+\.\d{3}")


@dataclass(frozen=True, eq=False)
class Table:
    """A table, every cell as text; an empty cell is "".

    Attributes:
        name: File name, for messages.
        columns: Column name -> its cells, one per row.
        rows: Number of each row, shape (n,): in a CSV file the line on which it starts, counted as an editor does; else
            the row, from 1.
        row_word: "line" or "row", accordingly.
        header_row: Line number of the header; 0 if it has none.
        malformed: (row number, number of cells) of rows left out because their number of cells is wrong.
        decimal: What marks the decimals of results, "." or ","; "" = as the results tell.
        day_first: Whether 01/02/2022 is February 1; None = as the dates tell.
        units: Units of the columns of a wide table.
        renamed: Columns with another name than in the file, which messages use: name here -> name there.
    """

    name: str
    columns: Mapping[str, Cells]
    rows: npt.NDArray[np.int64]
    row_word: str = "row"
    header_row: int = 0
    malformed: Sequence[tuple[int, int]] = ()
    decimal: str = ""
    day_first: bool | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def made(cls, name: str, columns: Mapping[str, Iterable[str]]) -> Table:
        """Return a table of columns of equal length, with rows numbered from 1."""
        cells = {column: Cells.of(texts) for column, texts in columns.items()}
        n_rows = len(next(iter(cells.values()))) if cells else 0
        return cls(name, cells, np.arange(1, n_rows + 1, dtype=np.int64))

    def location(self, row: int) -> str:
        """Return where a row is, for messages: "line 14"."""
        return f"{self.row_word} {row}" if row else "header"

    def called(self, name: str) -> str:
        """Return a column's name in the file, for messages."""
        return self.renamed.get(name, name)

    def column(self, name: str) -> Cells:
        """Return a column; empty cells if there is none of this name."""
        return self.columns.get(name) or Cells([""], np.zeros(len(self.rows), dtype=np.int32))

    def where(self, keep: npt.NDArray[np.bool_]) -> Table:
        """Return the table of the flagged rows."""
        columns = {name: cells.take(keep) for name, cells in self.columns.items()}
        return replace(self, columns=columns, rows=self.rows[keep])


def unmistakable(number: str) -> str:
    """Return the text of a number of a typed file with a fourth decimal if it has three: 1.234 may also mean 1234."""
    return f"{number}0" if _THREE_DECIMALS.fullmatch(number) else number


def check_size(path: Path, cells: int) -> None:
    """Check the number of cells of a file.

    Raises:
        CohortError: They are too many.
    """
    if cells > MAX_CELLS:
        raise too_large(path, f"more than {MAX_CELLS:,} cells")


def too_large(path: Path, what: str) -> CohortError:
    """Return the error that a file has too much of something."""
    return CohortError(f"{path.name} has {what}; keep only the rows and columns that are needed")


def check_names(path: Path, names: Sequence[str]) -> None:
    """Check the header of a file.

    Raises:
        CohortError: There are no columns or too many, or a column has no name or that of another one.
    """
    if not names:
        raise CohortError(f"{path.name}: the file has no columns")
    if len(names) > MAX_COLUMNS:
        raise too_large(path, f"{len(names):,} columns; at most {MAX_COLUMNS:,} are read")
    seen = set()
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise CohortError(f"{path.name}, header: column {position} has no name; name it or remove it")
        if name in seen:
            raise CohortError(f"{path.name}, header: column {quoted(name)} occurs twice; rename or remove one")
        seen.add(name)
