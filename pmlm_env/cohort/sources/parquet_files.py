"""Reading Parquet files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.cells import Cells, CellsBuilder
from pmlm_env.cohort.sources.table_files import (
    MAX_BYTES,
    MAX_CELL,
    Table,
    check_names,
    check_size,
    too_large,
    unmistakable,
)
from pmlm_env.cohort.wording import bare, quoted

_BATCH = 65_536


def read_parquet(path: Path) -> Table:
    """Read a Parquet file, skipping blank rows; its rows are numbered from 1.

    Raises:
        CohortError: pyarrow is not installed; it is not a Parquet file of plain columns, has unnamed or repeated
            columns, or exceeds a limit.
    """
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
        check_names(path, names)
        check_size(path, metadata.num_rows * len(names))
        size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if size > MAX_BYTES:
            raise too_large(path, f"{size:,} bytes when unpacked; at most {MAX_BYTES:,} are read")
        for name in names:  # a small file can hold a huge list
            if pa.types.is_nested(dtype := schema.field(name).type) or pa.types.is_fixed_size_binary(dtype):
                raise CohortError(
                    f"{path.name}, column {bare(name)}: contains {quoted(str(dtype))}, not text, numbers or dates"
                )
        # Read as dictionaries, because a small file can repeat one long text a million times.
        texts = [name for name in names if _is_text(schema.field(name).type)]
        columns = {name: CellsBuilder() for name in names}
        n_rows = 0
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(_BATCH, columns=names):
                n_rows += batch.num_rows
                check_size(path, n_rows * len(names))
                for name in names:
                    columns[name].extend(_as_text(path, name, batch.column(name)))
    except CohortError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        raise CohortError(f"{path.name}: not a Parquet file of plain columns ({quoted(str(error))})") from error
    cells = {name: column.cells() for name, column in columns.items()}
    table = Table(path.name, cells, np.arange(1, n_rows + 1, dtype=np.int64))
    blank = [column.spread(np.array([not text for text in column.texts], dtype=np.bool_)) for column in cells.values()]
    return table.where(~np.logical_and.reduce(blank))


def text_of(column: Any) -> Any:
    """Return an Arrow array as text: NaN is null, and a whole number has no exponent.

    Columns of identifiers become floats if some are missing, and Arrow writes 123456789012.0 as 1.23456789012e+11.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(column.type):
        return column.cast(pa.string())
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**53))
    digits = pc.if_else(whole, column, pa.scalar(0, column.type)).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, digits, column.cast(pa.string()))


def _is_text(dtype: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(dtype) for test in tests)


def _as_text(path: Path, name: str, column: Any) -> Cells:
    """Return a batch of a Parquet column as cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    dtype = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not pa.types.is_dictionary(column.type):
        column = text_of(column).dictionary_encode()
    distinct = column.dictionary.cast(pa.string())
    if (pc.max(pc.utf8_length(distinct)).as_py() or 0) > MAX_CELL:
        raise CohortError(f"{path.name}, column {bare(name)}: a cell has more than {MAX_CELL:,} characters; shorten it")
    texts = ["", *distinct.fill_null("").to_pylist()]
    if pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        texts = [*map(unmistakable, texts)]
    codes = column.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False) + 1
    return Cells(texts, codes.astype(np.int32)).take(np.arange(len(codes)))
