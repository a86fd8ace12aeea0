"""Units as laboratories write them: ``K/uL``, ``10*3/uL``, ``x10E9/L`` and ``G/L`` all mean 10^9/L.

A unit is parsed as an exact factor times a kind of quantity, so that values in one unit can be converted to another of
the same kind. UCUM forms (``[IU]/L``, ``10*9/L``, ``{cells}/uL``; ucum.org) are parsed too. Mass and amount of
substance are converted by the indicator's molar mass, equivalents by its charge; degrees Celsius and Fahrenheit, and
HbA1c in % (NGSP) and in mmol/mol (IFCC), by a factor and an offset.

No library of units fits: pint and ucumvert know neither ``K/uL`` nor ``mg%`` nor ``x10E3/UL``, and what they know they
convert by floats.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import NamedTuple

from pmlm_env.cohort.indicator import HBA1C, Indicator


class Conversion(NamedTuple):
    """The conversion of ``x`` in one unit to ``factor * x + offset`` in another, exactly."""

    factor: Fraction
    offset: Fraction = Fraction(0)

    @property
    def changes(self) -> bool:
        """Whether values become other ones."""
        return self != IDENTITY

    @property
    def parts(self) -> tuple[int, int, int]:
        """Whole numbers (a, b, c), by which ``x`` becomes ``(a * x + b) / c``: floats are then rounded least."""
        over = lcm(self.factor.denominator, self.offset.denominator)
        return int(self.factor * over), int(self.offset * over), over

    def of(self, value: float) -> float:
        """Return a value in the other unit."""
        times, plus, over = self.parts
        return (value * times + plus) / over

    def inverse(self) -> Conversion:
        """Return the conversion back."""
        return Conversion(1 / self.factor, -self.offset / self.factor)


#: The conversion of a unit to itself.
IDENTITY = Conversion(Fraction(1))


class _Quantity(NamedTuple):
    """A unit: ``factor`` times the base unit of its kind (g, mol, U, L, a count or a fraction; "mass/L" per liter).

    The zero of its scale is at ``zero`` base units.
    """

    factor: Fraction
    kind: str
    zero: Fraction = Fraction(0)


_PREFIXES = {
    "kilo": 3, "k": 3, "": 0, "deci": -1, "d": -1, "centi": -2, "c": -2, "milli": -3, "m": -3, "micro": -6, "mc": -6,
    "u": -6, "nano": -9, "n": -9, "pico": -12, "p": -12, "femto": -15, "f": -15,
}  # fmt: skip
_PREFIX = "|".join(sorted(_PREFIXES, key=len, reverse=True))
_NUMERATORS = {
    "mass": "g|gm|gr|gram|grams|gramm",
    "amount": "mol|mole|moles",
    "equivalent": "eq|equiv|equivalents?|val",
    "osmole": "osm|osmol|osmole|osmoles",
    "activity": "u|iu|ui|e|unit|units",
    "katal": "kat|katal",
    "volume": "l|liter|liters|litre|litres",
    "pressure": "pa",
    "length": "m|meters?|metres?",
    "time": "s|sec|secs|second|seconds",
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
_COUNTED = re.compile(r"(?:cells?|wbcs?|rbcs?|copies|cfu|beats?|breaths?|resp|insp|1|#|n)?")
_FRACTIONS = {"%": -2, "percent": -2, "pct": -2, "percentage": -2, "prozent": -2, "vol%": -2, "vol-%": -2,
              "\u2030": -3, "1": 0,
              "ratio": 0, "fraction": 0, "proportion": 0, "decimal": 0}  # fmt: skip
_MINUTE, _HOUR, _DAY = Fraction(60), Fraction(3600), Fraction(86400)
_MMHG, _CMH2O = Fraction("133.322"), Fraction("98.0665")  # Pa; UCUM
#: Units that are no prefix and name, by kind: spelling -> factor.
_UNITS: Mapping[str, Mapping[str, Fraction | int]] = {
    "fraction": {name: Fraction(10) ** power for name, power in _FRACTIONS.items()},
    "amount/L": {"um": Fraction(1, 10**6), "nm": Fraction(1, 10**9)},  # micromolar
    "pressure": {
        **dict.fromkeys(("mmhg", "torr"), _MMHG), "cmhg": 10 * _MMHG, "cmh2o": _CMH2O, "mbar": 100, "bar": 10**5,
        "atm": 101325,
    },
    "temperature": dict.fromkeys(
        ("cel", "c", "degc", "\u00b0c", "celsius", "deg.c", "degreesc", "degreescelsius", "gradcelsius"), 1
    ),
    "mass": {
        **dict.fromkeys(("lb", "lbs", "lb_av", "pound", "pounds"), Fraction("453.59237")),
        **dict.fromkeys(("oz", "oz_av", "ounce", "ounces"), Fraction("28.349523125")),
    },
    "length": dict.fromkeys(("in", "in_i", "inch", "inches", "in_us"), Fraction("0.0254")),
    "time": {
        **dict.fromkeys(("min", "mins", "minute", "minutes"), _MINUTE),
        **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), _HOUR),
        **dict.fromkeys(("d", "day", "days"), _DAY), "wk": 7 * _DAY,
    },
    "area": dict.fromkeys(("m2", "m^2", "sqm"), 1),
    "count/time": dict.fromkeys(("bpm", "brpm", "rpm", "insp/min"), 1 / _MINUTE),
    "field": {"hpf": 1}, "low field": {"lpf": 1},
}  # fmt: skip
_WHOLE = {name: [_Quantity(Fraction(factor), kind)] for kind, units in _UNITS.items() for name, factor in units.items()}
_FAHRENHEIT = _Quantity(Fraction(5, 9), "temperature", -32 * Fraction(5, 9))
_WHOLE |= {
    name: [_FAHRENHEIT] for name in ("f", "degf", "\u00b0f", "fahrenheit", "deg.f", "degreesf", "degreesfahrenheit")
}
_WHOLE["mm"] = [_Quantity(Fraction(1, 10**3), "amount/L"), _Quantity(Fraction(1, 10**3), "length")]
_SUPERSCRIPTS = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
#: How a note after a unit starts: a word ("derived"), a bracket, a temperature; never an operator or other number.
_NOTE = re.compile(r"(?!x\s*\d|per\b)(?:[^\W\d_]|[(\[,;@]|37(?!\d))", re.IGNORECASE)
#: D-dimer units (DDU), whose numbers are about half of those in fibrinogen equivalent units, which others are in.
_DDU = re.compile(r"(?<![a-z])d-?d(?:imer)?[- ]?(?:u|units?)(?![a-z])", re.IGNORECASE)


#: What ``conversion`` says of a unit, unless it knows better.
_OWN_FACTOR = "convert the values with your laboratory's factor"
#: The master equation of HbA1c, % (NGSP) = 0.09148 * mmol/mol (IFCC) + 2.152 (ngsp.org/ifcc.asp; Hoelzel et al., Clin
#: Chem 2004;50:166), for fractions: the base unit is NGSP's.
_NGSP = Conversion(Fraction("0.9148"), Fraction("0.02152"))
#: Percentages of HbA1c on other scales than NGSP's.
_OTHER_HBA1C = re.compile(r"\s*%.*\b(?:ifcc|jds|jscc|mono[- ]?s)\b", re.IGNORECASE | re.DOTALL)


def conversion(text: str, indicator: Indicator) -> Conversion | str:
    """Return how values in a unit become values in the indicator's unit.

    Args:
        text: A unit from a file, possibly followed by a note ("10^9/L derived"); blank = not given.
        indicator: Its unit "" = no unit, so any ``text`` is accepted. A unit that cannot be parsed, such as "points",
            matches only itself, in any letter case.

    Returns:
        The exact conversion, ``IDENTITY`` if ``text`` is blank or means the indicator's unit; or, as a clause for a
        message, why there is none and what to do.
    """
    return _conversion(text, indicator.unit, indicator.molar_mass, indicator.charge, indicator.scale)


def kind_of(text: str) -> str:
    """Return what a unit measures, such as "mass/L"; "" if it is unknown. Of several meanings, it is the first."""
    return next((each.kind for each in _quantities(_canonical(text))), "")


def is_unit(text: str) -> bool:
    """Return whether a text is a unit that can be parsed."""
    return bool(text.strip()) and bool(_quantities(_canonical(text)))


@lru_cache(maxsize=16384)
def _conversion(text: str, expected: str, molar_mass: float | None, charge: int | None, scale: str) -> Conversion | str:
    if scale == HBA1C and _OTHER_HBA1C.match(text):
        return f"it is neither % (NGSP) nor mmol/mol (IFCC); {_OWN_FACTOR}"
    if bool(_DDU.search(text)) != bool(_DDU.search(expected)) and text.strip() and expected:
        return f"one of it and {expected} is in D-dimer units (DDU), the other not; {_OWN_FACTOR}"
    if not text.strip() or not expected or _canonical(text) == _canonical(expected):
        return IDENTITY
    if not (units := _quantities(_canonical(expected))):
        return f"write {expected}, or {_OWN_FACTOR}"
    found, wanted = _parse(text), units[0]
    if scale == HBA1C:
        found, wanted = [_by_ngsp(each) for each in found], _by_ngsp(wanted)
    ways = {_way(each, wanted) for each in found if each.kind == wanted.kind}
    if not ways:
        goal = _by_mass(wanted, molar_mass, charge)
        masses = [_by_mass(each, molar_mass, charge) for each in found]
        ways = {_way(each, goal) for each in masses if each.kind == goal.kind}
    if IDENTITY in ways or len(ways) == 1:
        return IDENTITY if IDENTITY in ways else ways.pop()
    if ways:
        return f"it has several meanings; write {expected}, or another unit that has one"
    return _no_way(found, wanted, expected)


def _way(found: _Quantity, wanted: _Quantity) -> Conversion:
    return Conversion(found.factor / wanted.factor, (found.zero - wanted.zero) / wanted.factor)


def _no_way(found: list[_Quantity], wanted: _Quantity, expected: str) -> str:
    if not found:
        return f"it is an unknown unit; if it means {expected}, write {expected}, otherwise {_OWN_FACTOR}"
    kinds = {each.kind for each in found}
    for known, key in (("equivalent", "charge"), ("amount", "molar_mass"), ("mass", "molar_mass")):
        for other in {"amount", "mass"} - {known}:
            if {kind.replace(known, other) for kind in kinds} & {wanted.kind.replace(known, other)}:
                return f"give the indicator its {key} in the schema, or {_OWN_FACTOR}"
    if kinds | {wanted.kind} == {"fraction", "amount/amount"}:
        return f'if this is HbA1c, give the indicator scale = "{HBA1C}" in the schema; otherwise {_OWN_FACTOR}'
    return f"it does not measure the same quantity as {expected}; {_OWN_FACTOR}"


def _by_ngsp(quantity: _Quantity) -> _Quantity:
    """Return a fraction (NGSP) or a ratio of amounts (IFCC) of HbA1c on one scale."""
    match quantity.kind:
        case "fraction":
            return quantity._replace(kind=HBA1C)
        case "amount/amount":
            return _Quantity(_NGSP.factor * quantity.factor, HBA1C, _NGSP.offset)
    return quantity


def _by_mass(quantity: _Quantity, molar_mass: float | None, charge: int | None) -> _Quantity:
    """Return a quantity with equivalents and amounts of substance as mass, as far as the factors are known."""
    factor, parts = quantity.factor, quantity.kind.split("/")
    for i, power in enumerate((1, -1)[: len(parts)]):
        if parts[i] == "equivalent" and charge:
            factor, parts[i] = factor / Fraction(charge) ** power, "amount"
        if parts[i] == "amount" and molar_mass:
            factor, parts[i] = factor * Fraction(str(molar_mass)) ** power, "mass"
    return quantity._replace(factor=factor, kind="/".join(parts))


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
    return re.sub(r"(?<=m)\^(?=[23]\b)", "", text)  # mm^3


def _quantities(text: str) -> list[_Quantity]:
    """Return the possible meanings of a unit in canonical spelling, if any; the "g" of G/L is giga or gram."""
    if text in _WHOLE:
        return _WHOLE[text]
    if match := re.fullmatch(r"(.*gm?)%", text):  # mg% is mg/dl
        text = f"{match[1]}/dl"
    text = re.sub(r"/(?:1\.73(?:m2|sqm)?)?$", "", text)  # of a body's surface, which clearances are given for
    above, slash, below = text.partition("/")
    if not slash:
        return [*_measures(above), *(_Quantity(Fraction(10) ** power, "volume") for power in _cube(above))]
    if re.fullmatch(r"cells?|cel|rbc", below):
        return [each for each in _measures(above) if each.kind in ("mass", "volume")]  # pg/cell
    if re.fullmatch(r"100(?:wbcs?|cells?|leukocytes?|leucocytes?)?", below):
        return [_Quantity(Fraction(1, 100), "fraction")] if _COUNTED.fullmatch(above) else []
    return [
        _Quantity(one.factor / other.factor, _ratio(one.kind, other.kind))
        for other in _denominators(below)
        for one in (*_measures(above), *_counts(above))
    ]


def _ratio(above: str, below: str) -> str:
    if above == below == "volume":
        return "fraction"
    return f"{above}/{'L' if below == 'volume' else below}"


def _denominators(text: str) -> list[_Quantity]:
    """Return the possible meanings of what stands below the line: "100ml", "24h", "min"."""
    match = re.fullmatch(r"(\d{0,4})(.*)", text, re.DOTALL)
    if not match or match[1] in ("0", "00", "000", "0000"):
        return []
    found = [*_measures(match[2]), *(_Quantity(Fraction(10) ** power, "volume") for power in _cube(match[2]))]
    kinds = ("volume", "time", "mass", "amount", "area", "field", "low field")
    return [each._replace(factor=each.factor * int(match[1] or 1)) for each in found if each.kind in kinds]


def _measures(text: str) -> Iterator[_Quantity]:
    if "/" not in text and text not in _FRACTIONS:
        yield from (each for each in _WHOLE.get(text, ()) if "/" not in each.kind)
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
        if _COUNTED.fullmatch(rest.lstrip("*")):
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
