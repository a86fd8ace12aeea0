"""Results as laboratories write them: ``12.5``, ``12,5``, ``1,234``, ``<0.1``, ``12.5 H``, ``hemolyzed``.

The rules, each counted in the report:

- A limit (``<0.1``, ``>200``) is read as the limit itself.
- A flag before or after a number (``12.5 H``, ``*12.5``) is passed over: HL7 table 0078 (H, L, HH, LL, A, AA, N) and
  marks.
- Words (``hemolyzed``, ``see note 3``), grades (``2+``), titers (``1:80``) and ranges (``0-2``) are no numbers: they
  are left out.
- Whether a comma or a point marks the decimals is decided once for all results of a table (``decimal_mark``).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.parsing import has_value, parse_number

#: What separates groups of three digits, besides the comma or the point that does not mark decimals.
_GROUP = " '\u2019\u00a0\u2009\u202f"
_LETTERS, _MARKS = "HH?|LL?|AA?|N", r"\*{1,3}|!{1,3}|[\u2191\u2193]{1,3}"
_AROUND = re.compile(
    rf"(?P<limit>[<>\u2264\u2265]=?|=[<>])?\s*(?P<before>(?:{_LETTERS})\s+|(?:{_MARKS})\s*)?(?P<number>[+-]?[\d.,].*?)"
    rf"\s*(?P<after>{_LETTERS}|{_MARKS}|[(\[](?:{_LETTERS}|{_MARKS})[)\]])?"
)
_POINT = re.compile(rf"[+-]?(?:[1-9]\d{{0,2}}(?:[,{_GROUP}]\d{{3}})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d+)?")
_COMMA = re.compile(rf"[+-]?(?:[1-9]\d{{0,2}}(?:[.{_GROUP}]\d{{3}})+|\d+)?(?:,\d*)?(?:[eE][+-]?\d+)?")
_NO_GROUPS = re.compile(f"(?<=\\d)[{_GROUP}](?=\\d)")
#: Numbers that may be grouped thousands or have three decimals.
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
#: Results that have digits, but are no single number: ``2+``, ``1:80``, ``0-2``.
_NO_NUMBER = re.compile(r"\d+\s*\++|\d+\s*:\s*\d+|\d+(?:[.,]\d+)?\s*[-\u2013]\s*\d+(?:[.,]\d+)?")
#: Digits that are raised or lowered, which Unicode's compatibility forms make full ones: 10\u2075 is not 105.
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089]+")
_INFINITE = re.compile(r"[+-]?(?:inf|infinity)", re.IGNORECASE)
_LONGEST = 100


class Kind(IntEnum):
    """What a cell of results holds."""

    EMPTY = 0
    NUMBER = 1
    LIMIT = 2
    FLAGGED = 3
    WORD = 4
    UNREADABLE = 5
    #: A number with a comma, of which nothing tells whether it marks decimals in this table.
    AMBIGUOUS = 6
    #: A number with a percent sign: 45% is 45 in the unit %, and 0.45 in L/L.
    PERCENT = 7


class Results(NamedTuple):
    """Distinct results.

    Attributes:
        values: The numbers, shape (n,), float64; NaN where there is none.
        kinds: ``Kind`` of each, shape (n,), int8.
    """

    values: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.int8]


def decimal_mark(columns: Iterable[Sequence[str]]) -> str:
    """Return what marks the decimals in the results of a table.

    ``12,5`` and ``1.234,5`` have a decimal comma, ``12.5`` and ``1,234.5`` a decimal point, and so do the other results
    of the table. ``1.234`` alone has a point. ``1,234`` alone may be either.

    Args:
        columns: The distinct texts of each column of results.

    Returns:
        ``.`` or ``,``; "" if both occur, or if a result may be either.
    """
    point, comma, either = 0, 0, False
    for texts in columns:
        if not any("," in text for text in texts):
            # Nothing but points: they count only against commas of other columns.
            point += any("." in text and _has_point(_number_in(text)) for text in texts)
            continue
        for text in texts:
            number = _number_in(text)
            if "," not in number and "." not in number:
                continue
            if _EITHER.fullmatch(number):
                either |= "," in number
            else:
                fits = _POINT.fullmatch(number), _COMMA.fullmatch(number)
                point, comma = point + bool(fits[0] and not fits[1]), comma + bool(fits[1] and not fits[0])
    if point and comma:
        return ""
    return "," if comma else "" if either and not point else "."


def read_results(texts: Sequence[str], mark: str = ".") -> Results:
    """Read results.

    Args:
        texts: The cells.
        mark: What marks the decimals; see ``decimal_mark``. If it is "", a point does, and what may be either is
            ``AMBIGUOUS``.
    """
    values = np.array([parse_number(text) for text in texts], dtype=np.float64)
    kinds = np.full(len(texts), Kind.NUMBER, dtype=np.int8)
    kinds[~has_value(texts)] = Kind.EMPTY
    # Most results are plain numbers, and read above; a point may group thousands only where commas mark decimals.
    others = np.arange(len(texts)) if mark == "," else np.flatnonzero(np.isnan(values))
    for i in others.tolist():
        if kinds[i] == Kind.NUMBER:
            values[i], kinds[i] = _read(texts[i], mark)
    values[kinds == Kind.EMPTY] = np.nan
    return Results(values, kinds)


def _number_in(text: str) -> str:
    """Return the number of a result without limit, flag and spaces that group digits; "" if it is not of that form."""
    text = _plain(text)
    match = _AROUND.fullmatch(text) if len(text) <= _LONGEST and any(map(str.isdigit, text)) else None
    return _NO_GROUPS.sub("", match["number"]) if match else ""


def _has_point(number: str) -> bool:
    """Whether a text is a number whose point marks decimals, rather than a group of thousands."""
    return bool(_POINT.fullmatch(number)) and not _EITHER.fullmatch(number) and "." in number


def _read(text: str, mark: str) -> tuple[float, Kind]:
    text = _plain(text)
    match = _AROUND.fullmatch(text) if len(text) <= _LONGEST else None
    number = match["number"] if match else ""
    if match and (_COMMA if mark == "," else _POINT).fullmatch(number) and any(c.isdigit() for c in number):
        if not mark and _EITHER.fullmatch(number) and "," in number:
            return math.nan, Kind.AMBIGUOUS
        group = "." if mark == "," else ","
        value = parse_number(_NO_GROUPS.sub("", number).replace(group, "").replace(",", "."))
        if math.isfinite(value):
            kind = Kind.LIMIT if match["limit"] else Kind.FLAGGED if match["before"] or match["after"] else Kind.NUMBER
            return value, kind
    if match and not mark and "," in number and _COMMA.fullmatch(number):
        return math.nan, Kind.AMBIGUOUS
    if text.endswith("%") and len(text) <= _LONGEST and _read(text[:-1], mark)[1] == Kind.NUMBER:
        return math.nan, Kind.PERCENT
    if _NO_NUMBER.fullmatch(text) or not any(c.isdigit() for c in text) or (text[0].isalpha() and not match):
        return math.nan, Kind.UNREADABLE if _INFINITE.fullmatch(text) else Kind.WORD
    return math.nan, Kind.UNREADABLE


def _plain(text: str) -> str:
    text = text.strip()
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _RAISED.sub(r"^\g<0>", text)).replace("\u2212", "-").strip()
