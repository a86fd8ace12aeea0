"""Indicators: what a cohort measures, in which unit and within which limits."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from itertools import combinations
from reprlib import repr as shortened
from typing import Any

from pmlm_env.cohort.schema_checks import check_name
from pmlm_env.cohort.wording import folded, quoted

#: The highest bound, also of indicators without one: higher values have no use, and their squares may overflow.
MAX_BOUND = 1e15

#: An indicator's limits, from the lowest to the highest.
_LIMITS = ("low", "reference_low", "reference_high", "high")
#: The pair of scales of HbA1c: % (NGSP) and mmol/mol (IFCC).
HBA1C = "hba1c"
#: Pairs of scales that start at different zeros, apart from those of temperature, which their units name.
_SCALES = ("", HBA1C)
#: What converts its units.
_FACTORS = ("molar_mass", "charge")

#: Columns of the tables of check-ups that are not indicators.
RESERVED = ("patient_id", "date", "day")


@dataclass(frozen=True, slots=True)
class Indicator:
    """One laboratory indicator, vital sign or score.

    Attributes:
        name: Column name in data files.
        unit: The unit all values are in; "" = none.
        low: Lower values are impossible in a living adult or in another unit, never merely abnormal; None = 0. May be
            negative (base excess).
        high: Higher values are impossible, likewise; None = 1e15.
        synonyms: Other names that data files may use for it.
        reference_low: Lower values are abnormal in these patients; None = unknown. Used in prompts, and to doubt the
            unit of values that are given without one.
        reference_high: Higher values are abnormal, likewise.
        title: How ``{values}`` in prompts names it; "" = by the name, with spaces for underscores.
        codes: LOINC codes by which data files may name it; loinc.org.
        molar_mass: In g/mol, by which mass is converted to amount of substance; None = there is none.
        charge: Of the ion, by which equivalents are converted to amount of substance; None = there is none.
        words: Results in words and the numbers that stand for them, such as ("negative", 0.0).
        scale: ``hba1c`` if % and mmol/mol are converted by the master equation of HbA1c (ngsp.org/ifcc.asp); "" = not.

    Schemas that differ in the last eight only are equal: they measure the same.
    """

    name: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    synonyms: tuple[str, ...] = ()
    reference_low: float | None = field(default=None, compare=False)
    reference_high: float | None = field(default=None, compare=False)
    title: str = field(default="", compare=False)
    codes: tuple[str, ...] = field(default=(), compare=False)
    molar_mass: float | None = field(default=None, compare=False)
    charge: int | None = field(default=None, compare=False)
    words: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    scale: str = field(default="", compare=False)

    @property
    def has_range(self) -> bool:
        """Whether a limit of the reference range is known."""
        return self.reference_low is not None or self.reference_high is not None

    def excess(self, value: float) -> float:
        """Return how far a value is outside the reference range, in widths of the range.

        Returns:
            Negative = too low, positive = too high, 0 = within the range, or the range is unknown. The width of a range
            with one limit is the size of that limit.
        """
        low, high = self.reference_low, self.reference_high
        width = abs(low or 0.0) if high is None else abs(high - (low or 0.0))
        if low is not None and value < low:
            return (value - low) / (width or 1.0)
        return (value - high) / width if high is not None and value > high else 0.0

    def plain(self) -> dict[str, Any]:
        """Return the entry of a JSON file; limits as floats, because numbers of NumPy are not JSON."""
        entry = asdict(self)
        for key in (*_LIMITS, *_FACTORS):
            if (value := entry.pop(key)) is not None:
                entry[key] = int(value) if key == "charge" else float(value)
        entry["words"] = {word: float(number) for word, number in self.words}
        for key in ("codes", "words", "scale"):
            if not entry[key]:
                del entry[key]
        return entry


def check_indicator(indicator: Indicator, where: str) -> None:
    """Check the values of an indicator.

    Args:
        indicator: The indicator.
        where: Prefix of messages.

    Raises:
        ValueError: A value is empty, unprintable or out of range, or limits are in the wrong order.
    """
    check_name("name", indicator.name, where)
    for key in ("synonyms", "codes"):
        for text in getattr(indicator, key):
            check_name(key.removesuffix("s"), text, where)
    for word, number in indicator.words:
        check_name("word", word, where)
        if not (indicator.low or 0.0) <= number <= (MAX_BOUND if indicator.high is None else indicator.high):
            raise ValueError(f"{where}: the word {quoted(word)} is {shortened(number)}: use a number within the bounds")
    for key, text in (("unit", indicator.unit), ("title", indicator.title)):
        if text:
            check_name(key, text, where)
    for name in (indicator.name, *indicator.synonyms):
        if folded(name) in RESERVED:
            raise ValueError(f"{where}: {quoted(name)} is the name of another column of the tables: use another name")
    limits = {key: getattr(indicator, key) for key in _LIMITS if getattr(indicator, key) is not None}
    for key, limit in limits.items():
        lowest = -MAX_BOUND if (indicator.low or 0) < 0 else 0.0
        if not lowest <= limit <= MAX_BOUND:
            hint = ", or add a negative low" if limit < 0 <= lowest else ""
            raise ValueError(f"{where}: {key} is {shortened(limit)}: use {lowest:g} to {MAX_BOUND:g}{hint}")
    for one, other in combinations(limits, 2):
        ranges = {one, other} == {"low", "high"} or {one, other} == {"reference_low", "reference_high"}
        if limits[one] > limits[other] or (ranges and limits[one] == limits[other]):
            raise ValueError(
                f"{where}: {one} is {limits[one]:g}, {other} is {limits[other]:g}: {one} must "
                f"{'be less than' if ranges else 'not be more than'} {other}"
            )
    if indicator.reference_high == 0 and indicator.reference_low is None:
        raise ValueError(f"{where}: reference_high is 0: use a number above 0, or add reference_low")
    if indicator.molar_mass is not None and not (
        0 < indicator.molar_mass <= 1e7 and math.isfinite(indicator.molar_mass)
    ):
        raise ValueError(f"{where}: molar_mass is {shortened(indicator.molar_mass)}: use a number of g/mol, up to 1e7")
    if indicator.scale not in _SCALES:
        raise ValueError(f"{where}: scale is {quoted(indicator.scale)}: use {HBA1C}, or leave it out")
    if indicator.charge is not None and not 1 <= indicator.charge <= 8:
        raise ValueError(f"{where}: charge is {shortened(indicator.charge)}: use 1 to 8, without its sign")
