"""Doubting the unit of values that are given without one, by their median."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.indicator import HBA1C, Indicator
from pmlm_env.cohort.units import conversion, kind_of

#: Fewer values say little about their unit.
MIN_VALUES = 10
#: A median is doubted if it is beyond a limit of the reference range by this factor: patients are sick.
_FACTOR = 1.5
#: Units that laboratories use, the more usual first.
_USUAL = (
    "g/dL", "mg/dL", "ug/dL", "ng/dL", "g/L", "mg/L", "ug/L", "ng/L", "mmol/L", "umol/L", "nmol/L", "pmol/L", "mEq/L",
    "/uL", "10^9/L", "10^12/L", "10^5/uL", "%", "1", "mmol/mol", "kPa", "mmHg", "U/L", "ukat/L", "mg/mmol", "mg/g",
    "kg", "g", "cm", "m", "degC", "degF",
)  # fmt: skip
#: What molar masses convert.
_AMOUNTS = {"mass/L", "amount/L", "equivalent/L"}
#: What the master equation of HbA1c converts.
_RATIOS = {"fraction", "amount/amount"}
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
        found = conversion(unit, indicator)
        if isinstance(found, str) or not found.changes or not _comparable(unit, indicator):
            continue
        middle = found.inverse().of((low * high) ** 0.5)
        # Another scale is one of two, and may be named for sick patients, too; of many factors one might fit by chance.
        slack = _FACTOR if found.offset else 1.0
        plausible = low / slack <= found.of(median) <= high * slack
        if plausible and (_READABLE[0] <= middle <= _READABLE[1] or unit == "/uL"):
            return unit
    return ""


def _comparable(unit: str, indicator: Indicator) -> bool:
    """Whether units measure the same at first sight: the "g" of g/dL is gram, though it may be giga."""
    kinds = {kind_of(unit), kind_of(indicator.unit)}
    return len(kinds) == 1 or kinds <= _AMOUNTS or (indicator.scale == HBA1C and kinds <= _RATIOS)
