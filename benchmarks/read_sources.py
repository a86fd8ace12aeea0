"""Speed and memory of reading published formats: python -m benchmarks.read_sources --json FILE.

The made-up hospital of the tests, with about a million results, is written in each form and read in a process of its
own, because a process's peak memory never falls.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from pmlm_env.cohort.sources import SOURCES
from pmlm_env.io.files import write_json
from tests.cohort.sources.fhir_form import write_fhir
from tests.cohort.sources.hospital import Person, hospital
from tests.cohort.sources.meds_form import write_meds
from tests.cohort.sources.mimic_form import write_discharge_me, write_mimic
from tests.cohort.sources.omop_form import write_omop

#: People, who have two stays on average.
_PEOPLE = 2_000


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: Output file.
        rows: Results, about.
        sources: The sources.
    """

    json: Path | None = None
    rows: int = 1_000_000
    sources: tuple[str, ...] = ("mimic-iv", "discharge-me", "omop", "fhir", "meds")


@dataclass(frozen=True)
class Measured:
    """What it takes to read one form.

    Attributes:
        source: The source.
        rows: Results in the files.
        mib: Size of the files in MiB.
        seconds: CPU seconds of reading.
        peak_mib: Peak memory of the process in MiB.
    """

    source: str
    rows: int
    mib: float
    seconds: float
    peak_mib: float


def main(options: Options) -> None:
    """Write the files, read each form, and print the results."""
    people = hospital(_PEOPLE, results_per_stay=options.rows // (2 * _PEOPLE), first_year=2000)
    rows = sum(len(stay.results) for person in people for stay in person.stays)
    measured = []
    for source in options.sources:
        with tempfile.TemporaryDirectory() as name:
            kwargs = _WRITERS[source](Path(name), people)
            mib = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file()) / 2**20
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, peak = pool.apply(_read, (source, Path(name) / "data", kwargs))
        measured.append(Measured(source, rows, mib, seconds, peak))
        print(f"{source}: {mib:.0f} MiB, {seconds:.1f} s, peak memory {peak:.0f} MiB")
    if options.json is not None:
        write_json(options.json, [asdict(each) for each in measured])


def _read(source: str, folder: Path, kwargs: dict[str, Any]) -> tuple[float, float]:
    os.environ["OMP_NUM_THREADS"] = "1"
    read = SOURCES.find(source)
    start = time.process_time()
    read(folder, None, **kwargs)
    return time.process_time() - start, _peak_mib()


def _peak_mib() -> float:
    """Return the peak memory of this process; ``getrusage`` would give that of its parent, if that was higher."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / 2**10  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _write_discharge_me(root: Path, people: list[Person]) -> dict[str, Any]:
    write_discharge_me(root / "data", people)
    write_mimic(root / "mimic", people, notes=False)
    return {"mimic": str(root / "mimic")}


def _plainly(write: Callable[..., Path]) -> Callable[[Path, list[Person]], dict[str, Any]]:
    def into(root: Path, people: list[Person]) -> dict[str, Any]:
        write(root / "data", people)
        return {}

    return into


_WRITERS = {
    "mimic-iv": _plainly(write_mimic),
    "discharge-me": _write_discharge_me,
    "omop": _plainly(write_omop),
    "fhir": _plainly(write_fhir),
    "meds": _plainly(write_meds),
}


if __name__ == "__main__":
    main(tyro.cli(Options))
