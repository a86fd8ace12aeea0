"""Temperature scaling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from pmlm_env.predictors.calibration import at_temperature, fit_temperature
from pmlm_env.predictors.metrics import brier_score, calibration_error

LABELS = ("a", "b", "c", "d")


def honest(n: int, seed: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Probabilities, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    proba = softmax(rng.normal(0, 1.5, (n, 4)), axis=1)
    return proba, np.array(LABELS)[(proba.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_would_undo_overconfidence_is_found(temperature) -> None:
    proba, truth = honest(20_000)
    assert fit_temperature(at_temperature(proba, 1 / temperature), LABELS, truth) == pytest.approx(
        temperature, rel=0.05
    )


def test_probabilities_at_a_temperature_are_those_worked_by_hand() -> None:
    # sqrt(0.64) : sqrt(0.16) : sqrt(0.04) = 4 : 2 : 1, and the fourth, 0.16, 2
    np.testing.assert_allclose(at_temperature(np.array([[0.64, 0.16, 0.04, 0.16]]), 2), [[4 / 9, 2 / 9, 1 / 9, 2 / 9]])


def test_overconfident_predictions_become_honest_on_other_patients() -> None:
    fitted, other = honest(300), honest(5_000, seed=1)
    temperature = fit_temperature(at_temperature(fitted[0], 0.3), LABELS, fitted[1])
    before = at_temperature(other[0], 0.3)
    after = at_temperature(before, temperature)
    right = np.array(LABELS)[before.argmax(axis=1)] == other[1]
    assert calibration_error(before.max(axis=1), right) > 0.15
    assert calibration_error(after.max(axis=1), right) < 0.05
    assert brier_score(after, LABELS, other[1]) < brier_score(before, LABELS, other[1]) - 0.05


@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_the_order_of_the_labels_never_changes(seed, temperature) -> None:
    proba = np.random.default_rng(seed).dirichlet(np.ones(4), 20)
    scaled = at_temperature(proba, temperature)
    assert (scaled.argmax(axis=1) == proba.argmax(axis=1)).all()
    np.testing.assert_allclose(scaled.sum(axis=1), 1)


def test_a_probability_of_0_stays_0() -> None:
    assert at_temperature(np.array([[0.7, 0.3, 0.0, 0.0]]), 5)[0, 2:].tolist() == [0, 0]
    assert at_temperature(np.array([[1.0, 0.0, 0.0, 0.0]]), 5).tolist() == [[1, 0, 0, 0]]


def test_a_label_that_no_temperature_makes_possible_is_left_out() -> None:
    proba, truth = honest(500)
    proba[:50] = [0.9, 0.1, 0.0, 0.0]
    truth[:25], truth[25:50] = "d", "unheard of"
    assert fit_temperature(proba, LABELS, truth) == fit_temperature(proba[50:], LABELS, truth[50:])
    assert fit_temperature(proba[:50], LABELS, truth[:50]) == 1


def test_a_few_right_predictions_make_nobody_certain() -> None:
    proba = np.tile([0.7, 0.1, 0.1, 0.1], (5, 1))
    temperature = fit_temperature(proba, LABELS, np.array(["a"] * 5))
    assert 0.7 < at_temperature(proba, temperature)[0, 0] < 0.97
