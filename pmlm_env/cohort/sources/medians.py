"""Doubting the unit of values that are given without one, by their median."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.indicator import Indicator
from pmlm_env.cohort.units import conversion, kind_of

#: Fewer values say little about their unit.
MIN_VALUES = 10
#: A median is doubted if it is beyond a limit of the reference range by this factor: patients are sick.
_FACTOR = 1.5
#: Units that laboratories use, the more usual first.
_USUAL = (
    "g/dL", "mg/dL", "ug/dL", "ng/dL", "g/L", "mg/L", "ug/L", "ng/L", "mmol/L", "umol/L", "nmol/L", "pmol/L", "mEq/L",
    "/uL", "10^9/L", "10^12/L", "10^5/uL", "%", "1", "kPa", "mmHg", "U/L", "ukat/L", "mg/mmol", "mg/g", "kg", "g",
    "cm", "m",
)  # fmt: skip
#: What molar masses convert.
_AMOUNTS = {"mass/L", "amount/L", "equivalent/L"}
#: Laboratories choose units in which usual values are neither tiny nor huge; cells per uL are the exception.
_READABLE = (0.2, 600.0)


def likely_unit(values: npt.NDArray[np.float64], indicator: Indicator) -> str:
    """Return the unit that values without one are probably in, if that is not the indicator's.

    It is another unit that laboratories use, in which the median is within the reference range, while as it stands it
    is beyond a limit of the range by a factor of 1.5 or more. Nothing is said of fewer than ten values, nor if the
    range is not known on both sides.

    Args:
        values: The values, shape (n,).
        indicator: What they are of.

    Returns:
        The unit; "" if the indicator's own is plausible, or no other explains the median.
    """
    low, high = indicator.reference_low, indicator.reference_high
    if low is None or high is None or low <= 0 or len(values) < MIN_VALUES:
        return ""
    median = float(np.median(values))
    if low / _FACTOR < median < high * _FACTOR:
        return ""
    for unit in _USUAL:
        factor = conversion(unit, indicator)
        if not isinstance(factor, Fraction) or factor == 1 or not _comparable(unit, indicator.unit):
            continue
        middle = (low * high) ** 0.5 / float(factor)
        if (_READABLE[0] <= middle <= _READABLE[1] or unit == "/uL") and low <= median * float(factor) <= high:
            return unit
    return ""


def _comparable(one: str, other: str) -> bool:
    """Whether units measure the same at first sight: the "g" of g/dL is gram, though it may be giga."""
    kinds = {kind_of(one), kind_of(other)}
    return len(kinds) == 1 or kinds <= _AMOUNTS
