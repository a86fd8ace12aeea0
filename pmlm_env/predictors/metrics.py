"""How good a predictor is: the paper's two F1s, and whether its probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from pmlm_env.cohort.wording import quoted
from pmlm_env.predictors.base import most_probable

#: Bins of the calibration error.
N_BINS = 10


@dataclass(frozen=True, slots=True)
class PredictorReport:
    """Figures of merit of predictions, all as fractions.

    Attributes:
        n_patients: The number of patients judged: those whose label is known.
        n_all: The number of patients predicted for.
        micro_f1: Micro-averaged F1; with one label a patient, the accuracy.
        interval: Its 95 % interval (Wilson 1927).
        macro_f1: F1 averaged over the labels that occur as truth or prediction, each weighing the same.
        calibration_error: See ``calibration_error``; 0 is best.
        brier: See ``brier_score``; 0 is best, 2 worst.
        majority: The most frequent label of the training patients.
        majority_accuracy: The accuracy of predicting it for everybody.
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
        """Return one line for people."""
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
    """Judge a predictor's probabilities by the patients' true labels.

    Args:
        proba: Probabilities, shape (N, n_labels).
        labels: The label of each column.
        truth: True labels, shape (N,); "" = unknown, not judged. One that has no column counts as given probability 0.
        training: The labels of the patients that the predictor was fitted to; of equally frequent ones the first in
            alphabetical order is the majority.

    Returns:
        The figures.

    Raises:
        ValueError: There is no patient with a known label or none in training, or the shapes do not fit together.
    """
    n_all, known = len(truth), truth != ""
    if not known.any() or not len(training) or proba.shape != (n_all, len(labels)):
        raise ValueError(
            f"cannot judge probabilities of shape {proba.shape} against {known.sum()} labels of {n_all} patients, "
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
    confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_], n_bins: int = N_BINS
) -> float:
    """Return the expected calibration error of the top label, in bins of equal mass.

    The patients, sorted by confidence, are cut into bins of equal size; the error is the mean over patients of
    |accuracy - mean confidence| of their bin. As in Guo et al. (ICML 2017, Eq. 3), save that bins hold equally
    many patients rather than equal widths, which is less biased for few patients (Nixon et al., CVPR Workshops
    2019; Roelofs et al., AISTATS 2022). Equal confidences are never parted, so the order of patients is of no
    account.

    Args:
        confidence: Probability of the predicted label, shape (N,).
        correct: Whether the prediction was right, shape (N,).
        n_bins: The number of bins, if there are as many different confidences.
    """
    inner_edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="higher")
    bins = np.searchsorted(np.unique(inner_edges), confidence, side="right")
    gaps = np.bincount(bins, weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def brier_score(proba: npt.NDArray[np.float64], labels: Sequence[str], truth: npt.NDArray[np.str_]) -> float:
    """Return the Brier score (1950): squared error summed over labels, averaged over patients; in [0, 2]."""
    is_true = truth[:, None] == np.array(labels, dtype=np.str_)[None, :]
    unknown = ~is_true.any(axis=1)
    return float((((proba - is_true) ** 2).sum(axis=1) + unknown).mean())
