"""Reading a table by the form of its file, which its name tells."""

from __future__ import annotations

from pathlib import Path

from pmlm_env.cohort.sources.csv_files import read_csv
from pmlm_env.cohort.sources.parquet_files import read_parquet
from pmlm_env.cohort.sources.table_files import MAX_BYTES, Table, too_large

SUFFIXES = (".csv", ".parquet")


def read_table(path: Path) -> Table:
    """Read a file as text, skipping blank rows.

    Raises:
        CohortError: The file is not of the form that its name tells, has no header, has unnamed or repeated columns, or
            exceeds a limit.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise too_large(path, f"{size:,} bytes; at most {MAX_BYTES:,} are read")
    return read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path)
