"""Figures of merit, against examples worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pmlm_env.predictors.metrics import PredictorReport, brier_score, calibration_error, evaluate

LABELS = ("a", "b", "c")
#: Predicted: a a b b a. The fourth patient's c is never predicted.
PROBA = np.array([[0.8, 0.1, 0.1], [0.6, 0.4, 0.0], [0.2, 0.7, 0.1], [0.0, 0.9, 0.1], [0.5, 0.3, 0.2]])
TRUTH = np.array(["a", "b", "b", "c", "a"])
TRAINING = np.array(["b", "b", "b", "a", "c"])


def test_the_f1s_are_those_worked_by_hand() -> None:
    report = evaluate(PROBA, LABELS, TRUTH, TRAINING)
    assert report.micro_f1 == pytest.approx(3 / 5)
    # a: 2 of 3 predicted and 2 of 2 found, F1 4/5; b: 1 of 2 and 1 of 2, F1 1/2; c: 0.
    assert report.macro_f1 == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)


def test_the_brier_score_is_that_worked_by_hand() -> None:
    # 0.04+0.01+0.01, 0.36+0.36+0, 0.04+0.09+0.01, 0+0.81+0.81, 0.25+0.09+0.04
    assert brier_score(PROBA, LABELS, TRUTH) == pytest.approx((0.06 + 0.72 + 0.14 + 1.62 + 0.38) / 5)


def test_a_true_label_without_a_column_counts_as_probability_0() -> None:
    without = brier_score(np.array([[1.0]]), ("a",), np.array(["z"]))
    assert without == brier_score(np.array([[1.0, 0.0]]), ("a", "z"), np.array(["z"])) == 2


def test_the_calibration_error_is_that_worked_by_hand() -> None:
    confidence = np.array([0.9, 0.5, 0.8, 0.6])
    correct = np.array([True, False, True, True])
    # Two bins: {0.5, 0.6} right in 1/2, said 0.55; {0.8, 0.9} right in 2/2, said 0.85.
    assert calibration_error(confidence, correct, n_bins=2) == pytest.approx((0.05 + 0.15) / 2)


def test_honest_probabilities_have_little_calibration_error_and_boastful_ones_much() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1.0, 20_000)
    correct = rng.random(20_000) < confidence
    assert calibration_error(confidence, correct) < 0.02
    assert calibration_error(np.sqrt(confidence), correct) > 0.1


@pytest.mark.parametrize("n", [9, 15, 40])
def test_few_honest_predictions_do_not_seem_dishonest(n) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1.0, (200, n))
    errors = [calibration_error(row, rng.random(n) < row) for row in confidence]
    assert np.mean(errors) < 0.15  # 0.37, 0.29 and 0.17 in ten bins


def test_equal_confidences_share_a_bin_whatever_the_order() -> None:
    confidence = np.array([0.5] * 6 + [0.9] * 2)
    correct = np.array([True, True, True, False, False, False, True, False])
    order = np.random.default_rng(0).permutation(8)
    expected = (6 * 0 + 2 * 0.4) / 8
    assert calibration_error(confidence, correct, 4) == pytest.approx(expected)
    assert calibration_error(confidence[order], correct[order], 4) == pytest.approx(expected)


def test_the_baseline_says_the_most_frequent_training_label_for_everybody() -> None:
    report = evaluate(PROBA, LABELS, TRUTH, TRAINING)
    assert (report.majority, report.majority_accuracy) == ("b", pytest.approx(2 / 5))


def test_the_interval_is_wilsons() -> None:
    report = evaluate(PROBA, LABELS, TRUTH, TRAINING)
    # 3 of 5, z = 1.959964: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    assert report.interval == pytest.approx((0.2307, 0.8824), abs=1e-4)


def test_patients_without_a_label_are_counted_and_not_judged() -> None:
    truth = np.array([*TRUTH, "", ""])
    with_them = evaluate(np.vstack([PROBA, PROBA[:2]]), LABELS, truth, TRAINING)
    assert with_them == replace(evaluate(PROBA, LABELS, TRUTH, TRAINING), n_all=7)


def test_the_report_reads_as_a_sentence() -> None:
    report = PredictorReport(339, 400, 0.8172, (0.7725, 0.8548), 0.745, 0.031, 0.29, "normal", 0.261)
    assert str(report) == (
        "accuracy 81.7% [77.2%, 85.5%] on 339 of 400 patients, 26.1% by predicting 'normal' for everybody; "
        "macro-F1 74.5%, calibration error 3.1%, Brier 0.290"
    )


@pytest.mark.parametrize(
    ("proba", "truth"),
    [(PROBA[:, :2], TRUTH), (PROBA[:3], TRUTH), (PROBA[:0], TRUTH[:0]), (PROBA[:2], np.array(["", ""]))],
)
def test_shapes_that_do_not_fit_are_refused(proba, truth) -> None:
    with pytest.raises(ValueError, match="cannot evaluate probabilities of shape"):
        evaluate(proba, LABELS, truth, TRAINING)
