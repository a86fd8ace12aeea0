"""Cohorts to find peers in, made by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.retrieval import NetworkEncoder
from tests.schemas import N_INDICATORS, cohort_of

MakePatient = Callable[..., Patient]


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
    return cohort_of(*patients)


@pytest.fixture(scope="session")
def encoder(two_groups: Cohort) -> NetworkEncoder:
    """Return an encoder fitted to the first 40 patients of the two groups."""
    return NetworkEncoder.fit(two_groups[:40], seed=0, device="cpu")
