"""Schemas of the tests' cohorts: the built-in one, and one of men with five indicators."""

from __future__ import annotations

from pmlm_env.cohort import OBSTETRIC, Cohort, Patient, Schema

SCHEMA = Schema.load(OBSTETRIC)
INDICATORS, LABELS = SCHEMA.indicators, SCHEMA.labels
INDICATOR_NAMES, LABEL_NAMES = SCHEMA.names, tuple(label.name for label in LABELS)
N_INDICATORS, MAX_CHECKUPS = len(INDICATORS), SCHEMA.max_checkups

#: The example of docs/cohort-format.md: a test compares them.
MEN = """\
language = "en"
templates = "general"
max_checkups = 20

indicators = [
  { name = "psa", unit = "ng/mL", low = 0, high = 10000, synonyms = ["prostate-specific antigen"] },
  { name = "creatinine", unit = "umol/L", low = 10, high = 3000, synonyms = ["crea"] },
  { name = "urate", unit = "umol/L", low = 20, high = 2000, synonyms = ["uric acid"] },
  { name = "hemoglobin", unit = "g/L", low = 20, high = 260, synonyms = ["hgb", "Hb"] },
  { name = "crp", unit = "mg/L" },
]

labels = [
  { name = "no disease", aliases = ["no abnormality", "healthy"], no_finding = true },
  { name = "gout", aliases = ["gouty arthritis"] },
  { name = "prostate cancer", aliases = ["carcinoma of the prostate"] },
]
"""


def cohort_of(*patients: Patient) -> Cohort:
    """Return a cohort of patients with the paper's indicators."""
    return Cohort(patients, SCHEMA)
