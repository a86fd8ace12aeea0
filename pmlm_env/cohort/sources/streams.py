"""Reading the tables of a published data set batch by batch, as text, so that memory does not grow with the file.

A table is one file (``admissions.csv.gz``) or a folder of parts (``measurement/part-0.parquet``), anywhere in the
folder of the data set. Names of files and columns may have any letter case.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, is_slashed, parse_datetimes
from pmlm_env.cohort.sources.cells import Cells
from pmlm_env.cohort.sources.parquet_files import text_of
from pmlm_env.cohort.wording import bare, named, quoted, suggestion

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes of CSV that are parsed at a time. A row is never longer than this.
_BLOCK = 2**25
_ROWS = 65_536
#: Cells that mean that there is no value, as databases export them, and as R and pandas do.
_EMPTY, _MARKERS = ("", "NULL", "\\N"), ("NA", "<NA>", "NaN", "nan", "NaT")
#: The column in which NA is a name: that of sodium.
_NAMES = "measurement_source_value"
#: How the names of columns of dates end, and how a date begins that can be compared as text.
_DATES, _ISO = ("date", "time"), r"^\s*(?:\d{4}-\d\d-\d\d|$)"
#: The first bytes of a file that are searched for the header.
_HEADER = 2**20
#: Limit on the rows that are kept of all tables together; a row takes about 50 bytes.
MAX_ROWS = 50_000_000


@dataclass
class StreamedTable:
    """One table of a data set.

    Attributes:
        name: What the data set calls it, for messages.
        paths: Its files, in order.
        malformed: Rows with the wrong number of cells, which were left out when it was read last.
    """

    name: str
    paths: Sequence[Path]
    malformed: int = field(default=0, compare=False)

    def batches(
        self, needed: Sequence[str], optional: Sequence[str] = (), aliases: Mapping[str, str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows as tables of the given columns, in this order; every cell is text, an empty one "".

        Dates and times are in the form of ISO 8601, so that they can be compared as text; "" where they are none.

        Args:
            needed: Names of columns, in lower case.
            optional: Names of columns that may be missing; their cells are then "".
            aliases: Other name of a column -> its name here.

        Raises:
            CohortError: A file lacks a column, or cannot be read, or has a date of which day and month cannot be told
                apart; or more than half of the rows have the wrong number of cells.
        """
        self.malformed, n_rows = 0, 0
        for path in self.paths:
            names = _names_of(path)
            known = {(aliases or {}).get(name.strip().lower(), name.strip().lower()): name for name in reversed(names)}
            missing = [name for name in needed if name not in known]
            if missing:
                hints = "; ".join(f"no column {name!r}{suggestion(name, list(known))}" for name in missing)
                raise CohortError(
                    f"{path.name}, header, {hints}. Found: {named(list(known), shown=50)}. Is it the table {self.name}?"
                )
            chosen = {name: known[name] for name in (*needed, *optional) if name in known}
            for batch in self._read(path, list(chosen.values())):
                n_rows += batch.num_rows
                yield _with_iso_dates(path, _as_text(path, batch, chosen, (*needed, *optional)), chosen)

        if self.malformed > n_rows:
            raise CohortError(
                f"{self.name}: {self.malformed:,} of {self.malformed + n_rows:,} rows have too few or too many cells: "
                'that is too much to drop; put cells that contain commas or line breaks in double quotes ("...")'
            )

    def rows(
        self, needed: Sequence[str], optional: Sequence[str] = (), aliases: Mapping[str, str] | None = None
    ) -> Iterator[tuple[str, ...]]:
        """Yield the rows as tuples of stripped text; see ``batches``."""
        for batch in self.batches(needed, optional, aliases):
            yield from zip(*(map(str.strip, column.to_pylist()) for column in batch.columns), strict=True)

    def _read(self, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with readable(path):
            if path.name.lower().endswith(".parquet"):
                import pyarrow.parquet as pq

                with pq.ParquetFile(path) as file:
                    yield from file.iter_batches(_ROWS, columns=columns)
                return
            import pyarrow as pa
            import pyarrow.csv as pc

            mark, quoting = _dialect(path)
            compression = "gzip" if path.name.lower().endswith(".gz") else None
            with pa.input_stream(str(path), compression=compression) as stream:
                yield from pc.open_csv(
                    stream,
                    pc.ReadOptions(use_threads=False, block_size=_BLOCK),
                    pc.ParseOptions(
                        delimiter=mark,
                        quote_char='"' if quoting else False,
                        newlines_in_values=quoting,
                        invalid_row_handler=self._skip,
                    ),
                    pc.ConvertOptions(
                        include_columns=columns,
                        column_types=dict.fromkeys(columns, pa.string()),
                        null_values=_EMPTY,
                        strings_can_be_null=True,
                    ),
                )

    def _skip(self, row: Any) -> str:
        self.malformed += 1
        return "skip"


class Columns:
    """Collects the rows that a source keeps, column by column; equal texts take memory once.

    Args:
        names: The columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start without rows."""
        self.names = tuple(names)
        self.n_rows = 0
        self._parts: dict[str, list[pa.Array]] = {name: [] for name in self.names}

    def add(self, columns: Mapping[str, Sequence[str] | pa.Array]) -> None:
        """Append rows; a column that is not given is empty.

        Raises:
            CohortError: There are too many rows.
        """
        import pyarrow as pa

        n = len(next(iter(columns.values())))
        if not n:
            return
        self.n_rows += n
        if self.n_rows > MAX_ROWS:
            raise CohortError(
                f"there are more than {MAX_ROWS:,} results of these patients: read fewer people with "
                """--source-kwargs '{"people": 1000}'"""
            )
        for name, parts in self._parts.items():
            values = columns[name] if name in columns else pa.repeat("", n)
            array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, pa.string())
            for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else (array,):
                parts.append(chunk.dictionary_encode())

    def cells(self) -> dict[str, Cells]:
        """Return the columns."""
        import pyarrow as pa

        found = {}
        for name, parts in self._parts.items():
            whole = pa.chunked_array(parts, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries()
            texts = whole.chunk(0).dictionary.to_pylist() if whole.num_chunks else []
            codes = [chunk.indices.to_numpy() for chunk in whole.chunks]
            found[name] = Cells(texts, np.concatenate(codes) if codes else np.empty(0, np.int32))
        return found


def require_pyarrow() -> None:
    """Check that pyarrow is installed.

    Raises:
        CohortError: It is not.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise CohortError("this source needs pyarrow: pip install 'pmlm-env[parquet]'") from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged file into one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError, MemoryError) as error:
        why = " ".join(str(error).split())
        if "UTF8" in why or "codec" in why:
            why = "it has bytes that are not UTF-8; save it as UTF-8"
        elif "straddling" in why:
            why = f"a row is longer than {_BLOCK:,} bytes; check the double quotes"
        raise CohortError(f"{path.name} cannot be read: {quoted(why)}") from error


def _names_of(path: Path) -> list[str]:
    """Return the names of the columns as they are written."""
    if path.name.lower().endswith(".parquet"):
        import pyarrow.parquet as pq

        with readable(path), pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    mark, quoting = _dialect(path)
    line = _first_line(path)
    return next(csv.reader([line], delimiter=mark, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE), [])


def _dialect(path: Path) -> tuple[str, bool]:
    """Return the separator of a text file, and whether cells may be quoted.

    The vocabulary files of OHDSI Athena are separated by tabs and have quotation marks that mean nothing.
    """
    line = _first_line(path)
    mark = max(",\t;|", key=line.count)
    return mark, mark != "\t" or '"' in line


def _first_line(path: Path) -> str:
    with readable(path):
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            line = file.readline(_HEADER).decode("utf-8-sig")
    if not line.strip():
        raise CohortError(f"{path.name}: the file has no header")
    return line.rstrip("\r\n")


def _as_text(path: Path, batch: pa.RecordBatch, chosen: Mapping[str, str], names: Sequence[str]) -> pa.Table:
    """Return the columns of a batch as text, in the order of their names here.

    Raises:
        CohortError: A column has lists or other values that are not text, numbers or dates.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = []
    for name in names:
        if name not in chosen:
            columns.append(pa.repeat("", batch.num_rows))
            continue
        column = batch.column(chosen[name])
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_nested(column.type):
            raise CohortError(
                f"{path.name}, column {bare(chosen[name])}: contains {quoted(str(column.type))}, not text, numbers or "
                "dates; write one value in each cell"
            )
        with readable(path):
            column = pc.fill_null(text_of(column), "")
        if name != _NAMES:
            column = pc.if_else(pc.is_in(column, value_set=pa.array(_MARKERS, pa.string())), "", column)
        columns.append(column)
    return pa.table(columns, names=list(names))


def _with_iso_dates(path: Path, table: pa.Table, chosen: Mapping[str, str]) -> pa.Table:
    """Return a table with the columns of dates, which their names tell, in the form of ISO 8601."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for position, name in enumerate(table.column_names):
        if name not in chosen or not name.endswith(_DATES):
            continue
        texts = table[name]
        if pc.all(pc.match_substring_regex(texts, _ISO)).as_py() is not False:
            continue
        known = {text: _iso(path, chosen[name], text) for text in pc.unique(texts).to_pylist()}
        table = table.set_column(position, name, translated(texts, known).cast(pa.string()))
    return table


def _iso(path: Path, column: str, text: str) -> str:
    """Return a date, with or without a time, in the form of ISO 8601; "" if it is none.

    Raises:
        CohortError: Its day and month cannot be told apart.
    """
    if re.match(_ISO, text):
        return text
    if is_slashed(text):
        raise CohortError(
            f"{path.name}, column {bare(column)}: {quoted(text)} may have the day or the month first; write the dates "
            f"of this column as {DATE_FORMAT}"
        )
    moment = parse_datetimes([text])[0]
    return "" if np.isnat(moment) else str(moment.astype("datetime64[s]")).replace("T", " ").removesuffix(" 00:00:00")


def identifier(text: str) -> str:
    """Return an identifier or whole number without the ".0" that pandas adds to a column with gaps."""
    return text[:-2] if text.endswith(".0") else text


def whole_numbers(column: pa.Array) -> pa.Array:
    """Return a column of identifiers without the surrounding spaces and ".0"; see ``identifier``."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(pc.utf8_trim_whitespace(column), r"^(-?\d+)\.0+$", r"\1")


def translated(column: pa.Array | pa.ChunkedArray, names: Mapping[str, str]) -> pa.ChunkedArray:
    """Return the name of each text, "" if it has none."""
    import pyarrow as pa

    parts = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        coded = chunk.dictionary_encode()
        known = pa.array([names.get(text, "") for text in coded.dictionary.to_pylist()], pa.string())
        parts.append(known.take(coded.indices))
    return pa.chunked_array(parts, pa.string())
