"""A patient's whole history as text, as much of it as there is room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Indicator, Patient
from pmlm_env.prompting.fields import digits

#: Words for how far a value is from the training patients' mean, in rounded SDs.
_DEGREES = ("", "", "very ", "extremely ")

#: Smaller differences of first and last value, in SDs, are no trend.
_STEADY = 0.5

#: How many longer texts are tried where one is found to be too long.
_NEAR = 3


@dataclass(frozen=True, eq=False)
class History:
    """A patient's check-ups, to be written as text.

    Attributes:
        patient: The patient.
        indicators: The indicators of the patient's values.
        deviations: The values in SDs from the training patients' mean, shape (check-ups, indicators); NaN = not
            measured, or unknown because no training patient had that indicator.
    """

    patient: Patient
    indicators: tuple[Indicator, ...]
    deviations: npt.NDArray[np.float64]

    @cached_property
    def n_levels(self) -> int:
        """The number of indicators that are low or high in the mean of all check-ups."""
        return sum(bool(_level(mean)) for mean in _means(self.deviations))

    def levels(self, most: int | None = None) -> str:
        """Return which indicators are low or high in the mean of all check-ups, the most unusual first.

        Args:
            most: How many to write, at most; None = all. The text says how many it leaves out.
        """
        means = _means(self.deviations)
        groups: dict[str, list[str]] = {}
        for i in _by_size(means)[: self.n_levels if most is None else most]:
            if level := _level(means[i]):
                groups.setdefault(level, []).append(_name(self.indicators[i]))
        parts = [f"{level}: {', '.join(names)}" for level, names in groups.items()]
        if most is not None and most < self.n_levels:
            parts.append(f"{self.n_levels - most} more indicators are low or high")
        return f"In the mean of all check-ups, {'; '.join(parts) or 'nothing is high or low'}."

    def longest(self, fits: Callable[[str], bool]) -> str:
        """Return the longest text that fits.

        The latest check-ups stand whole, the earlier ones as trends: each indicator's first and last value. If there is
        no room even for the latest check-up and the trends, the values and trends that are closest to the training
        patients' mean are left out, the trends first. The text says what it leaves out.

        Args:
            fits: Whether a text is short enough.

        Returns:
            The text; if none fits, a short one.
        """
        n = len(self.patient.dates)
        if n == 0:
            return self.text(0)
        n_items = self._n_items

        def text(place: int) -> str:
            """Return one of the possible texts: parts of one check-up and the trends, then more and more whole ones."""
            return self.text(1, place) if place < n_items else self.text(place - n_items + 1)

        low, high, last = 0, n_items, n_items + n - 1
        while high < last and fits(text(high)):  # not from the middle, because hundreds of check-ups are a long text
            low, high = high, min(last, high + max(1, 2 * (high - n_items)))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(text(middle)) else (low, middle - 1)
        # What is said of something left out may be longer than the thing itself.
        near = range(min(low + _NEAR, last), low - 1, -1)
        return next((found for found in map(text, near) if fits(found)), text(low))

    @property
    def _n_items(self) -> int:
        """The number of values of the latest check-up, and of trends before it."""
        measured = np.isfinite(self.patient.values)
        return int(measured[-1].sum() + measured[:-1].any(axis=0).sum())

    def text(self, n_whole: int, n_items: int | None = None) -> str:
        """Return the history as text.

        Args:
            n_whole: How many check-ups stand whole, the latest first.
            n_items: How many values of these, and then trends of the earlier check-ups, to write; None = all.
        """
        dates, values = self.patient.dates, self.patient.values
        total = len(dates)
        if total == 0:
            return "No check-up is on record."
        lines, n_left_out, names_shown = [], 0, set()
        for row in range(total - 1, total - 1 - n_whole, -1):
            measured = np.flatnonzero(np.isfinite(values[row]))
            shown = measured if n_items is None else _most_unusual(measured, self.deviations[row], n_items)
            n_left_out += len(measured) - len(shown)
            n_items = None if n_items is None else n_items - len(shown)
            names_shown |= {*shown.tolist()}
            items = [self._value(row, i) for i in shown]
            lines.append(f"{_when(dates, row)}: {', '.join(items) or 'nothing was measured'}.")
        before = total - n_whole
        if before:
            measured = np.flatnonzero(np.isfinite(values[:before]).any(axis=0))
            shown = measured if n_items is None else _most_unusual(measured, _means(self.deviations[:before]), n_items)
            trends = [self._trend(before, i, i not in names_shown) for i in shown]
            what = f"{before} earlier check-up{'s' * (before > 1)}"
            if trends:
                lines.append(f"The {what}, first to last: {', '.join(trends)}.")
            n_hidden = len(measured) - len(shown)
            if n_hidden:
                lines.append(f"Left out of the {what}: {n_hidden} indicators.")
        if n_left_out:
            lines.append(f"Left out of the latest check-up: {n_left_out} values.")
        return "\n".join(lines)

    def _value(self, row: int, i: int) -> str:
        return f"{self._name_and_value(row, i, True)}{_in_brackets(self.deviations[row, i])}"

    def _name_and_value(self, row: int, i: int, with_unit: bool) -> str:
        indicator = self.indicators[i]
        unit = f" {indicator.unit}" if indicator.unit and with_unit else ""
        return f"{_name(indicator)} {digits(self.patient.values[row, i])}{unit}"

    def _trend(self, before: int, i: int, with_unit: bool) -> str:
        rows = np.flatnonzero(np.isfinite(self.patient.values[:before, i]))
        first, last = rows[0], rows[-1]
        if first == last:
            return f"{self._name_and_value(first, i, with_unit)} once{_in_brackets(self.deviations[first, i])}"
        change = self.deviations[last, i] - self.deviations[first, i]
        unit = f" {self.indicators[i].unit}" if self.indicators[i].unit and with_unit else ""
        to = digits(self.patient.values[last, i])
        level = _in_brackets(_means(self.deviations[:before, [i]])[0])
        return f"{self._name_and_value(first, i, False)} to {to}{unit}{_direction(change)}{level}"


def _most_unusual(columns: npt.NDArray[np.intp], deviations: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.intp]:
    """Return the ``n`` columns with the largest deviations, in their own order."""
    return np.sort(columns[_by_size(deviations[columns])[: max(n, 0)]])


def _by_size(deviations: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the order from the largest deviation to the smallest; those that are unknown are last."""
    return np.argsort(-np.nan_to_num(np.abs(deviations), nan=-1.0), kind="stable")


def _means(deviations: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of each column's numbers; NaN if it has none."""
    known = np.isfinite(deviations)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, deviations, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _level(deviation: float) -> str:
    """Return "low", "very high" and so on; "" for what is usual or unknown."""
    degree = 0 if np.isnan(deviation) else min(int(abs(deviation) + 0.5), len(_DEGREES) - 1)
    return f"{_DEGREES[degree]}{'high' if deviation > 0 else 'low'}" if degree else ""


def _direction(change: float) -> str:
    """Return " rising", " falling" or " steady"; "" if the change in SDs is unknown."""
    if np.isnan(change):
        return ""
    return " rising" if change > _STEADY else " falling" if change < -_STEADY else " steady"


def _in_brackets(deviation: float) -> str:
    return f" ({level})" if (level := _level(deviation)) else ""


def _when(dates: npt.NDArray[np.datetime64], row: int) -> str:
    if row == len(dates) - 1:
        return "Latest check-up"
    days = int((dates[-1] - dates[row]) / np.timedelta64(1, "D"))
    return f"{days} day{'s' * (days != 1)} before"


def _name(indicator: Indicator) -> str:
    return indicator.name.replace("_", " ")
