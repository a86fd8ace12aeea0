"""Writing a cohort to CSV files."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.cohort.sources.assembly import PATIENT_COLUMNS, PERSON_COLUMN
from pmlm_env.cohort.sources.tables import UNFINISHED, files_of_tables, part_folders, schema_in
from pmlm_env.io.files import make_folder, replacing


def write_cohort(cohort: Cohort, folder: str | os.PathLike[str]) -> None:
    """Write patients.csv and checkups.csv (wide), which ``read_cohort`` reads back as the same cohort.

    The schema is written to schema.json, unless the folder has it.

    The round trip is exact if each label has one spelling, no identifier has surrounding spaces, and no patient has two
    check-ups on one day. Files are UTF-8 with LF line ends; the same cohort always gives the same bytes. Numbers are
    the shortest that parse to the same float; NaN is an empty cell; split dates are truncated to days. Rows that
    ``read_cohort`` would leave out (a patient without check-ups, a check-up without values) are written too. Each file
    is replaced atomically.

    Args:
        cohort: The cohort.
        folder: The target folder, created if missing. Existing files of these names are replaced.

    Raises:
        CohortError: A name in ``Patient.extra`` cannot be a column, the folder has a schema.toml of another schema, or
            it has parts, beside which tables cannot be read.
    """
    folder = Path(folder)
    persons = any(patient.person_id for patient in cohort)
    extra = list(dict.fromkeys(name for patient in cohort for name in patient.extra))
    for name in extra:
        if name in (*PATIENT_COLUMNS, PERSON_COLUMN) or not name.strip():
            raise CohortError(f"Patient.extra has the name {name!r}, which cannot be a column of its own; rename it")
    people = (
        [
            patient.patient_id,
            patient.label,
            patient.reference,
            _day(patient.split_date),
            *([patient.person_id] if persons else []),
            *(patient.extra.get(name, "") for name in extra),
        ]
        for patient in cohort
    )
    make_folder(folder)
    _refuse([path.name for path in part_folders(folder)], folder)
    if schema_in(folder) != cohort.schema:
        if (folder / "schema.toml").exists():
            raise CohortError(f"{folder / 'schema.toml'} is not the cohort's schema: remove it, or use another folder")
        cohort.schema.save(folder / "schema.json")
    header = [*PATIENT_COLUMNS, *([PERSON_COLUMN] if persons else []), *extra]
    _write(folder / "patients.csv", header, (",".join(map(_cell, row)) for row in people))
    records = (line for patient in cohort for line in _checkups(patient))
    _write(folder / "checkups.csv", ["patient_id", "date", *cohort.schema.names], records)


def write_parts(parts: Iterable[Cohort], folder: str | os.PathLike[str]) -> tuple[int, int]:
    """Write each part of a cohort as ``write_cohort`` does, into a folder of its own: ``part-00000`` and so on.

    ``read_cohort`` and ``read_parts`` read them back. Only one part has to be in memory. The parts appear when all are
    written; if the process is killed before, reading the folder is an error. Only one process may write the same folder
    at a time.

    Args:
        parts: The parts.
        folder: The folder of the parts' folders, created if missing.

    Returns:
        The numbers of patients and of check-ups.

    Raises:
        CohortError: The folder already has tables or parts, which would be read together with these.
    """
    folder = Path(folder)
    make_folder(folder)
    _refuse([*(path.name for path in part_folders(folder)), *files_of_tables(folder)], folder)
    number = n_patients = n_checkups = 0
    unfinished = folder / UNFINISHED
    try:
        make_folder(unfinished)
        for part in parts:
            write_cohort(part, unfinished / f"part-{number:05}")
            number, n_patients, n_checkups = number + 1, n_patients + len(part), n_checkups + part.n_checkups
            del part  # before the next one is made; enumerate would hold it
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # some of the parts are useless, and the disk may be full
        raise
    for path in sorted(unfinished.iterdir()):
        path.rename(folder / path.name)
    unfinished.rmdir()  # only now is the cohort read
    return n_patients, n_checkups


def _refuse(there: Sequence[str], folder: Path) -> None:
    if there:
        raise CohortError(f"{folder} already has {there[0]}: choose another folder, or remove the cohort in it")


def _write(path: Path, header: list[str], lines: Iterable[str]) -> None:
    with replacing(path) as file:
        file.writelines((line + "\n").encode() for line in chain([",".join(map(_cell, header))], lines))


def _checkups(patient: Patient) -> Iterator[str]:
    name, days = _cell(patient.patient_id), patient.dates.astype("datetime64[D]").astype(np.str_).tolist()
    for day, values in zip(days, patient.values.tolist(), strict=True):
        yield ",".join((name, day, *("" if math.isnan(value) else repr(value) for value in values)))


def _cell(text: str) -> str:
    # Not csv.writer: in some versions of Python it does not quote a lone carriage return.
    return '"' + text.replace('"', '""') + '"' if any(character in text for character in ',"\r\n') else text


def _day(date: np.datetime64) -> str:
    return str(date.astype("datetime64[D]"))
