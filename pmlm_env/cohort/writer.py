"""A cohort as CSV files that read back as the same cohort."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import INDICATOR_NAMES, Cohort
from pmlm_env.cohort.sources.tables import PATIENT_COLUMNS
from pmlm_env.io.files import make_folder, replacing


def write_cohort(cohort: Cohort, folder: str | os.PathLike[str]) -> None:
    """Write patients.csv and checkups.csv (wide), which ``read_cohort`` reads back as the same cohort.

    That is so if labels have one spelling each, identifiers no spaces at the ends, and days one check-up of a patient.
    UTF-8 with LF line ends; the same cohort always gives the same bytes. Numbers are the shortest that read back
    to the same float; NaN is an empty cell; split dates are cut to the day. What ``read_cohort`` would leave out
    (a patient without check-ups, a check-up without values) is written all the same. Each file takes its place in
    one step; an interrupted run leaves no half-written file under its name.

    Args:
        cohort: The cohort.
        folder: Where to; made if need be. Files of these names are replaced.

    Raises:
        CohortError: A name in ``Patient.extra`` cannot be a column.
    """
    folder = Path(folder)
    extra = list(dict.fromkeys(name for patient in cohort for name in patient.extra))
    for name in extra:
        if name in PATIENT_COLUMNS or not name.strip():
            raise CohortError(f"Patient.extra has the name {name!r}, which cannot be a column of its own; rename it")
    people = (
        [
            patient.patient_id,
            patient.label,
            patient.reference,
            _day(patient.split_date),
            *(patient.extra.get(name, "") for name in extra),
        ]
        for patient in cohort
    )
    records = (
        [patient.patient_id, _day(day), *("" if math.isnan(value) else repr(value) for value in values)]
        for patient in cohort
        for day, values in zip(patient.dates, patient.values.tolist(), strict=True)
    )
    make_folder(folder)
    _write(folder / "patients.csv", [*PATIENT_COLUMNS, *extra], people)
    _write(folder / "checkups.csv", ["patient_id", "date", *INDICATOR_NAMES], records)


def _write(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    with replacing(path) as file:
        file.writelines((",".join(map(_cell, row)) + "\n").encode() for row in (header, *rows))


def _cell(text: str) -> str:
    # By hand, as csv.writer leaves a lone carriage return without quotes in some versions of Python.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _day(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[D]"))
