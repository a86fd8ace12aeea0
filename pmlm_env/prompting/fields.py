"""Formatting of a template's fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pmlm_env.cohort.schema import Indicator, Patient

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
    """

    labels: Sequence[str]
    form: PeerForm
    likeness: Sequence[float] = ()

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
            pairs = zip(self.labels, self.likeness, strict=True)
            return ", ".join(f"{label} ({likeness:.2f})" for label, likeness in pairs)
        if (spec or self.form) == "listed":
            return "nearest first, had: " + "; ".join(self.labels)
        counts = Counter(self.labels).most_common()
        return ", ".join(f"{count} of {len(self.labels)} had {label}" for label, count in counts)


@dataclass(frozen=True, slots=True)
class Probabilities:
    """The probability of each label from stage 1."""

    by_label: Mapping[str, float]

    def __format__(self, spec: str) -> str:
        """Return "thalassemia 62%, normal 30%": up to three most probable labels of at least 5 %, at least one."""
        ranked = sorted(self.by_label.items(), key=lambda item: -item[1])[:_MAX_LABELS]
        shown = [item for i, item in enumerate(ranked) if i == 0 or item[1] >= _MIN_PROBABILITY]
        return ", ".join(f"{label} {probability:.0%}" for label, probability in shown)


@dataclass(frozen=True, slots=True)
class Labs:
    """A patient's check-ups as text (paper, Figure 5).

    Attributes:
        patient: The patient.
        indicators: The indicators of the patient's values.
    """

    patient: Patient
    indicators: Sequence[Indicator]

    def __format__(self, spec: str) -> str:
        """Return the latest check-ups, latest first, and the number of earlier ones.

        Dates are given as days before the latest check-up. Values have four significant digits and a unit.
        Indicators that were not measured are left out.
        """
        total = len(self.patient.dates)
        shown = total if spec == "all" else min(total, int(spec or _DEFAULT_CHECKUPS))
        parts = []
        for i in range(total - 1, total - shown - 1, -1):
            days = int((self.patient.dates[-1] - self.patient.dates[i]) / np.timedelta64(1, "D"))
            ago = f"{days} day{'' if days == 1 else 's'} before the latest check-up"
            when = ago if i < total - 1 else "Latest check-up"
            values = [
                f"{each.name.replace('_', ' ')} {digits(value)}{' ' + each.unit if each.unit else ''}"
                for each, value in zip(self.indicators, self.patient.values[i], strict=True)
                if np.isfinite(value)
            ]
            parts.append(f"{when}: {', '.join(values) or 'nothing was measured'}.")
        if not parts:
            parts.append("No check-up is on record.")
        if shown < total:
            parts.append(f"Earlier check-ups, not shown: {total - shown}.")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Values:
    """A patient's latest value of each indicator as text.

    Attributes:
        patient: The patient.
        indicators: The indicators of the patient's values.
    """

    patient: Patient
    indicators: Sequence[Indicator]

    def __format__(self, spec: str) -> str:
        """Return "hemoglobin 88 g/L (low), albumin 34 g/L": those outside their reference range first, furthest first.

        The others follow in the schema's order. A number limits how many are shown; "abnormal" leaves the others out.
        """
        found = []
        for indicator, column in zip(self.indicators, self.patient.values.T, strict=True):
            measured = column[np.isfinite(column)]
            if len(measured):
                found.append((indicator.excess(float(measured[-1])), indicator, float(measured[-1])))
        if not found:
            return "nothing was measured"
        found.sort(key=lambda each: -abs(each[0]))
        if spec == "abnormal":
            found = [each for each in found if each[0]]
        elif spec:
            found = found[: int(spec)]
        return ", ".join(_value(indicator, value, excess) for excess, indicator, value in found) or (
            "all within the reference range"
        )


def _value(indicator: Indicator, value: float, excess: float) -> str:
    """Return one value as text, such as "hemoglobin 88 g/L (low)"."""
    words = [indicator.title or indicator.name.replace("_", " "), digits(value), indicator.unit]
    words.append(("(low)" if excess < 0 else "(high)") if excess else "")
    return " ".join(filter(None, words))


def digits(value: float) -> str:
    """Return a number with four significant digits, without exponent."""
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")
