"""Which labels a text names as a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable

from pmlm_env.cohort.naming.english import find_mentions
from pmlm_env.core.labels import Label


def named_labels(text: str, labels: Iterable[Label]) -> set[str]:
    """Return the names of the ``labels`` that ``text`` names as a diagnosis, by name or alias.

    Matches whole words, ignoring case; the longest match wins ("gestational diabetes" does not name a label
    "diabetes" if both are in ``labels``); a condition that is denied or ruled out is not named (see
    ``pmlm_env.cohort.naming.assertion``).

    A label with ``no_finding`` is named by its aliases only, and only if no other label is named: beside a diagnosis,
    "no abnormality" refers to something else.

    Args:
        text: Any text.
        labels: The labels to look for.
    """
    labels = tuple(labels)
    phrases = {label.name: label.aliases if label.no_finding else (label.name, *label.aliases) for label in labels}
    named = {mention.label for mention in find_mentions(text, phrases) if not mention.denied}
    return named - {label.name for label in labels if label.no_finding} or named
