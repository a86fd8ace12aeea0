"""What FHIR's elements say: names, dates, quantities and texts (hl7.org/fhir/R4/datatypes.html)."""

from __future__ import annotations

import base64
import binascii
import re
from html.parser import HTMLParser
from typing import Any, NamedTuple

from pmlm_env.cohort.sources.fhir.resources import items, part, reference_id, text

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
#: Longest text in an attachment, in characters of base64.
_LONGEST = 2**24
#: SNOMED CT ends a fully specified name with the kind of concept.
_SEMANTIC_TAG = re.compile(
    r"\s*\((disorder|finding|situation|person|event|morphologic abnormality|procedure|regime/therapy"
    r"|qualifier value)\)$"
)
_COMPARATORS = ("<", "<=", ">", ">=")


class Code(NamedTuple):
    """What a CodeableConcept says: the LOINC code, if any, and a name."""

    loinc: str
    name: str


class Value(NamedTuple):
    """A result: its text, a number or words, and its unit; or why there is none."""

    text: str
    unit: str = ""
    why_not: str = ""


def named_code(concept: Any) -> Code:
    """Return the code and the name of a CodeableConcept, the name that LOINC gives first."""
    codings = items(part({"concept": concept}, "concept").get("coding"))
    loinc = next((each for each in codings if text(each, "system").rstrip("/") == LOINC), {})
    names = [text(loinc, "display"), text(concept, "text"), *(text(each, "display") for each in codings)]
    codes = [text(each, "code") for each in codings]
    return Code(text(loinc, "code"), next(filter(None, (*names, *codes)), ""))


def _is_unnamed(concept: Any) -> bool:
    """Whether a CodeableConcept has only codes: 10828004, which is "positive" in SNOMED CT, is no number."""
    return not any((text(concept, "text"), *(text(each, "display") for each in items(concept.get("coding")))))


def titles(resource: Any) -> str:
    """Return all that says what kind of document a resource is, for ``letter_rank``."""
    concepts = [resource.get("type"), resource.get("code"), *items(resource.get("category"))]
    words = [text(each, "text") for each in concepts]
    words += [text(coding, "display") for each in concepts for coding in items(part({"x": each}, "x").get("coding"))]
    return " ".join([*words, text(resource, "title"), text(resource, "description")])


def diagnosis_name(concept: Any) -> tuple[str, bool]:
    """Return the name of a diagnosis, and whether it is a disorder rather than a finding or a social circumstance."""
    codings = items(part({"concept": concept}, "concept").get("coding"))
    names = [
        *(text(each, "display") for each in codings),
        text(concept, "text"),
        *(text(each, "code") for each in codings),
    ]
    tags = [match[1] for name in names if (match := _SEMANTIC_TAG.search(name))]
    name = _SEMANTIC_TAG.sub("", next(filter(None, names), ""))
    return name, not tags or "disorder" in tags


def icd_code(concept: Any) -> tuple[str, str]:
    """Return the ICD code and version of a diagnosis; "" if it has none."""
    for coding in items(part({"concept": concept}, "concept").get("coding")):
        system = text(coding, "system").lower()
        if "icd" in system and (code := text(coding, "code")):
            return code, "10" if "10" in system else "9" if "9" in system else ""
    return "", ""


def local_time(value: str) -> str:
    """Return a date or time as it was on the clock of the place, without the offset; "" if it has no day."""
    match = re.match(r"(\d{4}-\d\d-\d\d)(T\d\d:\d\d(?::\d\d)?)?", value)
    return (match[1] + (match[2] or "")) if match else ""


def observed_time(observation: Any) -> str:
    """Return when a result was true of the patient; when it was issued, if that is all."""
    period = part(observation, "effectivePeriod")
    times = [text(observation, "effectiveDateTime"), text(observation, "effectiveInstant")]
    times += [text(period, "start"), text(period, "end"), text(observation, "issued")]
    return next((found for each in times if (found := local_time(each))), "")


def value_of(element: Any) -> Value:
    """Return the value of an Observation or one of its components."""
    if quantity := part(element, "valueQuantity"):
        number, unit = text(quantity, "value"), text(quantity, "unit")
        if text(quantity, "system").rstrip("/") == UCUM or not unit:
            unit = text(quantity, "code") or unit
        comparator = text(quantity, "comparator")
        if not number:
            return Value("", why_not="without a value")
        return Value(f"{comparator if comparator in _COMPARATORS else ''}{number}", unit)
    if number := text(element, "valueInteger") or text(element, "valueString"):
        return Value(number)
    if concept := part(element, "valueCodeableConcept"):
        word = _SEMANTIC_TAG.sub("", named_code(concept).name) or "coded"
        return Value(f"code {word}" if word[0].isdigit() and _is_unnamed(concept) else word)
    if isinstance(found := element.get("valueBoolean"), bool):
        return Value(str(found).lower())
    if any(name.startswith("value") and not name.startswith("value_") for name in element):
        return Value("", why_not="neither a number nor words (such as valueRange)")
    if element.get("dataAbsentReason"):
        return Value("", why_not="not measured (dataAbsentReason)")
    return Value("")


def subject_of(resource: Any) -> str:
    """Return the id of the patient whom a resource is about; "" if it names none."""
    for name in ("subject", "patient"):
        subject = part(resource, name)
        if reference := text(subject, "reference"):
            return "" if reference.startswith(("Group/", "Device/", "Location/")) else reference_id(reference)
        if identifier := text(part(subject, "identifier"), "value"):
            return identifier
    return ""


def encounter_of(resource: Any) -> str:
    """Return the id of the encounter in which something was done; "" if it names none."""
    context = part(resource, "context")
    encounters = [part(resource, "encounter"), *items(context.get("encounter")), context]
    references = [text(each, "reference") for each in encounters]
    return next((reference_id(each) for each in references if each), "")


def attached_text(attachment: Any) -> str | None:
    """Return the text of an attachment; None if it is not text, or is elsewhere."""
    kind, data = text(attachment, "contentType").lower(), text(attachment, "data")
    if not data or len(data) > _LONGEST:
        return None
    if kind and not kind.startswith("text/") and "xml" not in kind:
        return None
    try:
        content = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    charset = re.search(r"charset=\"?([\w-]+)", kind)
    try:
        found = content.decode("utf-8-sig" if charset is None else charset[1])
    except (LookupError, UnicodeDecodeError):
        found = content.decode("cp1252", errors="replace")
    if "\0" in found:
        return None
    return plain_text(found) if "html" in kind or "xml" in kind or found.lstrip().startswith("<") else found


def plain_text(markup: str) -> str:
    """Return the text of HTML or another markup, with a line for each block."""
    parser = _Text()
    parser.feed(markup)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Text(HTMLParser):
    """Collects the text; styles and scripts are left out."""

    _BLOCKS = frozenset("p div br li ul ol tr table h1 h2 h3 h4 h5 h6 title paragraph section item".split())
    _HIDDEN = frozenset(("script", "style", "head"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._hidden += tag in self._HIDDEN
        if tag in self._BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(self._hidden - (tag in self._HIDDEN), 0)
        if tag in self._BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)
