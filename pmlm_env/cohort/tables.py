"""A CSV or Parquet file as columns of text, each row with the number a person would find it by."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, eq=False)
class Table:
    """One file, every cell as text; an empty cell is "".

    Attributes:
        name: File name.
        columns: Column name -> one cell a row.
        rows: Number of each row, shape (n,): the line it starts on in a CSV file (the header is line 1; cells
            with line breaks and blank lines count as an editor counts them), the row (from 1) in a Parquet file.
        row_word: "line" or "row", accordingly.
        header_row: Number of the header: its line, or 0 in a Parquet file.
        misfits: (number, cells) of the rows left out as they have not one cell a column.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    rows: npt.NDArray[np.int64]
    row_word: str
    header_row: int
    misfits: Sequence[tuple[int, int]] = ()

    def place(self, row: int) -> str:
        """Return how a person finds a row: "line 14"."""
        return f"{self.row_word} {row}" if row else "header"


def read_table(path: Path) -> Table:
    """Read a file as text; blank rows are passed over.

    Raises:
        CohortError: It is not CSV in UTF-8 or Parquet, has no header, or has columns without a name of their own.
    """
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


def _read_csv(path: Path) -> Table:
    raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise CohortError(
            f"{path.name}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as CSV UTF-8"
        ) from error
    # The csv module, not pandas: it is exact about line numbers and never mends a row that has too few cells.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    cells: list[str] = []
    lines: list[int] = []
    misfits: list[tuple[int, int]] = []
    line = header_line = 1
    try:
        for row in reader:
            if not any(row):
                pass
            elif header is None:
                header, header_line = row, line
            elif len(row) != len(header):
                misfits.append((line, len(row)))
            else:
                cells.extend(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise CohortError(f"{path.name}, line {line}: not a row of CSV ({error}); check the double quotes") from error
    if header is None:
        raise CohortError(f"{path.name}: the file is empty")
    _check_names(path, header)
    columns = {name: cells[k :: len(header)] for k, name in enumerate(header)}
    return Table(path.name, columns, np.array(lines, dtype=np.int64), "line", header_line, misfits)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CohortError(f"{path.name}: reading Parquet needs pyarrow; pip install pyarrow, or save as CSV") from error

    try:
        with pq.ParquetFile(path) as file:
            data = file.read()
        # The row index that pandas stores next to the columns is not data.
        names = [name for name in data.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
        _check_names(path, names)
        columns: dict[str, list[str]] = {}
        for name in names:
            column = data[name]
            if pa.types.is_floating(column.type):
                column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            columns[name] = column.cast(pa.string()).fill_null("").to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise CohortError(f"{path.name}: not a Parquet file of plain columns ({error})") from error
    keep = [i for i, cells in enumerate(zip(*columns.values(), strict=True)) if any(cells)]
    columns = {name: [cells[i] for i in keep] for name, cells in columns.items()}
    return Table(path.name, columns, np.array(keep, dtype=np.int64) + 1, "row", 0)


def _check_names(path: Path, names: Sequence[str]) -> None:
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise CohortError(f"{path.name}, header: column {position} has no name; name it or remove it")
        if names.index(name) != position - 1:
            raise CohortError(f"{path.name}, header: column {name!r} is there twice; rename or remove one")
