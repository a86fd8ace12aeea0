"""Schemas of the tests' cohorts: the built-in one, and one of men with five indicators."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pmlm_env.cohort import OBSTETRIC, Cohort, Patient, Schema

SCHEMA = Schema.load(OBSTETRIC)
INDICATORS, LABELS = SCHEMA.indicators, SCHEMA.labels
INDICATOR_NAMES, LABEL_NAMES = SCHEMA.names, tuple(label.name for label in LABELS)
N_INDICATORS, MAX_CHECKUPS = len(INDICATORS), SCHEMA.max_checkups

#: The example of docs/schema.md: a test compares them.
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


def write_men(folder: Path, n: int = 60) -> Path:
    """Write tables of ``n`` men, the schema ``MEN`` and their labels, which their PSA and urate show."""
    rng = np.random.default_rng(0)
    people, checkups = ["patient_id,label,reference,split_date"], ["patient_id,date,psa,creatinine,urate,Hb,crp"]
    for i in range(n):
        label = ("no disease", "gout", "prostate cancer")[i % 3]
        year = 2021 if i < 2 * n // 3 else 2022
        reply = f"Diagnosis: {label}. Advice: come back in {1 + i % 6} months."
        people.append(f"M{i},{label},{reply},{year}-12-{1 + i % 28:02}")
        for day in range(1, 2 + i % 4):
            levels = (30 if i % 3 == 2 else 1, 80, 600 if i % 3 == 1 else 300, 140, 5)
            values = (f"{level * factor:.1f}" for level, factor in zip(levels, rng.lognormal(0, 0.1, 5), strict=True))
            checkups.append(f"M{i},{year}-01-{day:02},{','.join(values)}")
    folder.mkdir(exist_ok=True)
    for name, lines in (("patients.csv", people), ("checkups.csv", checkups), ("schema.toml", [MEN])):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
