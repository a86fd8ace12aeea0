"""What the patient encoder reads."""

from __future__ import annotations

import numpy as np
import pytest

from pmlm_env.predictors.inputs import CLIP, InputScaler
from tests.schemas import MAX_CHECKUPS, N_INDICATORS, cohort_of


@pytest.fixture(scope="module")
def scaler(two_groups) -> InputScaler:
    return InputScaler.fit(two_groups)


def test_measured_values_of_the_training_patients_are_standardised(scaler, two_groups) -> None:
    padded = scaler.pad(two_groups)
    for j in range(N_INDICATORS):
        measured = padded[:, 0, :, j][padded[:, 1, :, j] == 1]
        assert measured.mean() == pytest.approx(0, abs=1e-5)
        assert measured.std() == pytest.approx(1, abs=1e-5)


def test_a_mean_value_a_gap_and_padding_have_different_marks(scaler, make_patient) -> None:
    mean_value = scaler.median * np.expm1(scaler.mean)
    values = np.stack([mean_value, mean_value])
    values[0, 3] = np.nan
    padded = scaler.pad(cohort_of(make_patient(values)))[0]
    np.testing.assert_allclose(padded[0], 0, atol=1e-6)
    assert (padded[1, 0, 3], padded[1, 1, 3], padded[1, 2, 3]) == (1, -1, 0)


def test_the_latest_check_up_comes_first(scaler, make_patient) -> None:
    values = np.tile(scaler.median, (3, 1)) * np.array([[1.0], [2.0], [3.0]])
    padded = scaler.pad(cohort_of(make_patient(values)))[0, 0]
    np.testing.assert_allclose(padded[:3], scaler.transform(values)[::-1], rtol=1e-5)
    assert (padded[3:] == 0).all()


def test_of_too_many_check_ups_the_latest_are_taken(scaler, make_patient) -> None:
    values = np.random.default_rng(0).lognormal(2, 0.3, (60, N_INDICATORS))
    all_of_them, latest = (scaler.pad(cohort_of(make_patient(v))) for v in (values, values[-MAX_CHECKUPS:]))
    assert (all_of_them == latest).all()
    assert (all_of_them[0, 1] == 1).all()


def test_an_indicator_never_measured_in_training_counts_as_not_measured(two_groups, make_patient) -> None:
    blind = [make_patient(np.where(np.arange(N_INDICATORS) == 7, np.nan, p.values), p.patient_id) for p in two_groups]
    padded = InputScaler.fit(cohort_of(*blind)).pad(cohort_of(make_patient(np.full((1, N_INDICATORS), 9.0))))[0]
    assert (padded[0, 0, 7], padded[1, 0, 7]) == (0, -1)
    assert (padded[1, 0] == 1).sum() == N_INDICATORS - 1


def test_wild_values_are_held_in(scaler, make_patient) -> None:
    padded = scaler.pad(cohort_of(make_patient(np.full((1, N_INDICATORS), 1e9))))
    assert padded.max() == CLIP


def test_zeros_and_constants_can_be_scaled(make_patient) -> None:
    values = np.zeros((4, N_INDICATORS))
    values[:, 1] = 5.0
    values[3, 2] = 1.0  # median 0, but not all 0
    cohort = cohort_of(make_patient(values))
    padded = InputScaler.fit(cohort).pad(cohort)
    assert np.isfinite(padded).all()
    assert (padded[0, 0, :, :2] == 0).all()
    assert padded[0, 0, 0, 2] > padded[0, 0, 1, 2]
