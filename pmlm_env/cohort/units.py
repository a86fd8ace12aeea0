"""Units as laboratories write them: ``K/uL``, ``10*3/uL``, ``x10E9/L`` and ``G/L`` all mean 10^9/L.

A unit is parsed as an exact factor times a kind of quantity. A spelling that leaves the value unchanged (``mg/mL`` for
g/L, ``mU/mL`` for U/L) is accepted; any other is known to need a conversion factor. UCUM forms (``[IU]/L``,
``10*9/L``, ``{cells}/uL``; ucum.org) are parsed too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from pmlm_env.cohort.schema import Indicator


class _Quantity(NamedTuple):
    """A unit: ``factor`` times the base unit of its kind (g, mol, U, L, a count or a fraction; per liter if "/L")."""

    factor: Fraction
    kind: str


_PREFIXES = {
    "kilo": 3, "k": 3, "": 0, "deci": -1, "d": -1, "centi": -2, "c": -2, "milli": -3, "m": -3, "micro": -6, "mc": -6,
    "u": -6, "nano": -9, "n": -9, "pico": -12, "p": -12, "femto": -15, "f": -15,
}  # fmt: skip
_PREFIX = "|".join(sorted(_PREFIXES, key=len, reverse=True))
_NUMERATORS = {
    "mass": "g|gm|gr|gram|grams|gramm",
    "amount": "mol|mole|moles",
    "activity": "u|iu|ui|e|unit|units",
    "katal": "kat|katal",
    "volume": "l|liter|liters|litre|litres",
}
_NUMERATOR = re.compile(
    f"(?P<prefix>{_PREFIX})(?:" + "|".join(f"(?P<{kind}>{names})" for kind, names in _NUMERATORS.items()) + ")"
)
#: Cubes, in liters: 1 mm^3 is 1 uL.
_CUBES = {
    "m3": 3, "dm3": 0, "cm3": -3, "ccm": -3, "cc": -3, "mm3": -6, "cmm": -6, "cumm": -6, "cubicmm": -6, "um3": -15,
    "cuum": -15,
}  # fmt: skip
#: Number words as powers of ten. "Mil" is a million in English and a thousand in Spanish.
_NUMBER_WORDS = {
    "k": (3,), "th": (3,), "tho": (3,), "thou": (3,), "thous": (3,), "thousand": (3,), "thousands": (3,), "tsd": (3,),
    "lakh": (5,), "lakhs": (5,), "lac": (5,), "mil": (3, 6), "m": (6,), "mill": (6,), "mln": (6,), "mio": (6,),
    "million": (6,), "millions": (6,), "g": (9,), "gpt": (9,), "giga": (9,), "bil": (9,), "billion": (9,), "mrd": (9,),
    "mia": (9,), "t": (12,), "tpt": (12,), "tera": (12,), "tril": (12,), "trillion": (12,),
}  # fmt: skip
_POWER = re.compile(
    r"[x*]?(?:10(?:\^|\*\*?|e\+?|exp|\()(?P<power>\d{1,2})\)?|10(?P<lost>3|6|9|12)|1(?P<zeros>(?:,?000)+)|e\+?(?P<e>\d+))"
)
_CELLS = re.compile(r"(?:cells?|wbcs?|rbcs?|#|n)?")
_FRACTIONS = {"%": -2, "percent": -2, "pct": -2, "percentage": -2, "prozent": -2, "vol%": -2, "vol-%": -2,
              "\u2030": -3, "1": 0,
              "ratio": 0, "fraction": 0, "proportion": 0, "decimal": 0}  # fmt: skip
_WHOLE = {
    "um": [_Quantity(Fraction(1, 10**6), "amount/L")],  # micromolar
    "mm": [_Quantity(Fraction(1, 10**3), "amount/L")],
    "nm": [_Quantity(Fraction(1, 10**9), "amount/L")],
    **{name: [_Quantity(Fraction(10) ** power, "fraction")] for name, power in _FRACTIONS.items()},
}
_SUPERSCRIPTS = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
#: How a note after a unit starts: a word ("derived"), a bracket, a temperature; never an operator or other number.
_NOTE = re.compile(r"(?!x\s*\d|per\b)(?:[^\W\d_]|[(\[,;@]|37(?!\d))")


def conversion(text: str, indicator: Indicator) -> Fraction | str:
    """Return the factor by which values in a unit become values in an indicator's unit.

    Args:
        text: A unit from a file, possibly followed by a note; blank = not given.
        indicator: The indicator.

    Returns:
        The factor, 1 for blank text or an equal unit; or, as a clause, why there is none and what to do.
    """
    return unit_problem(text, indicator.unit) or Fraction(1)


@lru_cache(maxsize=4096)
def unit_problem(text: str, expected: str) -> str:
    """Explain why values in unit ``text`` are not values in unit ``expected``; "" if they are.

    Args:
        text: A unit from a file, possibly followed by a note ("10^9/L derived"); blank = not given.
        expected: A unit of the schema; "" = no unit, so any ``text`` is accepted. One that cannot be parsed
            matches only itself, in any letter case.
    """
    if not text.strip() or not expected or _canonical(text) == _canonical(expected):
        return ""
    if not (units := _quantities(_canonical(expected))):  # such as mmHg: of the schema, but unknown here
        return f"write {expected}, or convert the values with your laboratory's factor"
    found, wanted = _parse(text), units[0]
    if wanted in found:
        return ""
    for factor in (quantity.factor / wanted.factor for quantity in found if quantity.kind == wanted.kind):
        verb, number = ("divide", 1 / factor) if factor.numerator == 1 else ("multiply", factor)
        return f"{verb} the values by {float(number):,.10g} and write {expected}"
    if found:
        return f"it does not measure the same quantity as {expected}; convert the values with your laboratory's factor"
    return (
        f"it is an unknown unit; if it means {expected}, write {expected}, "
        "otherwise convert the values with your laboratory's factor"
    )


def _parse(text: str) -> list[_Quantity]:
    """Return the possible meanings of the longest prefix that is a unit and is followed by nothing or a note."""
    words = text.split() if len(text) < 100 else []
    for end in range(len(words), 0, -1):
        if end < len(words) and not _NOTE.match(" ".join(words[end:])):
            continue
        if found := _quantities(_canonical(" ".join(words[:end]))):
            return found
    return []


def _canonical(text: str) -> str:
    """Return a unit in canonical spelling: lower case, ASCII, no spaces, one sign per operation."""
    text = re.sub("([0-9A-Za-z\u00b5\u03bc])([\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+)", r"\1^\2", text)
    text = unicodedata.normalize("NFKC", text.translate(_SUPERSCRIPTS)).replace("\u03bc", "u").casefold()
    text = re.sub(r"\{[^{}]*\}", "", text) or "1"  # UCUM annotations: {cells}/uL; {ratio} alone is 1
    text = re.sub("[\u00d7\u2715\u22c5\u00b7\u2219]", "*", text.replace("\u2212", "-"))
    text = re.sub("[\u2044\u2215]| per |\\bper\\b(?!\\s*cent)", "/", text)
    text = re.sub(r"[\s*.]+([a-z]+)\^?-1\b", r"/\1", text)  # g L-1
    text = re.sub(r"[\[\]\s]|(?<=[a-z])\.(?!\d)", "", text)
    return re.sub(r"(?<=m)\^(?=3\b)", "", text)  # mm^3


def _quantities(text: str) -> list[_Quantity]:
    """Return the possible meanings of a unit in canonical spelling, if any; the "g" of G/L is giga or gram."""
    if text in _WHOLE:
        return _WHOLE[text]
    if match := re.fullmatch(r"(.*gm?)%", text):  # mg% is mg/dl
        text = f"{match[1]}/dl"
    above, slash, below = text.partition("/")
    if not slash:
        return [*_measures(above), *(_Quantity(Fraction(10) ** power, "volume") for power in _cube(above))]
    if re.fullmatch(r"cells?|cel|rbc", below):
        return [each for each in _measures(above) if each.kind in ("mass", "volume")]  # pg/cell
    if re.fullmatch(r"100(?:wbcs?|cells?|leukocytes?|leucocytes?)?", below):
        return [_Quantity(Fraction(1, 100), "fraction")] if _CELLS.fullmatch(above) else []
    match = re.fullmatch(r"(10{0,3})?(.*)", below)
    volumes = [each for each in _measures(match[2] if match else "") if each.kind == "volume"]
    volumes += [_Quantity(Fraction(10) ** power, "volume") for power in _cube(match[2] if match else "")]
    many = Fraction(match[1] or 1) if match else Fraction(1)
    return [
        _Quantity(each.factor / volume.factor / many, "fraction" if each.kind == "volume" else f"{each.kind}/L")
        for volume in volumes
        for each in (*_measures(above), *_counts(above))
    ]


def _measures(text: str) -> Iterator[_Quantity]:
    match = _NUMERATOR.fullmatch(text)
    kind = match.lastgroup if match else None
    if match and kind:
        factor = Fraction(10) ** _PREFIXES[match["prefix"]]
        # 1 kat is 1 mol/s, 1 U is 1 umol/min.
        yield _Quantity(factor * 60 * 10**6, "activity") if kind == "katal" else _Quantity(factor, kind)


def _cube(text: str) -> list[int]:
    return [_CUBES[text]] if text in _CUBES else []


def _counts(text: str) -> Iterator[_Quantity]:
    for power, rest in _powers(text):
        if _CELLS.fullmatch(rest.lstrip("*")):
            yield _Quantity(Fraction(10) ** power, "count")


def _powers(text: str) -> Iterator[tuple[int, str]]:
    """Yield each power of ten that the text may begin with, and the rest of the text."""
    yield 0, text
    text = re.sub(r"^cells?(?=[x*]?\d)", "", text)
    if match := _POWER.match(text):
        digits = match["power"] or match["lost"] or match["e"]
        yield int(digits) if digits else match["zeros"].count("0"), text[match.end() :]
    for word, powers in _NUMBER_WORDS.items():
        if text.startswith(word):
            yield from ((power, text[len(word) :]) for power in powers)
