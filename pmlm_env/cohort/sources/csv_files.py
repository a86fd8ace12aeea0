"""Reading CSV files."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from itertools import repeat
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.cells import BATCH, CellsBuilder, move_rows
from pmlm_env.cohort.sources.table_files import MAX_BYTES, MAX_CELL, Table, check_names, check_size, too_large
from pmlm_env.cohort.wording import quoted

_DELIMITERS = ",;\t|"
_MAX_LINE = 2**24
#: Characters that are read at once.
_BLOCK = 2**20
#: Bytes that are not UTF-8, as decoded with ``errors="surrogateescape"``.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
#: The first line by which Excel is told what separates the cells.
_SEPARATOR_LINE = re.compile(f'"?sep=([{_DELIMITERS}])"?[{_DELIMITERS}]*', re.IGNORECASE)


def read_csv(path: Path, encoding: str | None = None) -> Table:
    """Read a CSV or TSV file, compressed if its name ends in .gz, skipping blank rows.

    What separates the cells is seen from the header, a comma, a semicolon, a tab or a vertical bar, unless a line
    before it says so for Excel (``sep=;``).

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
        encoding = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8"
    try:
        if codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"  # which skips a byte order mark, if there is one
        # Bytes that are not UTF-8 are told with their line; in other encodings they may be part of a character.
        errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
        return io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline="")
    except (LookupError, ValueError):
        raise CohortError(f"--encoding {quoted(encoding)} is not known; use utf-8, gb18030, cp1252, ...") from None


def _read(path: Path, file: TextIO) -> Table:
    feed = _Lines(path, file)
    first = feed.first_text().strip()
    told = _SEPARATOR_LINE.fullmatch(first)
    delimiter = told[1] if told else _delimiter(first)
    # The csv module, not pandas: its line numbers are exact, and it never completes a row with too few cells.
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    header: list[str] = []
    rows = _Rows(path)
    line = header_line = 1
    try:
        while True:
            if header and (plain := feed.plain_lines()):
                rows.split(plain, feed.number - len(plain) + 1, delimiter)
                continue
            line = feed.number + 1
            if (row := next(reader, None)) is None:
                break
            if header:
                rows.add(row, line)
            elif told:
                told = None  # this row was that line
            elif any(row):
                header, header_line = row, line
                check_names(path, header)
                rows.columns = [CellsBuilder() for _ in header]
    except csv.Error as error:
        advice = "check the double quotes"
        if "field limit" in str(error):
            advice += f", or shorten the cell to {MAX_CELL:,} characters"
        raise CohortError(f"{path.name}, line {line}: not a row of CSV ({error}); {advice}") from error
    if not header:
        raise CohortError(f"{path.name}: the file is empty")
    rows.flush()
    cells = {name: column.cells() for name, column in zip(header, rows.columns, strict=True)}
    return Table(path.name, cells, np.array(rows.lines, dtype=np.int64), "line", header_line, rows.malformed)


def _delimiter(header: str) -> str:
    """Return which of the usual delimiters is most frequent outside quotes in the header."""
    bare_header = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=bare_header.count)


class _Rows:
    """Collects the rows of a file: their cells by column, and the lines on which they start."""

    def __init__(self, path: Path) -> None:
        self.columns: list[CellsBuilder] = []
        self.lines: list[int] = []
        self.malformed: list[tuple[int, int]] = []
        self._path = path
        self._pending: list[list[str]] = []

    def add(self, row: list[str], line: int) -> None:
        """Append a row, unless it is blank or has a wrong number of cells."""
        if not any(row):
            return
        if len(row) != len(self.columns):
            self.malformed.append((line, len(row)))
            check_size(self._path, len(self.malformed))
            return
        self._pending.append(row)
        self.lines.append(line)
        if len(self._pending) == BATCH:
            self.flush()

    def split(self, texts: list[str], first: int, delimiter: str) -> None:
        """Append lines without quotes, of which ``first`` is the number of the first one."""
        n_delimiters = len(self.columns) - 1
        if {*map(str.count, texts, repeat(delimiter))} != {n_delimiters} or delimiter * n_delimiters in texts:
            for line, text in enumerate(texts, start=first):
                self.add(text.split(delimiter), line)
            return
        self.flush()
        cells = delimiter.join(texts).split(delimiter)
        for k, column in enumerate(self.columns):
            column.extend(cells[k :: len(self.columns)])
        self.lines += range(first, first + len(texts))
        check_size(self._path, len(self.lines) * len(self.columns))

    def flush(self) -> None:
        """Move the pending rows to their columns."""
        check_size(self._path, len(self.lines) * len(self.columns))
        move_rows(self._pending, self.columns)


class _Lines:
    """The lines of a file with their ends, checked in blocks; it holds one block at a time.

    Attributes:
        number: Number of lines handed out.
    """

    def __init__(self, path: Path, file: TextIO) -> None:
        self.number = 0
        self._path, self._file = path, file
        self._rest, self._size, self._ended = "", 0, False
        self._lines: list[str] = []
        self._next = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._next == len(self._lines):
            self._take(self._block())
        if self._next == len(self._lines):
            raise StopIteration
        self._next, self.number = self._next + 1, self.number + 1
        return self._lines[self._next - 1]

    def first_text(self) -> str:
        """Return the first line that is not blank, without handing it out; "" if the first block has none."""
        self._take(self._block())
        return next((line for line in self._lines if line.strip()), "")

    def plain_lines(self) -> list[str]:
        """Return the next lines without their ends, if all are free of quotes and short enough to be cells.

        Returns:
            An empty list if they are not, or if lines of the last block are left.
        """
        if self._next < len(self._lines) or not (block := self._block()):
            return []
        text = block.replace("\r\n", "\n")
        lines = text.removesuffix("\n").split("\n")
        if '"' in text or "\r" in text or max(map(len, lines)) > MAX_CELL:
            self._take(block)
            return []
        self.number += len(lines)
        return lines

    def _take(self, block: str) -> None:
        self._lines, self._next = [*io.StringIO(block, newline="")], 0

    def _block(self) -> str:
        """Return the next whole lines; "" at the end of the file.

        Raises:
            CohortError: A line is too long or is not text of the encoding, or there are too many characters.
        """
        name, line = self._path.name, self.number + 1
        while not self._ended:
            try:
                read = self._file.read(_BLOCK)
            except UnicodeError as error:
                # Text is decoded in blocks, so that the line is not known.
                raise CohortError(
                    f"{name}, from line {line} on: not text in the encoding {self._file.encoding} ({error}); name the "
                    "right one with --encoding, or save the file as CSV UTF-8"
                ) from error
            self._size += len(read)
            if self._size > MAX_BYTES:  # a compressed file can hold far more than its size
                raise too_large(self._path, f"more than {MAX_BYTES:,} characters when unpacked")
            text, self._ended = self._rest + read, not read
            # A carriage return at the end may be the first half of a line end.
            end = len(text) if self._ended else 1 + max(text.rfind("\n"), text.rfind("\r", 0, -1))
            block, self._rest = text[:end], text[end:]
            if len(self._rest) > _MAX_LINE:
                raise CohortError(
                    f"{name}, line {line + _ends(block)} has more than {_MAX_LINE:,} characters; is this a CSV file "
                    "with line ends?"
                )
            if not block.isascii() and (found := _NOT_UTF8.search(block)):
                raise CohortError(
                    f"{name}, line {line + _ends(block[: found.start()])}: byte 0x{ord(found[0]) - 0xDC00:02x} is not "
                    "UTF-8; name the encoding with --encoding (gb18030, cp1252, ...), or save the file as CSV UTF-8"
                )
            if (nul := block.find("\0")) >= 0:
                raise CohortError(
                    f"{name}, line {line + _ends(block[:nul])}: contains a NUL byte, so it is not text; save the file "
                    "as CSV UTF-8"
                )
            if block:
                return block
        return ""


def _ends(text: str) -> int:
    """Return the number of line ends."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")
