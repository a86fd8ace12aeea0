"""Summarizing a patient's check-ups, of any number, as one row of numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Cohort, Schema

#: Statistics of each indicator over the check-ups at which it was measured. ``slope`` is that of the least-squares
#: line, in units per day.
STATISTICS: tuple[str, ...] = ("last", "mean", "min", "max", "sd", "slope", "count")


#: Patients summarized at once; bounds the memory.
_CHUNK = 16_384


def summary_names(schema: Schema) -> tuple[str, ...]:
    """Return the columns of ``summarize``: seven per indicator, and two more."""
    statistics = (f"{indicator}_{statistic}" for statistic in STATISTICS for indicator in schema.names)
    return (*statistics, "n_checkups", "span_days")


def summarize(cohort: Cohort) -> npt.NDArray[np.float64]:
    """Summarize each patient's check-ups.

    Args:
        cohort: N patients with any number of check-ups, including zero.

    Returns:
        Shape (N, 7 * n_indicators + 2), columns as in ``summary_names``. NaN where undefined: an indicator never
        measured, a slope without two different days, the span without check-ups. Counts are never NaN. The SD is the
        population SD (0 for one value).
    """
    lengths = np.array([len(patient.dates) for patient in cohort], dtype=np.intp)
    n, seen = len(cohort.schema.indicators), np.flatnonzero(lengths)
    summaries = np.full((len(cohort), len(STATISTICS) * n + 2), np.nan)
    first = STATISTICS.index("count") * n
    summaries[:, first : first + n] = 0.0
    summaries[:, -2] = lengths
    for start in range(0, len(seen), _CHUNK):
        some = seen[start : start + _CHUNK]
        values = np.concatenate([cohort[i].values for i in some])
        days = np.concatenate([_days(cohort[i].dates) for i in some])
        summaries[some, :-2] = _statistics(values, days, lengths[some]).reshape(len(some), -1)
        summaries[some, -1] = days[np.cumsum(lengths[some]) - 1]
    return summaries


def _days(dates: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    """Return the days since the first check-up."""
    return (dates - dates[0]) / np.timedelta64(1, "D")


def _statistics(
    values: npt.NDArray[np.float64], days: npt.NDArray[np.float64], lengths: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Return ``STATISTICS`` of patients who all have check-ups, shape (patients, 7, n_indicators)."""
    starts = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(lengths)), lengths)
    measured = ~np.isnan(values)

    def total(terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.add.reduceat(np.where(measured, terms, 0.0), starts, axis=0)

    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 gives NaN, as intended
        count = np.add.reduceat(measured.astype(float), starts, axis=0)
        mean = total(values) / count
        deviation = values - mean[owner]
        sd = np.sqrt(total(deviation**2) / count)
        time = np.where(measured, days[:, None], 0.0)
        lag = time - (total(time) / count)[owner]
        slope = total(lag * deviation) / total(lag**2)
    slope[~np.isfinite(slope)] = np.nan
    latest = np.maximum.reduceat(np.where(measured, np.arange(len(values))[:, None], -1), starts, axis=0)
    last = np.where(latest >= 0, np.take_along_axis(values, latest.clip(0), axis=0), np.nan)
    low = np.minimum.reduceat(np.where(measured, values, np.inf), starts, axis=0)
    high = np.maximum.reduceat(np.where(measured, values, -np.inf), starts, axis=0)
    never = count == 0
    low[never] = high[never] = np.nan
    return np.stack([last, mean, low, high, sd, slope, count], axis=1)
