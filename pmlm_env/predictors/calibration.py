"""Temperature scaling: confidence that matches accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

#: The range of temperatures.
LOWEST, HIGHEST = 0.01, 100.0


def at_temperature(proba: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Return softmax(log p / T) of each patient's probabilities (Guo et al., ICML 2017, Eq. 9).

    Above 1, a temperature lowers the confidence, below 1 it raises it. The order of the labels never changes.

    Args:
        proba: Probabilities, shape (N, n_labels).
        temperature: T, positive.
    """
    if temperature == 1.0:
        return proba
    with np.errstate(divide="ignore"):  # a probability of 0 stays 0
        return softmax(np.log(proba) / temperature, axis=1)


def fit_temperature(proba: npt.NDArray[np.float64], labels: Sequence[str], truth: npt.NDArray[np.str_]) -> float:
    """Return the temperature that maximizes the likelihood of the true labels.

    The predictions have to be for patients to whom the predictor was not fitted, such as those of
    ``out_of_fold_proba``: it is too confident about the patients that it was fitted to. The likelihood is multiplied by
    a prior, a standard normal distribution of log T, so that a few patients do not determine an extreme temperature;
    with hundreds it has no effect.

    Args:
        proba: Probabilities, shape (N, n_labels).
        labels: The label of each column.
        truth: The true labels, shape (N,). Those to which the predictor gave probability 0, because it knew no patient
            with that label, are left out: no temperature changes 0.

    Returns:
        The temperature, in [0.01, 100]; 1 if no patient is left.
    """
    is_true = truth[:, None] == np.array(labels, dtype=np.str_)[None, :]
    usable = (is_true & (proba > 0)).any(axis=1)
    with np.errstate(divide="ignore"):
        logs, true_label = np.log(proba[usable]), is_true[usable].argmax(axis=1)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logs / np.exp(log_temperature), axis=1)
        likelihood = np.take_along_axis(scaled, true_label[:, None], axis=1).sum()
        return float(0.5 * log_temperature**2 - likelihood)

    if not usable.any():
        return 1.0
    return float(np.exp(minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded").x))
