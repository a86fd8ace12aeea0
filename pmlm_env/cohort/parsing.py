"""Strict parsing of numbers and dates from text."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.wording import tidy

#: Missing-value markers of R, pandas and SQL: those that pandas' ``read_csv`` recognizes.
_MISSING_MARKERS = frozenset({"NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "-nan", "n/a", "NULL", "null", "None", "NaT"})

#: Forms of dates that mean one day, whoever wrote them; ``DAY/MONTH/YEAR`` is not among them.
_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_ISO_TIME = re.compile(r"([ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(?:Z|[+-]\d\d:?\d\d)?", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|" \
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"  # fmt: skip
_DAY, _YEAR = r"(?P<day>\d{1,2})", r"(?P<year>\d{4})"
_TIME = (
    r"(?:[ T,]\s*(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d{1,9})?)?(?:\s*(?P<half>[ap])\.?m\.?)?"
    r"(?:\s*(?:z|[a-z]{2,5}|(?:utc|gmt)?[+-]\d\d:?(?:\d\d)?))?)?"
)
_DATES = [
    re.compile(form + _TIME, re.ASCII | re.IGNORECASE)
    for form in (
        rf"{_YEAR}[-/.](?P<month>\d{{1,2}})[-/.]{_DAY}",
        r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)",
        rf"{_DAY}\.\s?(?P<month>\d{{1,2}})\.\s?{_YEAR}",
        rf"{_DAY}(?:st|nd|rd|th)?[-/\s]?{_MONTH}[-/\s,]*{_YEAR}",
        rf"{_MONTH}[-/\s]?{_DAY}(?:st|nd|rd|th)?[-/\s,]+{_YEAR}",
        rf"{_YEAR}[-/\s]?{_MONTH}[-/\s]?{_DAY}",
    )
]
_CHINESE = re.compile(r"(\d{4})\s*\u5e74\s*(\d{1,2})\s*\u6708\s*(\d{1,2})\s*[\u65e5\u53f7]")
#: Forms in which the order of day and month is a custom of the country.
_SLASHED = re.compile(
    rf"(?P<first>\d{{1,2}})(?P<mark>[-/])(?P<second_>\d{{1,2}})(?P=mark){_YEAR}" + _TIME, re.ASCII | re.I
)
_NAT = np.datetime64("NaT", "us")
_NAT_NUMBER = -(2**63)

#: What ``parse_datetimes`` accepts, for messages.
DATE_FORMAT = "YYYY-MM-DD, with or without HH:MM:SS"


def parse_numbers(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Parse finite numbers, correctly rounded; any other text, including "nan" and "inf", becomes NaN."""
    return np.array([parse_number(text) for text in texts], dtype=np.float64)


def parse_datetimes(texts: Sequence[str], day_first: bool | None = None) -> npt.NDArray[np.datetime64]:
    """Parse dates, with or without a time.

    Accepted are YYYY-MM-DD (ISO 8601) and other forms with the year first, DD.MM.YYYY, English names of months, and
    Chinese dates. A time zone or offset is passed over: the day is that on the clock of whoever wrote it.

    Args:
        texts: The texts.
        day_first: Whether DD/MM/YYYY is meant rather than MM/DD/YYYY; None = as the texts tell (``is_day_first``).

    Returns:
        datetime64[us], shape (n,); NaT where a text is not a valid date, or its day and month cannot be told apart.
    """
    texts = [text.strip() for text in texts]
    # A million times of check-ups have few days, and few times of day.
    days, times = _Memo(_iso_day), _Memo(_iso_time)
    microseconds = [
        day + time if (day := days[text[:10]]) is not None and (time := times[text[10:]]) is not None else _NAT_NUMBER
        for text in texts
    ]
    found = np.array(microseconds, dtype=np.int64).view("datetime64[us]")
    if not np.isnat(found).any():
        return found
    if day_first is None:
        day_first = is_day_first(texts)
    for i in np.flatnonzero(np.isnat(found)).tolist():
        found[i] = _other_form(texts[i], day_first)
    return found


def is_day_first(texts: Sequence[str]) -> bool | None:
    """Return whether texts such as 31/01/2022 have the day before the month; None if they do not tell, or differ."""
    slashed = [match for text in texts if (match := _SLASHED.fullmatch(text.strip()))]
    day, month = (any(int(match[part]) > 12 for match in slashed) for part in ("first", "second_"))
    return day if day != month else None


def is_slashed(text: str) -> bool:
    """Whether a text has the form 01/02/2022, in which day and month may have either order."""
    return _SLASHED.fullmatch(text.strip()) is not None


class _Memo(dict[str, "int | None"]):
    """A function of texts that remembers its results."""

    def __init__(self, function: Callable[[str], int | None]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, text: str) -> int | None:
        self[text] = result = self._function(text)
        return result


def _iso_day(text: str) -> int | None:
    """Return the microseconds of a date from 1970 on; None if the text is not a date."""
    day = _valid(text) if _ISO_DAY.fullmatch(text) else _NAT
    return None if np.isnat(day) else int(day.astype(np.int64))


def _iso_time(text: str) -> int | None:
    """Return the microseconds of a time of day without its zone; "" = 0; None if the text is not a time."""
    match = _ISO_TIME.fullmatch(text)
    time = _valid(f"1970-01-01{match[1]}" if match else "" if text else "1970-01-01")
    return None if np.isnat(time) else int(time.astype(np.int64))


def _other_form(text: str, day_first: bool | None) -> np.datetime64:
    text = _CHINESE.sub(r"\1-\2-\3", unicodedata.normalize("NFKC", text)) if not text.isascii() else text
    match = next(filter(None, (form.fullmatch(text) for form in _DATES)), None)
    if match:
        part = match.groupdict()
        month = part["month"] if part["month"].isdecimal() else 1 + _MONTHS.index(part["month"][:3].lower())
        day = part["day"]
    elif day_first is not None and (match := _SLASHED.fullmatch(text)):
        part = match.groupdict()
        day, month = (part["first"], part["second_"]) if day_first else (part["second_"], part["first"])
    else:
        return _NAT
    hour = int(part["hour"] or 0)
    if part["half"]:
        if not 1 <= hour <= 12:
            return _NAT
        hour = hour % 12 + (12 if part["half"].lower() == "p" else 0)
    time = f"{hour:02}:{part['minute'] or '00'}:{part['second'] or '00'}"
    return _valid(f"{part['year']}-{int(month):02}-{int(day):02}T{time}")


def _valid(iso: str) -> np.datetime64:
    try:
        parsed: np.datetime64 = np.datetime64(iso).astype("datetime64[us]")
    except ValueError:
        return _NAT
    return parsed


def is_given(text: str, *, words: bool = False) -> bool:
    """Return whether a text holds a value: not only whitespace or invisible characters, nor a missing-value marker.

    Args:
        text: The text.
        words: Whether it is in people's words, among which ``None`` is one: the diagnosis, or allergies, "None".
    """
    text = text.strip()
    return (text not in _MISSING_MARKERS or (words and text == "None")) and bool(tidy(text))


def has_value(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which texts hold a value; see ``is_given``."""
    return np.array([is_given(text) for text in texts], dtype=np.bool_)


def parse_number(text: str) -> float:
    """Parse one number; see ``parse_numbers``."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and "_" not in text else math.nan
