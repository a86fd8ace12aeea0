"""Unifying spellings of labels that differ only in whitespace, letter case or Unicode form."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pmlm_env.cohort.wording import folded, quoted, tidy

_SIMILAR = 0.85
#: Punctuation around a label.
_OUTER_PUNCTUATION = re.compile(r"^\W+|\W+$")
#: Limits on the number and length of labels compared with each other, which takes quadratic time.
_MAX_LABELS, _MAX_LENGTH = 200, 200


@dataclass(frozen=True)
class LabelSpellings:
    """The labels of a column, each with one spelling.

    Attributes:
        labels: The label of each row.
        merged: Label -> its other spellings in the file.
        doubtful: A line for each label that may be a misspelling of another; it is left unchanged.
    """

    labels: tuple[str, ...]
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doubtful: tuple[str, ...] = ()


def unify_spelling(labels: Sequence[str], known: Iterable[str]) -> LabelSpellings:
    """Give each label the spelling in ``known`` or else its most frequent one (the first of equally frequent ones).

    Whitespace, invisible characters and the composition of accents are normalized without a report. Spellings that
    differ in letter case, character width, hyphens or apostrophes are merged and reported.
    """
    tidied = {label: tidy(label) for label in dict.fromkeys(labels)}
    spellings = [tidied[label] for label in labels]
    counts = Counter(spellings)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label, _ in counts.most_common():
        groups[folded(label)].append(label)
    preferred = {folded(label): label for label in known}
    chosen = {preferred.get(key, group[0]): group for key, group in groups.items()}
    spelling = {label: name for name, group in chosen.items() for label in group}
    others = {name: tuple(label for label in group if label != name) for name, group in chosen.items()}
    merged = {name: labels for name, labels in others.items() if labels}
    result = tuple(spelling[label] for label in spellings)
    return LabelSpellings(result, merged, tuple(_doubtful(Counter(filter(None, result)))))


def _doubtful(counts: Counter[str]) -> list[str]:
    """Describe labels that may contain typing errors.

    A label is reported if it differs from another only in surrounding punctuation, or if it resembles another and
    either occurs once or is at most a tenth as frequent.
    """
    lines = []
    cores: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(counts, key=len):
        cores[_OUTER_PUNCTUATION.sub("", folded(label))].append(label)
    for group in cores.values():
        lines += [_suggestion_line(label, group[0], counts) for label in group[1:]]
    reported = {label for group in cores.values() for label in group[1:]}
    known = [label for label in counts if len(label) <= _MAX_LENGTH and label not in reported]
    for label in known if len(known) <= _MAX_LABELS else ():
        count = counts[label]
        others = [other for other in known if counts[other] > count and (count == 1 or counts[other] >= 10 * count)]
        similar = difflib.get_close_matches(label, others, n=1, cutoff=_SIMILAR)
        if similar:
            lines.append(_suggestion_line(label, similar[0], counts))
    return lines


def _suggestion_line(label: str, other: str, counts: Counter[str]) -> str:
    return f"{quoted(label)} ({counts[label]:,} x): did you mean {quoted(other)} ({counts[other]:,} x)?"
