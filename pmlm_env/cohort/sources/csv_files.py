"""Reading CSV files."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.cells import BATCH, CellsBuilder, move_rows
from pmlm_env.cohort.sources.table_files import MAX_BYTES, MAX_CELL, Table, check_names, check_size, too_large
from pmlm_env.cohort.wording import quoted

_DELIMITERS = ",;\t|"
_MAX_LINE = 2**24
#: Bytes that are not UTF-8, as decoded with ``errors="surrogateescape"``.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def read_csv(path: Path, encoding: str | None = None) -> Table:
    """Read a CSV or TSV file, compressed if its name ends in .gz, skipping blank rows.

    What separates the cells is seen from the header: a comma, a semicolon, a tab or a vertical bar.

    Args:
        path: The file.
        encoding: The encoding of its text, by a name that Python knows; None = UTF-8, or UTF-16 if it begins so.

    Raises:
        CohortError: It is not CSV in this encoding, has no header, has unnamed or repeated columns, or exceeds a limit.
    """
    raw: Any = gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")
    try:
        with raw, _text(raw, path, encoding) as file:
            return _read(path, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CohortError(f"{path.name}: not a whole gzip file ({error}); compress it again") from error


def _text(raw: Any, path: Path, encoding: str | None) -> TextIO:
    """Return a file of bytes as text.

    Raises:
        CohortError: There is no such encoding.
    """
    if encoding is None:
        start = raw.read(2)
        raw.seek(0)
        encoding = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    # Bytes that are not UTF-8 are told with their line; in other encodings they may be part of a character.
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    try:
        return io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline="")
    except (LookupError, ValueError):
        raise CohortError(f"--encoding {quoted(encoding)} is not known; use utf-8, gb18030, cp1252, ...") from None


def _read(path: Path, file: TextIO) -> Table:
    lines_of_file = _lines(path, file)
    start: list[str] = []
    while not (start and start[-1].strip()) and (line_text := next(lines_of_file, "")):
        start.append(line_text)
    # The csv module, not pandas: its line numbers are exact, and it never completes a row with too few cells.
    reader = csv.reader(chain(start, lines_of_file), delimiter=_delimiter("".join(start)), strict=True)
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
                if len(rows) == BATCH:
                    check_size(path, len(lines) * len(header))
                    move_rows(rows, columns)
            line = reader.line_num + 1
    except csv.Error as error:
        advice = "check the double quotes"
        if "field limit" in str(error):
            advice += f", or shorten the cell to {MAX_CELL:,} characters"
        raise CohortError(f"{path.name}, line {line}: not a row of CSV ({error}); {advice}") from error
    if header is None:
        raise CohortError(f"{path.name}: the file is empty")
    check_size(path, len(lines) * len(header))
    move_rows(rows, columns)
    cells = {name: column.cells() for name, column in zip(header, columns, strict=True)}
    return Table(path.name, cells, np.array(lines, dtype=np.int64), "line", header_line, malformed)


def _delimiter(header: str) -> str:
    """Return which of the usual delimiters is most frequent outside quotes in the header."""
    bare_header = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=bare_header.count)


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield the lines with their line ends.

    Raises:
        CohortError: A line is too long or is not text of the encoding, or there are too many characters.
    """
    name, read_line, number, size = path.name, file.readline, 0, 0
    while True:
        try:
            line = read_line(_MAX_LINE + 1)
        except UnicodeError as error:
            # Text is decoded in blocks, so that the line is not known.
            raise CohortError(
                f"{name}, from line {number + 1} on: not text in the encoding {file.encoding} ({error}); name the "
                "right one with --encoding, or save the file as CSV UTF-8"
            ) from error
        if not line:
            return
        number, size = number + 1, size + len(line)
        if size > MAX_BYTES:  # a compressed file can hold far more than its size
            raise too_large(path, f"more than {MAX_BYTES:,} characters when unpacked")
        if len(line) > _MAX_LINE:
            raise CohortError(
                f"{name}, line {number} has more than {_MAX_LINE:,} characters; is this a CSV file with line ends?"
            )
        if not line.isascii() and (found := _NOT_UTF8.search(line)):
            raise CohortError(
                f"{name}, line {number}: byte 0x{ord(found[0]) - 0xDC00:02x} is not UTF-8; name the encoding with "
                "--encoding (gb18030, cp1252, ...), or save the file as CSV UTF-8"
            )
        if "\0" in line:
            raise CohortError(
                f"{name}, line {number}: contains a NUL byte, so it is not text; save the file as CSV UTF-8"
            )
        yield line
