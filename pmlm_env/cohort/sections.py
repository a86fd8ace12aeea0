"""Sections of a letter by their headings, as doctors and hospital systems write them.

A heading stands at the beginning of a line, in one of these forms:

- ``## Discharge Instructions`` or ``**Diagnosis**`` (Markdown);
- ``【出院诊断】`` or ``[Plan]``, in brackets;
- ``Discharge Instructions:``, alone in its line or followed by the text of the section (``Diagnosis: Anemia.``); a
  full-width colon will do, and a number may come before it (``2. Plan:``);
- ``DISCHARGE DIAGNOSIS``, in capitals, alone in its line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.wording import folded, named, quoted

#: Longest heading, in characters and in words.
_CHARACTERS, _WORDS = 60, 8
_MARKDOWN = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*")
_BOLD = re.compile(r"(\*\*|__)(.+?)(?:[:\uff1a]\s*\1|\1\s*[:\uff1a]?)\s*(.*)", re.DOTALL)
_BRACKETS = re.compile(r"(?:【([^】]+)】|\[([^\]]+)\])\s*[:\uff1a]?\s*(.*)", re.DOTALL)
_COLON = re.compile(r"([^:\uff1a]+?)\s*[:\uff1a](?!\S*//)(?:\s+(.*)|)", re.DOTALL)
_FULL_WIDTH = re.compile(r"([^:\uff1a]+?)\s*\uff1a\s*(.*)", re.DOTALL)
_NUMBER = re.compile(
    r"(?:\d{1,2}|[IVX]{1,4}|[A-Za-z])[.)]\s+|[一二三四五六七八九十]{1,3}[、.]\s*|[\uff08(][一二三四五六七八九十\d]{1,3}[)\uff09]\s*"
)
#: Words that a heading in title case writes small.
_SMALL = frozenset("a an and at by for from in of on or the to with".split())


class _Heading(NamedTuple):
    """A line that begins a section.

    ``style`` says in which form it stands, because a section ends at the next heading in the same form: a "Warning
    signs:" inside instructions under "DISCHARGE INSTRUCTIONS" belongs to them.
    """

    name: str
    style: str
    rest: str


def keep_sections(text: str, names: Collection[str], headings: Collection[str] | None = None) -> str:
    """Return the given sections of a letter, in the letter's order, without their headings.

    Args:
        text: The letter.
        names: The sections' headings, in any letter case, without number, brackets or colon.
        headings: All headings of such letters, if they are known; a section then ends at these alone. Otherwise it ends
            at the next line that is a heading in the same form as its own, or a Markdown heading of a higher level.

    Returns:
        The sections, separated by empty lines; "" if the letter has none of them, or only empty ones.
    """
    wanted = {_key(name) for name in names}
    known = None if headings is None else {_key(name) for name in headings} | wanted
    found: list[list[str]] = []
    style: str | None = None
    for line in text.splitlines():
        heading = _named(line, wanted if known is None else known)
        if heading is not None and _key(heading.name) in wanted:
            found.append([heading.rest])
            style = heading.style
        elif style is not None and (heading is not None if known is not None else _ends(line, style)):
            style = None
        elif style is not None:
            found[-1].append(line)
    parts = ("\n".join(lines).strip() for lines in found)
    return "\n\n".join(part for part in parts if part)


def with_sections(cohort: Cohort, names: Sequence[str]) -> tuple[Cohort, str]:
    """Keep only some sections of every patient's reference.

    Args:
        cohort: The patients.
        names: The sections' headings; see ``keep_sections``.

    Returns:
        The cohort, in which a reference without any of the sections is empty, and a line that counts these.

    Raises:
        CohortError: No reference has one of the sections; the message lists headings that they have.
    """
    kept = [keep_sections(patient.reference, names) for patient in cohort]
    answered = sum(bool(patient.reference) for patient in cohort)
    without = answered - sum(map(bool, kept))
    if answered and without == answered:
        found = Counter(name for patient in cohort for name in headings_of(patient.reference))
        there = f"They have {named([name for name, _ in found.most_common()])}" if found else "They have no headings"
        raise CohortError(f"no reference has a section {' or '.join(map(quoted, names))} with any text. {there}")
    patients = (replace(patient, reference=text) for patient, text in zip(cohort, kept, strict=True))
    line = (
        f"references cut to {named(names)}: {answered - without:,}; without these sections, and now empty: {without:,}"
    )
    return Cohort(tuple(patients), cohort.schema), line


def headings_of(text: str) -> list[str]:
    """Return what looks like a heading in a letter, each once."""
    found = (heading for line in text.splitlines() for heading in _headings(line)[:1])
    return list(dict.fromkeys(name for name, style, _ in found if style.startswith("#") or _is_title(name)))


def _named(line: str, known: Collection[str]) -> _Heading | None:
    """Return the heading at the beginning of a line if it is one of the known ones."""
    return next((heading for heading in _headings(line) if _key(heading.name) in known), None)


def _headings(line: str) -> list[_Heading]:
    """Return the ways to read the beginning of a line as a heading, whatever its name."""
    stripped = line.strip()
    if not stripped:
        return []
    if match := _MARKDOWN.fullmatch(stripped):
        name = re.sub(r"^(\*\*|__)(.*)\1$", r"\2", match[2]).rstrip(":\uff1a ")
        return [_Heading(_NUMBER.sub("", name, count=1), match[1], "")]
    found = []
    if match := _BOLD.fullmatch(stripped):
        found.append(_Heading(_NUMBER.sub("", match[2], count=1), "bold", match[3]))
    if match := _BRACKETS.fullmatch(stripped):
        found.append(_Heading(match[1] or match[2], "brackets", match[3]))
    number = _NUMBER.match(stripped)
    body = stripped[number.end() :] if number else stripped
    for pattern in (_COLON, _FULL_WIDTH):
        if match := pattern.fullmatch(body):
            rest = match[2] or ""
            found.append(_Heading(match[1], _style(match[1], alone=not rest.strip()), rest.strip()))
    if len(body) <= _CHARACTERS and (body.isupper() or number):
        found.append(_Heading(body, "capitals" if body.isupper() else "number", ""))
    return found


def _style(name: str, *, alone: bool) -> str:
    return "capitals" if name.isupper() else "line" if alone else "inline"


def _ends(line: str, style: str) -> bool:
    """Whether a line is a heading that ends a section whose own heading has this style."""
    for name, other, _ in _headings(line):
        if other.startswith("#"):
            if not style.startswith("#") or len(other) <= len(style):
                return True
        elif other == style and _is_title(name):
            return True
        elif style == "inline" and other == "line" and _is_title(name):
            return True
    return False


def _is_title(name: str) -> bool:
    """Whether a text looks like a heading: few words, which begin with capitals, or without letter case."""
    words = name.split()
    if len(name) > _CHARACTERS or not 1 <= len(words) <= _WORDS or re.search(r"[.!?;。\uff01\uff1f\uff1b]", name):
        return False
    cased = [word for word in words if word[0].isalpha() and word.casefold() not in _SMALL]
    return bool(cased) and all(not word[0].islower() for word in cased) and not words[0][0].islower()


def _key(name: str) -> str:
    """Return a heading's name for comparison: without number, marks, case and width."""
    return folded(_NUMBER.sub("", name.strip().strip("*_#【】[]").strip(), count=1).rstrip(":\uff1a "))
