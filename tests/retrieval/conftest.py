"""Cohorts to find peers in: made by hand, simulated, and the real one of Tongji Hospital."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort.reader import read_cohort
from pmlm_env.cohort.schema import N_INDICATORS, Cohort, Patient
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.cohort.split import Split, split_by_date
from pmlm_env.retrieval import PatientEncoder

MakePatient = Callable[..., Patient]

TONGJI = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tongji_covid"


@pytest.fixture(scope="session")
def make_patient() -> MakePatient:
    """Return a function that makes a patient of check-ups a week apart, given their values, shape (n, 35)."""

    def make(values: np.ndarray, patient_id: str = "a", label: str = "x") -> Patient:
        dates = np.datetime64("2021-01-01") + 7 * np.arange(len(values))
        return Patient(patient_id, label, "", np.datetime64("2021-12-01"), dates, values)

    return make


@pytest.fixture(scope="session")
def two_groups(make_patient: MakePatient) -> Cohort:
    """Return 60 patients of 1 to 8 check-ups; in "high" ones, the first five indicators are twice the others'."""
    rng = np.random.default_rng(3)
    patients = []
    for i in range(60):
        values = rng.lognormal(2.0, 0.4, (rng.integers(1, 9), N_INDICATORS))
        values[:, :5] *= 2 if i % 2 else 1
        values[rng.random(values.shape) < 0.2] = np.nan
        patients.append(make_patient(values, f"p{i}", "high" if i % 2 else "low"))
    return Cohort(tuple(patients))


@pytest.fixture(scope="session")
def encoder(two_groups: Cohort) -> PatientEncoder:
    """Return an encoder fitted to the first 40 patients of the two groups."""
    return PatientEncoder.fit(two_groups[:40], seed=0, device="cpu")


@pytest.fixture(scope="session")
def simulated() -> Split:
    """Return the simulated cohort at full size, split as in the paper."""
    return split_by_date(simulate_cohort(2373, seed=0, signal="paper"))


@pytest.fixture(scope="session")
def tongji() -> Split:
    """Return the real patients, split by day of admission at about 70 : 30."""
    if not TONGJI.is_dir():
        pytest.skip(f"needs the shared data folder: {TONGJI.name} is not beside this checkout in shared/data")
    cohort, _ = read_cohort(TONGJI, patients="patients.csv", labs="labs_pmlm35.csv", references=False)
    return split_by_date(cohort, train_until="2020-02-08", validation_until="2020-02-08", by="admission")
