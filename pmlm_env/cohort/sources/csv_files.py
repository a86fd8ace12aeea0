"""Reading CSV files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.cells import CellsBuilder
from pmlm_env.cohort.sources.table_files import MAX_CELL, Table, check_names, check_size

_MAX_LINE = 2**24
#: Rows that are held as text at once.
_BATCH = 16_384

#: Bytes that are not UTF-8, as decoded with ``errors="surrogateescape"``.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def read_csv(path: Path) -> Table:
    """Read a CSV file in UTF-8, skipping blank rows.

    Raises:
        CohortError: It is not UTF-8 CSV, has no header, has unnamed or repeated columns, or exceeds a limit.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        # The csv module, not pandas: its line numbers are exact, and it never completes a row with too few cells.
        reader = csv.reader(_lines(path, file), strict=True)
        header: list[str] | None = None
        columns: list[CellsBuilder] = []
        rows: list[list[str]] = []
        lines: list[int] = []
        malformed: list[tuple[int, int]] = []
        line = header_line = 1
        try:
            for row in reader:
                if not any(row):
                    pass
                elif header is None:
                    header, header_line = row, line
                    check_names(path, header)
                    columns = [CellsBuilder() for _ in header]
                elif len(row) != len(header):
                    malformed.append((line, len(row)))
                    check_size(path, len(malformed))
                else:
                    rows.append(row)
                    lines.append(line)
                    if len(rows) == _BATCH:
                        check_size(path, len(lines) * len(header))
                        _move(rows, columns)
                line = reader.line_num + 1
        except csv.Error as error:
            advice = "check the double quotes"
            if "field limit" in str(error):
                advice += f", or shorten the cell to {MAX_CELL:,} characters"
            raise CohortError(f"{path.name}, line {line}: not a row of CSV ({error}); {advice}") from error
    if header is None:
        raise CohortError(f"{path.name}: the file is empty")
    check_size(path, len(lines) * len(header))
    _move(rows, columns)
    cells = {name: column.cells() for name, column in zip(header, columns, strict=True)}
    return Table(path.name, cells, np.array(lines, dtype=np.int64), "line", header_line, malformed)


def _move(rows: list[list[str]], columns: list[CellsBuilder]) -> None:
    """Append the cells of the rows to their columns, and clear the rows."""
    for column, cells in zip(columns, zip(*rows, strict=True), strict=False):
        column.extend(cells)
    rows.clear()


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
