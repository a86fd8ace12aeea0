"""A patient's whole history as text, as much of it as there is room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Indicator, Patient
from pmlm_env.prompting.fields import days_before, digits
from pmlm_env.prompting.wording import ENGLISH, English

#: A value that is this many rounded SDs, or more, from the training patients' mean is extremely low or high.
_MOST_DEGREES = 3

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
        words: The words of the prompt's language.
    """

    patient: Patient
    indicators: tuple[Indicator, ...]
    deviations: npt.NDArray[np.float64]
    words: English = ENGLISH

    @cached_property
    def n_levels(self) -> int:
        """The number of indicators that are low or high in the mean of all check-ups."""
        return sum(bool(self._level(mean)) for mean in _means(self.deviations))

    def levels(self, most: int | None = None) -> str:
        """Return which indicators are low or high in the mean of all check-ups, the most unusual first.

        Args:
            most: How many to write, at most; None = all. The text says how many it leaves out.
        """
        means = _means(self.deviations)
        groups: dict[str, list[str]] = {}
        for i in _by_size(means)[: self.n_levels if most is None else most]:
            if level := self._level(means[i]):
                groups.setdefault(level, []).append(self.words.name(self.indicators[i]))
        return self.words.mean_levels(groups, 0 if most is None else max(0, self.n_levels - most))

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
        words, dates, values = self.words, self.patient.dates, self.patient.values
        total = len(dates)
        if total == 0:
            return self.words.no_checkup
        lines, n_left_out, names_shown = [], 0, set()
        for row in range(total - 1, total - 1 - n_whole, -1):
            measured = np.flatnonzero(np.isfinite(values[row]))
            shown = measured if n_items is None else _most_unusual(measured, self.deviations[row], n_items)
            n_left_out += len(measured) - len(shown)
            n_items = None if n_items is None else n_items - len(shown)
            names_shown |= {*shown.tolist()}
            items = [self._value(row, i) for i in shown]
            if items or not len(measured):  # otherwise, the line on what is left out says it all
                when = words.when(days_before(dates, row), False)
                lines.append(words.line(when, words.comma.join(items) or words.nothing_measured))
        before = total - n_whole
        if before:
            measured = np.flatnonzero(np.isfinite(values[:before]).any(axis=0))
            shown = measured if n_items is None else _most_unusual(measured, _means(self.deviations[:before]), n_items)
            trends = [self._trend(before, i, i not in names_shown) for i in shown]
            lines += words.earlier(before, words.comma.join(trends), len(measured) - len(shown))
        if n_left_out:
            lines.append(words.left_out(n_left_out))
        return "\n".join(lines)

    def _value(self, row: int, i: int) -> str:
        indicator = self.indicators[i]
        amount = self.words.amount(digits(self.patient.values[row, i]), indicator.unit)
        return f"{self.words.name(indicator)}{amount}{self._remark(self.deviations[row, i])}"

    def _trend(self, before: int, i: int, with_unit: bool) -> str:
        rows = np.flatnonzero(np.isfinite(self.patient.values[:before, i]))
        first, last = rows[0], rows[-1]
        name, unit = self.words.name(self.indicators[i]), self.indicators[i].unit if with_unit else ""
        number = digits(self.patient.values[first, i])
        if first == last:
            return f"{self.words.once(name, number, unit)}{self._remark(self.deviations[first, i])}"
        direction = _direction(self.deviations[last, i] - self.deviations[first, i])
        trend = self.words.trend(name, number, digits(self.patient.values[last, i]), unit, direction)
        return f"{trend}{self._remark(_means(self.deviations[:before, [i]])[0])}"

    def _level(self, deviation: float) -> str:
        """Return "low", "very high" and so on; "" for what is usual or unknown."""
        degree = 0 if np.isnan(deviation) else min(int(abs(deviation) + 0.5), _MOST_DEGREES)
        return self.words.level("high" if deviation > 0 else "low", degree) if degree else ""

    def _remark(self, deviation: float) -> str:
        return self.words.remark(self._level(deviation))


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


def _direction(change: float) -> int | None:
    """Return 1 for rising, -1 for falling, 0 for steady; None if the change in SDs is unknown."""
    return None if np.isnan(change) else int(change > _STEADY) - int(change < -_STEADY)
