"""A cohort in one file, with a patient on each line."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from pmlm_env.cohort import OBSTETRIC, Cohort, CohortError, Patient, ReadReport
from pmlm_env.cohort.schema import Schema


def read_json_lines(path: Path, schema: Schema | None, split_by: str = "date") -> tuple[Cohort, ReadReport]:
    """Read lines such as ``{"id": "7", "date": "2022-01-31", "labs": [{"date": "2022-01-03", "hgb": 121}]}``.

    The keys ``label`` and ``reply`` may be missing, as they are for a new patient.

    Args:
        path: The file.
        schema: The indicators, with their bounds; None = the built-in ones.
        split_by: The key of the patient's date that decides whether they are in train, validation, or test.

    Raises:
        CohortError: A line is not of this form, or a value is out of bounds.
    """
    schema = schema or Schema.load(OBSTETRIC)
    patients = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            patients.append(_patient(json.loads(line), schema, split_by))
        except KeyError as error:
            raise CohortError(f"{path}, line {number}: there is no {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise CohortError(f"{path}, line {number}: {error}") from None
    values = sum(int(np.isfinite(patient.values).sum()) for patient in patients)
    cohort = Cohort(tuple(patients), schema)
    return cohort, ReadReport(len(cohort), cohort.n_checkups, values)


def _patient(row: dict[str, Any], schema: Schema, split_by: str) -> Patient:
    labs = sorted(row["labs"], key=lambda lab: lab["date"])
    values = np.full((len(labs), len(schema.indicators)), np.nan)
    for checkup, lab in enumerate(labs):
        for name in lab.keys() - {"date"}:
            column = schema.index(name)
            low, high = (bound[column] for bound in schema.bounds)
            if not low <= lab[name] <= high:
                raise ValueError(f"{name} is {lab[name]}, but {low:g} to {high:g} is possible")
            values[checkup, column] = lab[name]
    return Patient(
        patient_id=row["id"],
        label=row.get("label", ""),
        reference=row.get("reply", ""),
        split_date=np.datetime64(date.fromisoformat(row[split_by])),
        dates=np.array([date.fromisoformat(lab["date"]) for lab in labs], dtype="datetime64[D]"),
        values=values,
    )
