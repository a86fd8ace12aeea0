"""Strict parsing of numbers and dates from text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.wording import tidy

#: Missing-value markers of R, pandas and SQL: those that pandas' ``read_csv`` recognizes.
_MISSING_MARKERS = frozenset({"NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "-nan", "n/a", "NULL", "null", "None", "NaT"})

_DATETIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?")
_NAT = np.datetime64("NaT", "us")

#: The format that ``parse_datetimes`` accepts, for messages.
DATE_FORMAT = "YYYY-MM-DD, with or without HH:MM:SS, no time zone"


def parse_numbers(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Parse finite numbers, correctly rounded; any other text, including "nan" and "inf", becomes NaN."""
    return np.array([_parse_number(text) for text in texts], dtype=np.float64)


def parse_datetimes(texts: Sequence[str]) -> npt.NDArray[np.datetime64]:
    """Parse datetime64[us]; text that is not a valid date in ``DATE_FORMAT`` becomes NaT."""
    return np.array([_parse_datetime(text) for text in texts], dtype="datetime64[us]")


def has_value(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which texts hold a value: not only whitespace or invisible characters, nor a missing-value marker."""
    return np.array([text.strip() not in _MISSING_MARKERS and bool(tidy(text)) for text in texts], dtype=np.bool_)


def _parse_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and "_" not in text else math.nan


def _parse_datetime(text: str) -> np.datetime64:
    text = text.strip()
    if not _DATETIME.fullmatch(text):
        return _NAT
    try:
        parsed: np.datetime64 = np.datetime64(text).astype("datetime64[us]")
    except ValueError:
        return _NAT
    return parsed
