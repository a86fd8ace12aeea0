"""Reading a table by the form of its file, which its name tells."""

from __future__ import annotations

from pathlib import Path

from pmlm_env.cohort.sources.csv_files import read_csv
from pmlm_env.cohort.sources.parquet_files import read_parquet
from pmlm_env.cohort.sources.table_files import MAX_BYTES, Table, too_large
from pmlm_env.cohort.sources.xlsx_files import read_xlsx

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".xlsx")


def suffix_of(path: Path) -> str:
    """Return which of ``SUFFIXES`` a name ends in, in any letter case; "" if none."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def read_table(path: Path, encoding: str | None = None) -> Table:
    """Read a file as text, skipping blank rows.

    Args:
        path: The file; its name ends in one of ``SUFFIXES``.
        encoding: The encoding of the text of CSV and TSV files; see ``read_csv``.

    Raises:
        CohortError: The file is not of the form that its name tells, has no header, has unnamed or repeated columns, or
            exceeds a limit.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise too_large(path, f"{size:,} bytes; at most {MAX_BYTES:,} are read")
    if path.suffix.lower() == ".parquet":
        return read_parquet(path)
    return read_xlsx(path) if path.suffix.lower() == ".xlsx" else read_csv(path, encoding)
