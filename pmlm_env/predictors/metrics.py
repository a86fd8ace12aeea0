"""Evaluation of predictors: the paper's two F1 scores, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from pmlm_env.cohort.wording import quoted
from pmlm_env.predictors.base import most_probable

#: Bins of the calibration error: at most so many, of at least so many patients. With a patient a bin, even perfectly
#: calibrated predictions would seem to be 40 % off.
N_BINS, MIN_PER_BIN = 10, 20


@dataclass(frozen=True, slots=True)
class PredictorReport:
    """Metrics of predictions, all as fractions.

    Attributes:
        n_patients: The number of patients evaluated: those whose label is known.
        n_all: The number of all patients.
        micro_f1: Micro-averaged F1; with one label a patient, the accuracy.
        interval: Its 95 % interval (Wilson 1927).
        macro_f1: Unweighted mean of F1 over the labels that occur as truth or prediction.
        calibration_error: See ``calibration_error``; 0 is best.
        brier: See ``brier_score``; 0 is best, 2 worst.
        majority: The most frequent label of the training patients.
        majority_accuracy: The accuracy of always predicting it.
    """

    n_patients: int
    n_all: int
    micro_f1: float
    interval: tuple[float, float]
    macro_f1: float
    calibration_error: float
    brier: float
    majority: str
    majority_accuracy: float

    def __str__(self) -> str:
        """Return a one-line summary."""
        low, high = self.interval
        return (
            f"accuracy {self.micro_f1:.1%} [{low:.1%}, {high:.1%}] on {self.n_patients} of {self.n_all} patients, "
            f"{self.majority_accuracy:.1%} by predicting {quoted(self.majority)} for everybody; "
            f"macro-F1 {self.macro_f1:.1%}, calibration error {self.calibration_error:.1%}, Brier {self.brier:.3f}"
        )


def evaluate(
    proba: npt.NDArray[np.float64],
    labels: Sequence[str],
    truth: npt.NDArray[np.str_],
    training: npt.NDArray[np.str_],
) -> PredictorReport:
    """Evaluate a predictor's probabilities against the patients' true labels.

    Args:
        proba: Probabilities, shape (N, n_labels).
        labels: The label of each column.
        truth: True labels, shape (N,); "" = unknown, not evaluated. A label without a column has probability 0.
        training: The labels of the training patients; their most frequent label, the first in alphabetical order
            among ties, is the majority.

    Returns:
        The metrics.

    Raises:
        ValueError: No patient has a known label, there are no training patients, or the shapes do not match.
    """
    n_all, known = len(truth), truth != ""
    if not known.any() or not len(training) or proba.shape != (n_all, len(labels)):
        raise ValueError(
            f"cannot evaluate probabilities of shape {proba.shape} against {known.sum()} labels of {n_all} patients, "
            f"{len(labels)} columns and {len(training)} training patients"
        )
    proba, truth = proba[known], truth[known]
    predicted = most_probable(proba, tuple(labels))
    right, n = int(np.sum(predicted == truth)), len(truth)
    interval = binomtest(right, n).proportion_ci(method="wilson")
    names, counts = np.unique(training, return_counts=True)
    majority = str(names[counts.argmax()])
    return PredictorReport(
        n_patients=n,
        n_all=n_all,
        micro_f1=right / n,
        interval=(float(interval.low), float(interval.high)),
        macro_f1=float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
        calibration_error=calibration_error(proba.max(axis=1), predicted == truth),
        brier=brier_score(proba, labels, truth),
        majority=majority,
        majority_accuracy=float(np.mean(truth == majority)),
    )


def calibration_error(
    confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_], n_bins: int | None = None
) -> float:
    """Return the expected calibration error of the predicted label, in bins with equal numbers of patients.

    The error is the mean over patients of |accuracy - mean confidence| of their bin, as in Guo et al. (ICML 2017,
    Eq. 3) except that bins have equal numbers of patients instead of equal widths, which is less biased for few
    patients (Nixon et al., CVPR Workshops 2019; Roelofs et al., AISTATS 2022). Equal confidences share a bin, so the
    order of patients does not matter.

    Args:
        confidence: Probability of the predicted label, shape (N,).
        correct: Whether the prediction was right, shape (N,).
        n_bins: The number of bins, at most; fewer if there are fewer distinct confidences. By default 10, and fewer for
            fewer than 200 patients.
    """
    if n_bins is None:
        n_bins = min(N_BINS, max(1, len(confidence) // MIN_PER_BIN))
    inner_edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="higher")
    bins = np.searchsorted(np.unique(inner_edges), confidence, side="right")
    gaps = np.bincount(bins, weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def brier_score(proba: npt.NDArray[np.float64], labels: Sequence[str], truth: npt.NDArray[np.str_]) -> float:
    """Return the Brier score (Brier 1950): squared error summed over labels, averaged over patients; in [0, 2]."""
    is_true = truth[:, None] == np.array(labels, dtype=np.str_)[None, :]
    unknown = ~is_true.any(axis=1)
    return float((((proba - is_true) ** 2).sum(axis=1) + unknown).mean())
