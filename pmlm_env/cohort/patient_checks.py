"""Checks of a patient, whom a data source of one's own may have made; each problem is one line with the patient."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def check_text(patient_id: Any, name: str, value: Any) -> None:
    """Check that something of a patient is text; None would become the label "None".

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, str):
        raise ValueError(
            f'patient {patient_id}: {name} is of type {type(value).__name__}: use text, "" if there is none'
        )


def as_days(patient_id: str, dates: Any) -> npt.NDArray[np.datetime64]:
    """Return the days of a patient's check-ups, datetime64[D].

    Raises:
        ValueError: They are not ascending days.
    """
    try:
        days = np.asarray(dates, dtype="datetime64[D]")
    except (TypeError, ValueError):
        raise ValueError(f"patient {patient_id}: dates are not days: use an array of datetime64[D]") from None
    if days.ndim != 1 or np.isnat(days).any() or (days[1:] < days[:-1]).any():
        raise ValueError(
            f"patient {patient_id}: dates are not days in ascending order: sort the check-ups by their day"
        )
    return days


def as_values(patient_id: str, values: Any) -> npt.NDArray[np.float64]:
    """Return the values of a patient's check-ups, float64.

    Raises:
        ValueError: They are no numbers, or infinite.
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"patient {patient_id}: values are no numbers: use float64, a row for each check-up, NaN = not measured"
        ) from None
    if np.isinf(numbers).any():
        raise ValueError(f"patient {patient_id}: values have one that is infinite: use NaN for what was not measured")
    return numbers
