"""Confidence intervals of mean differences between two arms on the same patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

_BATCH_ELEMENTS = 1_000_000  # 8 MB of resampled values at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_bootstrap(
    deltas: npt.ArrayLike, rng: np.random.Generator, n_resamples: int = 10_000, confidence: float = 0.95
) -> Interval:
    """Return the mean of paired differences with its bootstrap interval.

    Patients are drawn with replacement; the interval is the bias-corrected and accelerated one (BCa; Efron, JASA
    1987) as computed by SciPy, which unlike the percentile interval follows the skew of the differences.

    Args:
        deltas: One difference a patient (after - before), shape (N,). Of one patient, or where all are equal,
            there is nothing to resample and the interval shrinks to the mean.
        rng: Draws the resamples; the same state gives the same interval.
        n_resamples: How many resamples.
        confidence: The share of such intervals that should hold the true mean.

    Raises:
        ValueError: There are no differences, they are not one-dimensional, or not all finite.
    """
    values = np.asarray(deltas, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"need one difference a patient, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} differences are not finite")
    mean = float(values.mean())
    if np.ptp(values) <= 1e-9 * np.abs(values).max():  # equal but for rounding; BCa would be NaN
        return Interval(mean, mean, mean)
    low, high = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=n_resamples,
        confidence_level=confidence,
        batch=max(1, _BATCH_ELEMENTS // len(values)),
        random_state=rng,
    ).confidence_interval
    return Interval(mean, float(low), float(high))
