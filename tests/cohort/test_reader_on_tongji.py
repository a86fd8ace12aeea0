"""read_cohort on real patients as they lie (Tongji Hospital, Wuhan, 2020; doi 10.1038/s42256-020-0180-7)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pmlm_env.cohort import read_cohort
from tests.schemas import INDICATOR_NAMES

TONGJI = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tongji_covid"
pytestmark = pytest.mark.skipif(
    not TONGJI.is_dir(), reason="needs the shared data folder: ../shared/data/tongji_covid next to the repository"
)


def test_tongji_has_360_patients_with_labs_and_names_the_15_without() -> None:
    cohort, report = read_cohort(TONGJI, labs="labs_pmlm35.csv", references=False, keep_later=True)
    patients = pd.read_csv(TONGJI / "patients.csv")["patient_id"]
    measured = pd.read_csv(TONGJI / "labs_pmlm35.csv")["patient_id"]
    assert len(patients) == 375
    assert [patient.patient_id for patient in cohort] == patients[patients.isin(measured)].tolist()
    assert report.patients_without_checkups == tuple(patients[~patients.isin(measured)])
    assert len(report.patients_without_checkups) == 15
    assert report.dropped == {}


def test_tongji_long_equals_wide() -> None:
    long, _ = read_cohort(TONGJI, labs="labs_pmlm35.csv", references=False, keep_later=True)
    wide, _ = read_cohort(TONGJI, checkups="panel_by_day_pmlm35.csv", references=False, keep_later=True)
    assert [patient.dates.tolist() for patient in long] == [patient.dates.tolist() for patient in wide]
    for a, b in zip(long, wide, strict=True):
        np.testing.assert_allclose(a.values, b.values, rtol=1e-12)


def test_tongji_has_as_many_patients_an_indicator_as_its_coverage_says() -> None:
    cohort, _ = read_cohort(TONGJI, labs="labs_pmlm35.csv", references=False, keep_later=True)
    coverage = json.loads((TONGJI / "coverage.json").read_text())["coverage"]
    measured = np.sum([~np.isnan(patient.values).all(axis=0) for patient in cohort], axis=0)
    expected = [coverage[name][1] for name in INDICATOR_NAMES]
    assert measured.tolist() == expected
