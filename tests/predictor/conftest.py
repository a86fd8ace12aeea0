"""Cohorts to predict on: made by hand, simulated, and the real one of Tongji Hospital."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort.reader import read_cohort
from pmlm_env.cohort.schema import N_INDICATORS, Cohort, Patient
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.cohort.split import Split, split_by_date

MakePatient = Callable[..., Patient]

TONGJI = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tongji_covid"


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
    return Cohort(
        tuple(
            make_patient(f"{label}{i}", label, (0, 7), i0=list(mean + rng.random(2)), i5=list(1 + rng.random(2)))
            for i in range(15)
            for label, mean in means.items()
        )
    )


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
