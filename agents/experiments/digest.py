"""A cohort's content as a short text, by which an experiment knows its patients again."""

from __future__ import annotations

import hashlib

from pmlm_env.cohort import Cohort


def cohort_digest(cohort: Cohort) -> str:
    """Return a hash of the patients: who they are, their labels, replies, dates and values."""
    digest = hashlib.sha256()
    for patient in cohort:
        digest.update(repr((patient.patient_id, patient.label, patient.reference, str(patient.split_date))).encode())
        digest.update(patient.dates.tobytes() + patient.values.tobytes())
    return digest.hexdigest()[:16]
