"""Speed and memory of reading tables: python -m benchmarks.read_tables --json FILE.

A long table of results of the 35 indicators of ``obstetric``, each with a date, a time and a unit, as a laboratory
exports them, and its patients. Each form of file is read in a process of its own, because a process's peak memory never
falls.
"""

from __future__ import annotations

import gzip
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from pmlm_env.cohort import OBSTETRIC, Schema, read_cohort
from pmlm_env.io.files import write_json

_PATIENTS = 2_000
_FORMS = ("csv", "csv.gz", "parquet")


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: Output file.
        rows: Rows of the table.
        forms: Forms of the file; xlsx, too, but to write and read a million rows takes many minutes.
    """

    json: Path | None = None
    rows: int = 1_000_000
    forms: tuple[str, ...] = _FORMS


@dataclass(frozen=True)
class Result:
    """What it takes to read one form.

    Attributes:
        form: The form of the file.
        rows: Its rows.
        mib: Its size in MiB.
        seconds: CPU seconds of ``read_cohort``.
        peak_mib: Peak memory of the process in MiB.
    """

    form: str
    rows: int
    mib: float
    seconds: float
    peak_mib: float


def main(options: Options) -> None:
    """Write the files, read each, and print the results."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        csv = _write_csv(Path(folder), options.rows)
        for form in options.forms:
            path = _WRITERS[form](csv)
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                seconds, peak = pool.apply(_read, (path,))
            results.append(Result(form, options.rows, path.stat().st_size / 2**20, seconds, peak))
            print(f"{form}: {results[-1].mib:.0f} MiB, {seconds:.1f} s, peak memory {peak:.0f} MiB")
            if path != csv:
                path.unlink()
    if options.json is not None:
        write_json(options.json, [asdict(result) for result in results])


def _write_csv(folder: Path, rows: int) -> Path:
    rng = np.random.default_rng(0)
    indicators = Schema.load(OBSTETRIC).indicators
    labels = [label.name for label in Schema.load(OBSTETRIC).labels]
    with (folder / "patients.csv").open("w", encoding="utf-8") as file:
        file.write("patient_id,label,reference,split_date\n")
        file.writelines(f"P{i:05},{labels[i % len(labels)]},Rest.,2022-12-31\n" for i in range(_PATIENTS))
    patient, which = rng.integers(_PATIENTS, size=rows), rng.integers(len(indicators), size=rows)
    moment = np.datetime64("2019-01-01T00:00:00") + rng.integers(4 * 365 * 86_400, size=rows)
    low, high = (np.array([getattr(each, end) for each in indicators], dtype=float) for end in ("low", "high"))
    value = np.round(low[which] + (high - low)[which] * rng.beta(2, 8, size=rows), 2).clip(low[which], high[which])
    path = folder / "labs.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("patient_id,date,indicator,value,unit\n")
        for p, t, k, v in zip(
            patient.tolist(), moment.astype(str).tolist(), which.tolist(), value.tolist(), strict=True
        ):
            file.write(f"P{p:05},{t.replace('T', ' ')},{indicators[k].name},{v:g},{indicators[k].unit}\n")
    return path


def _to_gzip(csv: Path) -> Path:
    path = csv.with_name("labs.csv.gz")
    path.write_bytes(gzip.compress(csv.read_bytes(), compresslevel=6))
    return path


def _to_parquet(csv: Path) -> Path:
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    path = csv.with_name("labs.parquet")
    parquet.write_table(arrow_csv.read_csv(csv), path)
    return path


def _to_xlsx(csv: Path) -> Path:
    import openpyxl

    path = csv.with_name("labs.xlsx")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("labs")
    with csv.open(encoding="utf-8") as file:
        for number, line in zip(range(_XLSX_ROWS), file, strict=False):
            cells: list[str | float] = [*line.rstrip("\n").split(",")]
            sheet.append(cells if number == 0 else [*cells[:3], float(cells[3]), cells[4]])
    book.save(path)
    return path


#: Rows of a sheet, at most (Excel's limit).
_XLSX_ROWS = 2**20
_WRITERS: dict[str, Callable[[Path], Path]] = {
    "csv": lambda csv: csv,
    "csv.gz": _to_gzip,
    "parquet": _to_parquet,
    "xlsx": _to_xlsx,
}


def _read(path: Path) -> tuple[float, float]:
    os.environ["OMP_NUM_THREADS"] = "1"
    start = time.process_time()
    read_cohort(path.parent, labs=path.name)
    seconds = time.process_time() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main(tyro.cli(Options))
