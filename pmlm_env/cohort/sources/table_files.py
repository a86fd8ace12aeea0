"""Reading CSV and Parquet files as columns of text, with row numbers for messages.

Files may come from untrusted sources, so memory use is bounded (``MAX_CELLS`` and the other limits).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.wording import bare, quoted

SUFFIXES = (".csv", ".parquet")

#: Limits of one file. A cell takes about 100 bytes of memory.
MAX_BYTES = 2**30
MAX_CELLS = 25_000_000
MAX_COLUMNS = 5_000
#: Characters per cell: the limit of Python's ``csv`` module.
MAX_CELL = 131_072
_MAX_LINE = 2**24
_BATCH = 65_536

#: Bytes that are not UTF-8, as decoded with ``errors="surrogateescape"``.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, eq=False)
class Table:
    """One file, every cell as text; an empty cell is "".

    Attributes:
        name: File name.
        columns: Column name -> one cell per row.
        rows: Number of each row, shape (n,): in a CSV file the line on which it starts, counted as an editor does; in
            a Parquet file the row, from 1.
        row_word: "line" or "row", accordingly.
        header_row: Line number of the header; 0 in a Parquet file.
        malformed: (row number, number of cells) of rows left out because their number of cells is wrong.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    rows: npt.NDArray[np.int64]
    row_word: str
    header_row: int
    malformed: Sequence[tuple[int, int]] = ()

    def location(self, row: int) -> str:
        """Return where a row is, for messages: "line 14"."""
        return f"{self.row_word} {row}" if row else "header"

    def where(self, keep: npt.NDArray[np.bool_]) -> Table:
        """Return the table of the flagged rows."""
        rows = np.flatnonzero(keep).tolist()
        columns = {name: [cells[i] for i in rows] for name, cells in self.columns.items()}
        return replace(self, columns=columns, rows=self.rows[keep])


def read_table(path: Path) -> Table:
    """Read a file as text, skipping blank rows.

    Raises:
        CohortError: The file is neither UTF-8 CSV nor Parquet, has no header, has unnamed or repeated columns, or
            exceeds a limit of this module.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise _too_large(path, f"{size:,} bytes; at most {MAX_BYTES:,} are read")
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


def _read_csv(path: Path) -> Table:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        # The csv module, not pandas: its line numbers are exact, and it never completes a row with too few cells.
        reader = csv.reader(_lines(path, file), strict=True)
        header: list[str] | None = None
        cells: list[str] = []
        lines: list[int] = []
        malformed: list[tuple[int, int]] = []
        line = header_line = 1
        try:
            for row in reader:
                if not any(row):
                    pass
                elif header is None:
                    header, header_line = row, line
                    _check_names(path, header)
                elif len(row) != len(header):
                    malformed.append((line, len(row)))
                else:
                    cells.extend(row)
                    lines.append(line)
                _check_size(path, len(cells) + len(malformed))
                line = reader.line_num + 1
        except csv.Error as error:
            advice = "check the double quotes"
            if "field limit" in str(error):
                advice += f", or shorten the cell to {MAX_CELL:,} characters"
            raise CohortError(f"{path.name}, line {line}: not a row of CSV ({error}); {advice}") from error
    if header is None:
        raise CohortError(f"{path.name}: the file is empty")
    columns = {name: cells[k :: len(header)] for k, name in enumerate(header)}
    return Table(path.name, columns, np.array(lines, dtype=np.int64), "line", header_line, malformed)


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield the lines with their line ends.

    Raises:
        CohortError: A line is too long or is not UTF-8 text.
    """
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        where = f"{path.name}, line {number}"
        if len(line) > _MAX_LINE:
            raise CohortError(f"{where} has more than {_MAX_LINE:,} characters; is this a CSV file with line ends?")
        if not line.isascii() and (found := _NOT_UTF8.search(line)):
            byte = ord(found[0]) - 0xDC00
            raise CohortError(f"{where}: byte 0x{byte:02x} is not UTF-8; save the file as CSV UTF-8")
        if "\0" in line:
            raise CohortError(f"{where}: contains a NUL byte, so it is not text; save the file as CSV UTF-8")
        yield line


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CohortError(f"{path.name}: reading Parquet needs pyarrow; pip install pyarrow, or save as CSV") from error

    try:
        with pq.ParquetFile(path) as source:
            metadata, schema = source.metadata, source.schema_arrow
        # The row index that pandas stores as a column is not data.
        names = [name for name in schema.names if not re.fullmatch(r"__index_level_\d+__", name)]
        _check_names(path, names)
        _check_size(path, metadata.num_rows * len(names))
        size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if size > MAX_BYTES:
            raise _too_large(path, f"{size:,} bytes when unpacked; at most {MAX_BYTES:,} are read")
        for name in names:  # a small file can hold a huge list
            if pa.types.is_nested(dtype := schema.field(name).type) or pa.types.is_fixed_size_binary(dtype):
                raise CohortError(
                    f"{path.name}, column {bare(name)}: contains {quoted(str(dtype))}, not text, numbers or dates"
                )
        # Read as dictionaries, because a small file can repeat one long text a million times.
        texts = [name for name in names if _is_text(schema.field(name).type)]
        columns: dict[str, list[str]] = {name: [] for name in names}
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(_BATCH, columns=names):
                _check_size(path, (len(columns[names[0]]) + batch.num_rows) * len(names))
                for name in names:
                    columns[name] += _as_text(path, name, batch.column(name))
    except CohortError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        raise CohortError(f"{path.name}: not a Parquet file of plain columns ({quoted(str(error))})") from error
    keep = [i for i, cells in enumerate(zip(*columns.values(), strict=True)) if any(cells)]
    columns = {name: [cells[i] for i in keep] for name, cells in columns.items()}
    return Table(path.name, columns, np.array(keep, dtype=np.int64) + 1, "row", 0)


def _is_text(dtype: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(dtype) for test in tests)


def _as_text(path: Path, name: str, column: Any) -> list[str]:
    """Return a Parquet column as cells; equal cells share one string."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    distinct = column.dictionary.cast(pa.string())
    if (pc.max(pc.utf8_length(distinct)).as_py() or 0) > MAX_CELL:
        raise CohortError(f"{path.name}, column {bare(name)}: a cell has more than {MAX_CELL:,} characters; shorten it")
    known = distinct.fill_null("").to_pylist()
    return ["" if index is None else known[index] for index in column.indices.to_pylist()]


def _check_size(path: Path, cells: int) -> None:
    if cells > MAX_CELLS:
        raise _too_large(path, f"more than {MAX_CELLS:,} cells")


def _too_large(path: Path, what: str) -> CohortError:
    return CohortError(f"{path.name} has {what}; keep only the rows and columns that are needed")


def _check_names(path: Path, names: Sequence[str]) -> None:
    if not names:
        raise CohortError(f"{path.name}: the file has no columns")
    if len(names) > MAX_COLUMNS:
        raise _too_large(path, f"{len(names):,} columns; at most {MAX_COLUMNS:,} are read")
    seen = set()
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise CohortError(f"{path.name}, header: column {position} has no name; name it or remove it")
        if name in seen:
            raise CohortError(f"{path.name}, header: column {quoted(name)} occurs twice; rename or remove one")
        seen.add(name)
