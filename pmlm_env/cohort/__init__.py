"""Cohorts H = {X, Y, R}: data types, reading, writing and splitting by date."""

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.naming.labels import mentioned_labels, named_labels
from pmlm_env.cohort.schema import (
    OBSTETRIC,
    SCHEMAS,
    Cohort,
    Indicator,
    Label,
    Patient,
    Schema,
)
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.sources.tables import read_cohort, read_parts
from pmlm_env.cohort.split import Split, split_by_date
from pmlm_env.cohort.writer import write_cohort, write_parts

__all__ = [
    "OBSTETRIC",
    "SCHEMAS",
    "Cohort",
    "CohortError",
    "Indicator",
    "Label",
    "Patient",
    "ReadReport",
    "Schema",
    "Split",
    "mentioned_labels",
    "named_labels",
    "read_cohort",
    "read_parts",
    "split_by_date",
    "write_cohort",
    "write_parts",
]
