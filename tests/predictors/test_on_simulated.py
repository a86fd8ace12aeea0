"""The predictor on the simulated cohort, whose labels are about as hard to tell as the paper's (Table A1)."""

from __future__ import annotations

import numpy as np
import pytest

from pmlm_env.predictors import BoostedTrees, PredictorReport, evaluate, out_of_fold_proba


@pytest.fixture(scope="module")
def on_test(simulated) -> PredictorReport:
    predictor = BoostedTrees().fit(simulated.train)
    return evaluate(predictor.predict_proba(simulated.test), predictor.labels, simulated.test.y, simulated.train.y)


def test_second_half_of_2022_is_predicted_about_as_well_as_in_the_paper(on_test) -> None:
    assert 0.75 <= on_test.micro_f1 <= 0.90


def test_probabilities_are_calibrated_to_within_a_tenth(on_test) -> None:
    assert on_test.calibration_error < 0.10


def test_training_patients_are_predicted_no_better_than_test_patients(simulated, on_test) -> None:
    proba = out_of_fold_proba(BoostedTrees, simulated.train, n_folds=3, rng=np.random.default_rng(0))
    report = evaluate(proba, np.unique(simulated.train.y), simulated.train.y, simulated.train.y)
    assert report.micro_f1 == pytest.approx(on_test.micro_f1, abs=0.05)
