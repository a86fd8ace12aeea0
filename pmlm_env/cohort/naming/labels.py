"""Which labels a text names as a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable

from pmlm_env.cohort.naming.mentions import find_mentions
from pmlm_env.cohort.naming.status import NAMED, STATUSES, Status
from pmlm_env.core.labels import Label


def named_labels(text: str, labels: Iterable[Label], language: str = "en") -> set[str]:
    """Return the names of the ``labels`` that ``text`` names as a diagnosis, by name or alias.

    Matches whole words, ignoring case; the longest match wins ("gestational diabetes" does not name a label
    "diabetes" if both are in ``labels``); a condition that is denied or ruled out is not named (see
    ``pmlm_env.cohort.naming.english`` and ``pmlm_env.cohort.naming.chinese``).

    A label with ``no_finding`` is named by its aliases only, and only if no other label is named: beside a diagnosis,
    "no abnormality" refers to something else.

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
    phrases = {label.name: label.aliases if label.no_finding else (label.name, *label.aliases) for label in labels}
    found: dict[str, Status] = {}
    for mention in find_mentions(text, phrases, language):
        found[mention.label] = min(mention.status, found.get(mention.label, "other"), key=STATUSES.index)
    without = {label.name for label in labels if label.no_finding}
    if any(status in NAMED for name, status in found.items() if name not in without):
        return {name: status for name, status in found.items() if name not in without}
    return found
