"""One spelling for each label: what differs only in white space, letter case or Unicode form is one label."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pmlm_env.cohort.wording import quoted
from pmlm_env.text import JOINERS

_ALIKE = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | dict.fromkeys("\u2018\u2019\u02bc", "'")
)
_NEAR = 0.9
#: Most labels, and their longest, that are compared with each other: it takes time.
_MOST, _LONGEST = 200, 200


@dataclass(frozen=True)
class Spelling:
    """How a column of labels is read.

    Attributes:
        labels: The label of each row.
        merged: Label -> the other spellings that were read as it.
        doubtful: A line for each rare label that is nearly the same as a frequent one, and stays what it is.
    """

    labels: tuple[str, ...]
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doubtful: tuple[str, ...] = ()


def spell(labels: Sequence[str]) -> Spelling:
    """Give each label one spelling, the most frequent one (of equals the first).

    Spaces at the ends, runs of white space, invisible characters and the composition of accents are put right in
    silence. Full-width letters, letter case, and kinds of hyphen and apostrophe make no other label either.
    """
    tidied = {label: _tidy(label) for label in dict.fromkeys(labels)}
    tidy = [tidied[label] for label in labels]
    counts = Counter(tidy)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label, _ in counts.most_common():
        groups[_key(label)].append(label)
    spelling = {label: group[0] for group in groups.values() for label in group}
    merged = {group[0]: tuple(group[1:]) for group in groups.values() if len(group) > 1}
    result = tuple(spelling[label] for label in tidy)
    return Spelling(result, merged, tuple(_doubtful(Counter(filter(None, result)))))


def _tidy(label: str) -> str:
    seen = "".join(c for c in label if c in JOINERS or unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", " ".join(seen.split()))


def _key(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().translate(_ALIKE).split())


def _doubtful(counts: Counter[str]) -> list[str]:
    """Find what may be typing errors: a label that one patient has, or a tenth of another's patients."""
    lines = []
    known = [label for label in counts if len(label) <= _LONGEST]
    for label in known if len(known) <= _MOST else ():
        count = counts[label]
        others = [other for other in known if counts[other] > count and (count == 1 or counts[other] >= 10 * count)]
        near = difflib.get_close_matches(label, others, n=1, cutoff=_NEAR)
        if near:
            lines.append(f"{quoted(label)} ({count:,} x): did you mean {quoted(near[0])} ({counts[near[0]]:,} x)?")
    return lines
