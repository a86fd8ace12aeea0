"""Recognizing an indicator by its LOINC code, or by its name as laboratories, MIMIC, OMOP and FHIR write it.

``Hemoglobin [Mass/volume] in Blood``, ``Hemoglobin, Blood``, ``hemoglobin (g/dL)`` and ``HGB`` are one indicator;
``Glucose (Urine)`` is another than ``Glucose``; ``Neutrophils`` in % is another than ``Neutrophils`` in 10^9/L.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from pmlm_env.cohort.indicator import Indicator
from pmlm_env.cohort.schema import COMMON, Schema
from pmlm_env.cohort.units import Conversion, conversion, is_unit
from pmlm_env.cohort.wording import folded, tidy

#: Longer names are nobody's; the expressions below take quadratic time for some of them.
_LONGEST = 200

#: Parts of a name, in order: what they are replaced by. "[#/volume]" and "--sitting" are LOINC's (loinc.org).
_PARTS = [
    (re.compile(r"\[#[^\]]*\]"), " count "),
    (re.compile(r"\[(presence|interpretation|type|identifier)[^\]]*\]"), r" \1 "),
    (re.compile(r"\[partial pressure\]"), " partial pressure "),
    (re.compile(r"\[[^\]]*\]"), " "),
    (re.compile(r"--.*|\bby (?:automated|manual|calculation|coagulation|test strip|immunoassay|electrophoresis|"
                r"pulse oximetry|oximetry|direct assay|high sensitivity|westergren|photometric|noninvasive|estimated|"
                r"creatinine-based|flow cytometry|light microscopy|[a-z0-9, /()-]*(?:assay|method|formula))\b.*"), " "),
    (re.compile(r"\b(?:in|of)\s+(?:platelet poor plasma|mixed venous blood|arterial blood|capillary blood|"
                r"red blood cells|body fluid)\b|\bplatelet poor\b"), " "),
    (re.compile("%"), " percent "),
    (re.compile("haem"), "hem"),
    (re.compile("leuco"), "leuko"),
]  # fmt: skip
#: Words that do not tell indicators apart: the usual specimens, and how a value was had.
_IDLE = frozenset(
    "a an and auto automated bld blood calc calculated capillary in lab level levels lvl manual measured measurement "
    "of on or plasma quant quantitative reported result ser serum test the value whole".split()
)
#: Specimens that do: a name with one of these words is never that of an indicator of blood.
_SPECIMENS = frozenset(
    "amniotic ascites ascitic bile cerebrospinal cord csf dialysate dialysis drain effusion feces fetal fluid "
    "joint marrow mixed pericardial peritoneal pleural saliva sediment semen sputum stool sweat synovial umbilical "
    "urinary urine venous vitreous 尿 尿液 脑脊液 粪便 胸水 腹水".split()
)
_BRACKETS = re.compile(r"\s*[(\[]([^()\[\]]*)[)\]]\s*$")


class Name(NamedTuple):
    """The name of a column or of a row's indicator, and the unit that it states: "hemoglobin (g/dL)"."""

    text: str
    unit: str


def split_name(text: str) -> Name:
    """Return a name without the unit that stands in brackets at its end, if that is a unit."""
    text = tidy(text)
    match = _BRACKETS.search(text[:_LONGEST])
    if match and len(text) <= _LONGEST and text[: match.start()] and is_unit(match[1]):
        return Name(text[: match.start()], tidy(match[1]))
    return Name(text, "")


class Catalogue:
    """The indicators of a schema, by codes and by the words of their names and synonyms.

    A code that several indicators have, such as that of a panel or a device, tells none of them.
    """

    def __init__(self, schema: Schema) -> None:
        """Index a schema."""
        self.schema = schema
        owners = Counter(code for each in schema.indicators for code in dict.fromkeys(each.codes))
        self.by_code = {code: each for each in schema.indicators for code in each.codes if owners[code] == 1}
        self.by_words: dict[tuple[str, ...], Indicator] = {}
        for indicator in schema.indicators:
            for name in (indicator.name, *indicator.synonyms):
                self.by_words.setdefault(_words(name), indicator)
        self.by_words.pop((), None)

    def find(self, name: str, unit: str = "", code: str = "") -> Indicator | None:
        """Return the first of ``all``; None if there is none."""
        return next(iter(self.all(name, unit, code)), None)

    def all(self, name: str, unit: str = "", code: str = "") -> list[Indicator]:
        """Return the indicators that values with this name, unit and LOINC code may be of.

        The code decides if the catalogue has it. Of the indicators that the name may mean, those are returned whose
        unit values in ``unit`` can be converted to. A blank ``unit`` fits all; "" for ``code`` = not given.
        """
        coded = self.by_code.get(code.strip())
        meant = self._meant(name) if coded is None else [coded]
        return [each for each in dict.fromkeys(meant) if isinstance(conversion(unit, each), Conversion)]

    def _meant(self, name: str) -> Iterator[Indicator]:
        for words in _readings(name):
            stem = set(words) - {"count"}
            for several in (words, stem | {"count"}, stem | {"percent"}, stem):
                if stem and (each := self.by_words.get(tuple(sorted(several)))):
                    yield each


@cache
def common() -> Catalogue:
    """Return the catalogue of common indicators, which comes with the package."""
    return Catalogue(Schema.load(COMMON))


def _readings(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of a name, then without what stands in brackets, then only that, unless it is of a specimen."""
    words = _words(name)
    yield words
    if "(" in name and not _SPECIMENS & set(words):
        yield _words(re.sub(r"\([^()]*\)", " ", name[:_LONGEST]))
        for inner in re.findall(r"\(([^()]*)\)", name[:_LONGEST]):
            yield _words(inner)


def _words(name: str) -> tuple[str, ...]:
    """Return the words that tell a name from others, sorted, in the singular; none of a name that is too long."""
    if len(name) > _LONGEST:
        return ()
    text = folded(tidy(name)).replace("_", " ")
    for pattern, by in _PARTS:
        text = pattern.sub(by, text)
    words = {_singular(word) for word in re.findall(r"[^\W_]+", text) if word not in _IDLE}
    return tuple(sorted(words))


def _singular(word: str) -> str:
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "sis"))
    return word[:-1] if plural else word
