"""Text to numbers and dates, strictly: what is not plainly one is not one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.wording import tidy

#: How R, pandas and SQL write a missing value; what pandas' ``read_csv`` reads as one.
_MISSING = frozenset({"NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "-nan", "n/a", "NULL", "null", "None", "NaT"})

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?")
_NAT = np.datetime64("NaT", "us")

#: What ``moments`` reads, for messages.
DATE_FORMAT = "YYYY-MM-DD, with or without HH:MM:SS, no time zone"


def numbers(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the texts as finite numbers, correctly rounded; NaN for any other text, "nan" and "inf" too."""
    known = {text: _number(text) for text in set(texts)}
    return np.array([known[text] for text in texts], dtype=np.float64)


def moments(texts: Sequence[str]) -> npt.NDArray[np.datetime64]:
    """Return the texts as datetime64[us]; NaT for what is not in ``DATE_FORMAT`` or not in the calendar."""
    known = {text: _moment(text) for text in set(texts)}
    return np.array([known[text] for text in texts], dtype="datetime64[us]")


def filled(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which texts say something: more than blanks, invisible characters or ``NA`` and its like."""
    return np.array([text.strip() not in _MISSING and bool(tidy(text)) for text in texts], dtype=np.bool_)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and "_" not in text else math.nan


def _moment(text: str) -> np.datetime64:
    text = text.strip()
    if not _MOMENT.fullmatch(text):
        return _NAT
    try:
        moment: np.datetime64 = np.datetime64(text).astype("datetime64[us]")
    except ValueError:
        return _NAT
    return moment
