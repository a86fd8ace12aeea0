"""Short texts by which an experiment knows its patients and settings again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from pmlm_env.cohort import Cohort


def digest(content: Any) -> str:
    """Return a hash of JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def cohort_digest(cohort: Cohort) -> str:
    """Return a hash of everything that prompts are made from: the patients with all their columns, and their schema."""
    columns = [[patient.person_id, *sorted(patient.extra.items())] for patient in cohort]
    schema = {name: value for name, value in asdict(cohort.schema).items() if name != "ignored"}
    content = [values_digest(cohort), columns, schema]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def values_digest(cohort: Cohort) -> str:
    """Return a hash of what predictors learn from: the patients' names, labels, replies, dates and values."""
    hashed = hashlib.sha256()
    for patient in cohort:
        hashed.update(repr((patient.patient_id, patient.label, patient.reference, str(patient.split_date))).encode())
        hashed.update(patient.dates.tobytes() + patient.values.tobytes())
    return hashed.hexdigest()[:16]
