"""Cohorts to predict on, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.predictors import boosted
from pmlm_env.predictors.series import network
from tests.schemas import N_INDICATORS, SCHEMA, cohort_of

MakePatient = Callable[..., Patient]


@pytest.fixture
def make_patient() -> MakePatient:
    """Return a function that makes a patient from the days of her check-ups and the values of some indicators."""

    def make(patient_id: str = "a", label: str = "x", days: tuple[int, ...] = (0,), **columns: list[float]) -> Patient:
        values = np.full((len(days), N_INDICATORS), np.nan)
        for column, numbers in columns.items():
            values[:, int(column.removeprefix("i"))] = numbers
        dates = np.datetime64("2021-01-01") + np.array(days, dtype="timedelta64[D]")
        return Patient(patient_id, label, "", np.datetime64("2021-12-01"), dates, values)

    return make


@pytest.fixture
def two_groups(make_patient: MakePatient) -> Cohort:
    """Return 30 patients told apart by indicator 0: "high" about 10, "low" about 1."""
    rng = np.random.default_rng(3)
    means = {"high": 10.0, "low": 1.0}
    return cohort_of(
        *(
            make_patient(f"{label}{i}", label, (0, 7), i0=list(mean + rng.random(2)), i5=list(1 + rng.random(2)))
            for i in range(15)
            for label, mean in means.items()
        )
    )


MakeGroups = Callable[..., Cohort]


@pytest.fixture
def make_groups(make_patient: MakePatient) -> MakeGroups:
    """Return a function that makes patients of several labels, each with an indicator of its own that is high.

    Histories are padded to 12 check-ups only, which saves time.
    """

    def make(n_labels: int = 4, n_each: int = 12, seed: int = 0) -> Cohort:
        rng = np.random.default_rng(seed)
        patients = []
        for i in range(n_each):
            for label in range(n_labels):
                days = tuple(range(0, 7 * int(rng.integers(2, 6)), 7))
                values = 1 + 0.2 * rng.random((8, len(days)))
                values[label % 8] *= 5 + label // 8
                columns = {f"i{j}": list(values[j]) for j in range(8)}
                patients.append(make_patient(f"p{i}-{label}-{seed}", f"label {label:02}", days, **columns))
        return Cohort(tuple(patients), replace(SCHEMA, max_checkups=12))

    return make


@pytest.fixture(scope="module")
def short_training() -> Iterator[None]:
    """Let predictors learn in a moment: what these tests ask for is easy."""
    settings = replace(network.SETTINGS, learning_rate=0.01, max_epochs=15)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "SETTINGS", settings)
        patch.setattr(boosted, "N_ITERATIONS", 30)
        yield
