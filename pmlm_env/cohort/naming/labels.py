"""Which labels a text names as a diagnosis."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pmlm_env.cohort.naming.mentions import find_mentions
from pmlm_env.cohort.naming.status import NAMED, STATUSES, Status
from pmlm_env.core.labels import Label


def named_labels(text: str, labels: Iterable[Label], language: str = "en") -> set[str]:
    """Return the names of the ``labels`` that ``text`` names as a diagnosis, by name or alias.

    Matches whole words, ignoring case; the longest match wins ("gestational diabetes" does not name a label
    "diabetes" if both are in ``labels``); a condition that is denied or ruled out is not named (see
    ``pmlm_env.cohort.naming.english`` and ``pmlm_env.cohort.naming.chinese``).

    A regular English plural of a label's last word names it too: "kidney stones" names "kidney stone", and the reverse.

    A label with ``no_finding`` is named by its aliases only, as they are, and only if no other label is named: beside a
    diagnosis, "no abnormality" refers to something else.

    Args:
        text: Any text.
        labels: The labels to look for.
        language: The text's language as a BCP 47 tag; see ``find_mentions``.
    """
    return {name for name, status in mentioned_labels(text, labels, language).items() if status in NAMED}


def mentioned_labels(text: str, labels: Iterable[Label], language: str = "en") -> dict[str, Status]:
    """Return the ``labels`` that ``text`` mentions, by name or alias, each with what the text says of it.

    Of several mentions of a label, the one that asserts the condition counts, or else the one that considers it
    possible, or else the one that denies it. Phrases are found as in ``named_labels``; a label with ``no_finding`` is
    left out where another label is named.

    Args:
        text: Any text.
        labels: The labels to look for.
        language: The text's language as a BCP 47 tag; see ``find_mentions``.

    Returns:
        For each label's name, ``asserted``, ``possible``, ``denied`` or ``other`` (see
        ``pmlm_env.cohort.naming.english``).
    """
    labels = tuple(labels)
    found: dict[str, Status] = {}
    for mention in find_mentions(text, _phrases_of(labels), language):
        found[mention.label] = min(mention.status, found.get(mention.label, "other"), key=STATUSES.index)
    without = {label.name for label in labels if label.no_finding}
    if any(status in NAMED for name, status in found.items() if name not in without):
        return {name: status for name, status in found.items() if name not in without}
    return found


def _phrases_of(labels: tuple[Label, ...]) -> dict[str, tuple[str, ...]]:
    """Return the phrases that name each label; a plural or singular that is a phrase of its own is not another's."""
    known = {phrase.lower() for label in labels for phrase in (label.name, *label.aliases)}
    phrases: dict[str, tuple[str, ...]] = {}
    for label in labels:
        own = label.aliases if label.no_finding else (label.name, *label.aliases)
        others = () if label.no_finding else (_other_number(phrase.strip()) for phrase in own)
        phrases[label.name] = (*own, *(other for other in others if other.lower() not in known))
    return phrases


def _other_number(phrase: str) -> str:
    """Return the regular plural of a phrase in the singular, or the singular of a plural.

    One that ends in a short word or an acronym is returned as it is: "AIDS" is no plural, and "PROMs" are not "PROM".
    """
    if not re.search(r"[a-z]{4}\Z", phrase) or phrase.endswith(("ss", "us", "is", "ies")):
        return phrase
    if phrase.endswith("s"):
        return phrase[:-1] if re.search(r"[a-z]{5}\Z", phrase) else phrase
    if re.search(r"[^aeiou]y\Z", phrase):
        return f"{phrase[:-1]}ies"
    return f"{phrase}es" if phrase.endswith(("ch", "sh", "x")) else f"{phrase}s"
