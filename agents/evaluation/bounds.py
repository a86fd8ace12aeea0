"""The lowest and the highest possible values of metrics, at which their intervals end."""

from __future__ import annotations

import math

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
