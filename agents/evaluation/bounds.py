"""The lowest and the highest possible values of metrics, at which their intervals end."""

from __future__ import annotations

import math

from agents.evaluation.bootstrap import Interval
from pmlm_env.rewards.components import COMPONENTS

#: The overlap of a reply with its reference; see ``agents.evaluation.metrics.TextScores``.
_OVERLAPS = {"bleu4", "rouge1", "rouge2", "rougeL"}

#: Components that are no fractions: a difference of two fractions, and numbers of words or conditions.
_OTHERS = {
    "margin": (-1.0, 1.0),
    "words": (0.0, math.inf),
    "length_ratio": (0.0, math.inf),
    "new_wrong_diagnosis": (0.0, math.inf),
}

#: Resampled means of equal values differ by no more than this.
_ROUNDING = 1e-9


def bounds_of(metric: str) -> tuple[float, float]:
    """Return the lowest and the highest possible values of a metric; infinities if they are not known.

    BERTScore counts as a fraction: cosines of an encoder's states could be negative, but those of texts are not.
    """
    fraction = metric in COMPONENTS or metric in _OVERLAPS
    return _OTHERS.get(metric, (0.0, 1.0) if fraction else (-math.inf, math.inf))


def bounds_of_change(metric: str) -> tuple[float, float]:
    """Return the lowest and the highest possible differences of two values of a metric."""
    low, high = bounds_of(metric)
    return low - high, high - low


def interval_of_level(interval: Interval, metric: str, n: int) -> Interval:
    """Return the interval of a mean of a metric, which ends at the metric's bounds.

    If all values are at one bound, as where no reply names a condition, the values do not vary, so that Student's t
    and the bootstrap give an interval without width. Then the other end is that of Clopper and Pearson (Biometrika
    1934) for a share of 0 of N, which is 1 - 0.025^(1/N). It holds for any values from 0 to 1, because their mean is at
    most the share of those that are not 0.

    Args:
        interval: The interval of 95 %.
        metric: The metric.
        n: Number of patients.
    """
    low, high = bounds_of(metric)
    if interval.low is None or interval.high is None or math.isinf(high - low):
        return interval.within(low, high)
    if interval.high - interval.low > _ROUNDING:
        return interval.within(low, high)
    reach = (high - low) * (1 - 0.025 ** (1 / n))
    if interval.mean - low < _ROUNDING:
        return Interval(low, low, low + reach)
    if high - interval.mean < _ROUNDING:
        return Interval(high, high - reach, high)
    return interval
