"""Formatting of a template's fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.schema import Indicator, Patient
from pmlm_env.prompting.wording import ENGLISH, English

PeerForm = Literal["counted", "listed"]

#: The formats that a field may have after a colon.
FORMS: Mapping[str, re.Pattern[str]] = {
    "peers": re.compile("counted|listed|likeness"),
    "labs": re.compile("all|[1-9][0-9]{0,3}"),
    "values": re.compile("abnormal|[1-9][0-9]{0,3}"),
}

#: ``{probabilities}`` shows at most this many labels, each of at least this probability.
_MAX_LABELS, _MIN_PROBABILITY = 3, 0.05

#: Number of check-ups that ``{labs}`` shows by default.
_DEFAULT_CHECKUPS = 2


@dataclass(frozen=True, slots=True)
class Peers:
    """The peers' labels, counted or listed.

    Attributes:
        labels: Nearest first.
        form: The form if the template does not give one.
        likeness: How similar each peer is.
        words: The words of the prompt's language.
    """

    labels: Sequence[str]
    form: PeerForm
    likeness: Sequence[float] = ()
    words: English = ENGLISH

    def __format__(self, spec: str) -> str:
        """Return the peers as text.

        Returns:
            "6 of 10 had thalassemia, 4 of 10 had normal" (ties: nearest first); the list, nearest first; or for
            "likeness" the list "thalassemia (0.93), normal (0.91)", nearest first.

        Raises:
            ValueError: The likeness of a peer is not known.
        """
        if spec == "likeness":
            if len(self.likeness) != len(self.labels):
                raise ValueError("no value was given for {peers:likeness}")
            return self.words.likeness(list(zip(self.labels, self.likeness, strict=True)))
        if (spec or self.form) == "listed":
            return self.words.listed(self.labels)
        return self.words.counted(Counter(self.labels).most_common(), len(self.labels))


@dataclass(frozen=True, slots=True)
class Probabilities:
    """The probability of each label from stage 1, and the words of the prompt's language."""

    by_label: Mapping[str, float]
    words: English = ENGLISH

    def __format__(self, spec: str) -> str:
        """Return "thalassemia 62%, normal 30%": up to three most probable labels of at least 5 %, at least one."""
        ranked = sorted(self.by_label.items(), key=lambda item: -item[1])[:_MAX_LABELS]
        shown = [item for i, item in enumerate(ranked) if i == 0 or item[1] >= _MIN_PROBABILITY]
        return self.words.probabilities(shown)


@dataclass(frozen=True, slots=True)
class Labs:
    """A patient's check-ups as text (paper, Figure 5).

    Attributes:
        patient: The patient.
        indicators: The indicators of the patient's values.
        words: The words of the prompt's language.
    """

    patient: Patient
    indicators: Sequence[Indicator]
    words: English = ENGLISH

    def __format__(self, spec: str) -> str:
        """Return the latest check-ups, latest first, and the number of earlier ones.

        Dates are given as days before the latest check-up. Values have four significant digits and a unit.
        Indicators that were not measured are left out.
        """
        words, total = self.words, len(self.patient.dates)
        shown = total if spec == "all" else min(total, int(spec or _DEFAULT_CHECKUPS))
        parts = []
        for i in range(total - 1, total - shown - 1, -1):
            values = [
                f"{words.name(each)}{words.amount(digits(value), each.unit)}"
                for each, value in zip(self.indicators, self.patient.values[i], strict=True)
                if np.isfinite(value)
            ]
            when = words.when(days_before(self.patient.dates, i), True)
            parts.append(words.line(when, words.comma.join(values) or words.nothing_measured))
        if not parts:
            parts.append(words.no_checkup)
        if shown < total:
            parts.append(words.not_shown(total - shown))
        return words.between.join(parts)


@dataclass(frozen=True, slots=True)
class Values:
    """A patient's latest value of each indicator as text.

    Attributes:
        patient: The patient.
        indicators: The indicators of the patient's values.
        words: The words of the prompt's language.
    """

    patient: Patient
    indicators: Sequence[Indicator]
    words: English = ENGLISH

    def __format__(self, spec: str) -> str:
        """Return "hemoglobin 88 g/L (low), albumin 34 g/L": those outside their reference range first, furthest first.

        The others follow in the schema's order. A number limits how many are shown; "abnormal" leaves the others out.
        """
        found, ranges_known = [], True
        for indicator, column in zip(self.indicators, self.patient.values.T, strict=True):
            measured = column[np.isfinite(column)]
            if len(measured):
                found.append((indicator.excess(float(measured[-1])), indicator, float(measured[-1])))
                ranges_known &= indicator.has_range
        if not found:
            return self.words.nothing_measured
        found.sort(key=lambda each: -abs(each[0]))
        if spec == "abnormal":
            found = [each for each in found if each[0]]
        elif spec:
            found = found[: int(spec)]
        if not found:
            return self.words.all_normal if ranges_known else self.words.none_abnormal
        return self.words.comma.join(self._value(*each) for each in found)

    def _value(self, excess: float, indicator: Indicator, value: float) -> str:
        """Return one value as text, such as "hemoglobin 88 g/L (low)"."""
        words = self.words
        name, amount = words.title(indicator), words.amount(digits(value), indicator.unit)
        return f"{name}{amount}{words.remark(words.outside(excess))}"


def days_before(dates: npt.NDArray[np.datetime64], row: int) -> int | None:
    """Return how many days before the latest check-up another one was; None for the latest one itself."""
    return int((dates[-1] - dates[row]) / np.timedelta64(1, "D")) if row < len(dates) - 1 else None


def digits(value: float) -> str:
    """Return a number with four significant digits, without exponent."""
    value = value + 0.0  # a zero with a sign is one without
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")
