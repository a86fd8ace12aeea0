"""Reading Excel workbooks (.xlsx)."""

from __future__ import annotations

import datetime
import re
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import is_day_first, is_slashed
from pmlm_env.cohort.sources.cells import BATCH, Cells, CellsBuilder, move_rows
from pmlm_env.cohort.sources.table_files import (
    MAX_BYTES,
    MAX_CELL,
    Table,
    check_names,
    check_size,
    too_large,
    unmistakable,
)
from pmlm_env.cohort.wording import bare, named, quoted

#: Days up to this one may be months.
_MONTHS = 12
#: A cell with a formula and without a value, in the XML of a sheet; a text may be empty (t="str").
_UNSTORED = re.compile(
    rb'<c (?![^<>]{0,200}t="str")[^<>]{0,200}?r="([A-Z]{1,3}\d{1,7})"[^<>]{0,200}>\s{0,9}'
    rb"<f\b(?:[^<>]{0,200}/>|[^<>]{0,200}>[^<]{0,40000}</f>)\s{0,9}(?:<v\s{0,9}/>|<v></v>)?\s{0,9}</c>"
)
#: Bytes of XML that are searched at once, and more than a cell with a formula has.
_BLOCK, _LONGEST = 2**20, 2**16
#: What a number format shows as it stands: its percent sign does not multiply the number.
_LITERAL = re.compile(r'"[^"]*"|\\.')


def read_xlsx(path: Path) -> Table:
    """Read the sheet named as the file, or else the only sheet, skipping blank rows.

    Formulas are read as the values that Excel stored for them; none is computed. What Excel shows as 45%, and stores as
    0.45, is read as "45%".

    Raises:
        CohortError: openpyxl is not installed; it is not a workbook, or has several sheets of other names, no header,
            or unnamed or repeated columns, or a formula without a value, or dates whose day and month Excel swapped, or
            exceeds a limit.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise CohortError(
            f"{path.name}: reading it needs openpyxl; pip install 'pmlm-env[xlsx]', or save it as CSV UTF-8"
        ) from error

    try:
        with zipfile.ZipFile(path) as archive:  # which reads no more of a member than the size told here
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise too_large(path, f"{size:,} bytes when unpacked; at most {MAX_BYTES:,} are read")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            sheet = _sheet(path, book)
            _check_formulas(path, sheet)
            return _read(path, sheet)
        finally:
            book.close()
    except CohortError:
        raise
    except Exception as error:  # openpyxl raises all kinds for damaged files
        raise CohortError(f"{path.name}: not an Excel workbook ({quoted(str(error))})") from error


def _sheet(path: Path, book: Any) -> Any:
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if len(sheets) == 1:
        return next(iter(sheets.values()))
    own = [sheet for title, sheet in sheets.items() if title.casefold() == path.stem.casefold()]
    if not own:
        raise CohortError(
            f"{path.name} has the sheets {named([*sheets])}: name the right one {quoted(path.stem)}, or remove the rest"
        )
    return own[0]


def _check_formulas(path: Path, sheet: Any) -> None:
    """Check that all formulas have values: programs other than Excel may write none, and they would be empty cells.

    Raises:
        CohortError: One has none.
    """
    with sheet._get_source() as source:
        text = b""
        while block := source.read(_BLOCK):
            text = text[-_LONGEST:] + block
            if found := _UNSTORED.search(text):
                raise CohortError(
                    f"{path.name}, cell {found[1].decode()}: a formula without a stored value; open the file in Excel "
                    "and save it, which computes the formulas, or replace them by their values"
                )


def _read(path: Path, sheet: Any) -> Table:
    sheet.reset_dimensions()  # which the file may state wrongly
    header: list[str] = []
    header_row = seen = 0
    columns: list[CellsBuilder] = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    malformed: list[tuple[int, int]] = []
    latest: dict[int, int] = {}  # column -> latest day of the month of its dates
    for number, row in enumerate(sheet.iter_rows(), start=1):
        seen += max(len(row), 1)
        check_size(path, seen)
        values = [cell.value for cell in row]
        texts = [
            _percent(value) if isinstance(value, int | float) and _is_percent(cell) else _text(path, number, value)
            for cell, value in zip(row, values, strict=True)
        ]
        while texts and not texts[-1]:
            texts.pop()
        if not texts:
            continue
        if not header:
            header, header_row = texts, number
            check_names(path, header)
            columns = [CellsBuilder() for _ in header]
        elif len(texts) > len(header):
            malformed.append((number, len(texts)))
        else:
            numbers.append(number)
            for k, value in enumerate(values):
                if isinstance(value, datetime.date):  # or datetime
                    latest[k] = max(value.day, latest.get(k, 0))
            rows.append([*texts, *[""] * (len(header) - len(texts))])
            if len(rows) == BATCH:
                move_rows(rows, columns)
    if not header:
        raise CohortError(f"{path.name}: the sheet is empty")
    move_rows(rows, columns)
    cells = {name: column.cells() for name, column in zip(header, columns, strict=True)}
    for k, day in latest.items():
        if day <= _MONTHS:
            _check_dates(path, header[k], cells[header[k]])
    return Table(path.name, cells, np.array(numbers, dtype=np.int64), "row", header_row, malformed)


def _check_dates(path: Path, name: str, cells: Cells) -> None:
    """Check that Excel has not swapped day and month in a column whose dates all have a day that may be a month.

    Where it takes 01/02/2022 for another day than whoever wrote it, 31/01/2022 is no date to it, and stays text.

    Raises:
        CohortError: That is so.
    """
    slashed = [text for text in cells.texts if is_slashed(text)]
    if slashed and all(is_day_first([text]) is not None for text in slashed):
        raise CohortError(
            f"{path.name}, column {bare(name)}: Excel has probably swapped day and month, because its dates all have "
            f"days up to {_MONTHS}, and others, such as {quoted(slashed[0])}, are text; open the original file with "
            "this column as text, and write the dates as YYYY-MM-DD"
        )


def _is_percent(cell: Any) -> bool:
    """Whether a cell of a number shows it multiplied by 100, with a percent sign."""
    return not isinstance(cell.value, bool) and _has_percent(cell.number_format)


@cache
def _has_percent(number_format: str) -> bool:
    return "%" in _LITERAL.sub("", number_format)


def _percent(value: float) -> str:
    return f"{100 * value:.12g}%"


def _text(path: Path, number: int, value: Any) -> str:
    """Return a cell as text: a number as the shortest that means it, a date in the form of ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else unmistakable(repr(value))
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ") if value.time() != datetime.time() else value.date().isoformat()
    text = value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)
    if len(text) > MAX_CELL:
        raise CohortError(f"{path.name}, row {number}: a cell has more than {MAX_CELL:,} characters; shorten it")
    return text
