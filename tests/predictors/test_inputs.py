"""Standardizing check-ups: any real value has a place, and positive ones the one that they always had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pmlm_env.cohort import Cohort, Indicator, Patient, Schema
from pmlm_env.predictors import PREDICTORS
from pmlm_env.predictors.inputs import CLIP, InputScaler
from pmlm_env.retrieval.encoder import NetworkEncoder

SCHEMA = Schema((Indicator("base_excess", "mmol/L", low=-60, high=60), Indicator("alt", "U/L")), max_checkups=4)


def cohort_of(values: np.ndarray) -> Cohort:
    """Return patients with one check-up each; the label is whether the first value is negative."""
    day = np.array(["2021-01-01"], "datetime64[D]")
    return Cohort(
        tuple(
            Patient(f"P{i}", "deficit" if row[0] < 0 else "excess", "", day[0], day, row[None, :])
            for i, row in enumerate(values)
        ),
        SCHEMA,
    )


def gases(n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.normal(-2, 6, n), rng.lognormal(3, 1, n)])


@given(arrays(np.float64, st.integers(1, 20), elements=st.just(0.0) | st.floats(1e-9, 1e15)))
def test_positive_columns_are_as_they_were_to_the_last_digit(column: np.ndarray) -> None:
    values = np.column_stack([column, column])
    scaler = InputScaler.fit(cohort_of(values))
    median = np.median(column) if np.median(column) > 0 else column.mean() or 1.0
    logs = np.log1p(column / median)
    sd = logs.std() if logs.std() > 1e-9 else 1.0
    np.testing.assert_array_equal(scaler.transform(values)[:, 0], np.clip((logs - logs.mean()) / sd, -CLIP, CLIP))


@settings(max_examples=50)
@given(arrays(np.float64, st.integers(2, 20), elements=st.floats(-1e15, 1e15)))
def test_any_real_value_is_finite_and_keeps_its_order(column: np.ndarray) -> None:
    values = np.column_stack([column, np.ones(len(column))])
    scaled = InputScaler.fit(cohort_of(values)).transform(values)[:, 0]
    assert np.isfinite(scaled).all()
    assert (np.diff(scaled[np.argsort(column)]) >= 0).all()


@given(arrays(np.float64, st.integers(2, 20), elements=st.floats(-1e6, 1e6)))
def test_values_of_the_other_sign_are_mirrored(column: np.ndarray) -> None:
    values, mirrored = (np.column_stack([each, np.ones(len(column))]) for each in (column, -column))
    first, second = (InputScaler.fit(cohort_of(each)).transform(each)[:, 0] for each in (values, mirrored))
    np.testing.assert_allclose(first, -second, atol=1e-9)


def test_a_value_below_those_of_training_is_far_below_them() -> None:
    scaler = InputScaler.fit(cohort_of(np.column_stack([np.linspace(1, 9, 40), np.ones(40)])))
    new = scaler.transform(np.array([[-30.0, 1.0], [0.0, 1.0], [1.0, 1.0]]))[:, 0]
    assert new[0] < new[1] < new[2] < 0


def test_missing_values_stay_missing() -> None:
    scaler = InputScaler.fit(cohort_of(gases()))
    assert np.isnan(scaler.transform(np.array([[np.nan, 20.0]]))).tolist() == [[True, False]]


def test_a_scaler_is_read_back_as_it_was(tmp_path: Path) -> None:
    values = gases()
    scaler = InputScaler.fit(cohort_of(values))
    scaler.save(tmp_path / "scaler.safetensors")
    again = InputScaler.load(tmp_path / "scaler.safetensors", 2, "prepare it again")
    np.testing.assert_array_equal(again.transform(values), scaler.transform(values))


@pytest.mark.parametrize("predictor", ["boosted-trees", "logistic", "cnn"])
def test_predictors_and_the_patient_encoder_learn_from_negative_values(predictor: str) -> None:
    cohort = cohort_of(gases(120))
    model = PREDICTORS.make(predictor, offered={"seed": 0, "device": "cpu"}).fit(cohort[:90])
    assert np.isfinite(model.predict_proba(cohort)).all()
    assert np.mean(model.predict(cohort[90:]) == cohort[90:].y) > 0.7
    vectors = NetworkEncoder.fit(cohort[:90], seed=0, device="cpu").encode(cohort)
    assert np.isfinite(vectors).all()
