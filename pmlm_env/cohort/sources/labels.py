"""One spelling for each label: what differs only in white space, letter case or Unicode form is one label."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pmlm_env.cohort.wording import folded, quoted, tidy

_NEAR = 0.9
#: Punctuation around a label.
_OUTER = re.compile(r"^\W+|\W+$")
#: Most labels, and their longest, that are compared with each other: it takes time.
_MOST, _LONGEST = 200, 200


@dataclass(frozen=True)
class Spelling:
    """How a column of labels is read.

    Attributes:
        labels: The label of each row.
        merged: Label -> the other spellings that were read as it.
        doubtful: A line for each label that may be a misspelling of another, and stays what it is.
    """

    labels: tuple[str, ...]
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doubtful: tuple[str, ...] = ()


def spell(labels: Sequence[str]) -> Spelling:
    """Give each label one spelling, the most frequent one (of equals the first).

    Spaces at the ends, runs of white space, invisible characters and the composition of accents are put right in
    silence. Full-width letters, letter case, and kinds of hyphen and apostrophe make no other label either.
    """
    tidied = {label: tidy(label) for label in dict.fromkeys(labels)}
    written = [tidied[label] for label in labels]
    counts = Counter(written)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label, _ in counts.most_common():
        groups[folded(label)].append(label)
    spelling = {label: group[0] for group in groups.values() for label in group}
    merged = {group[0]: tuple(group[1:]) for group in groups.values() if len(group) > 1}
    result = tuple(spelling[label] for label in written)
    return Spelling(result, merged, tuple(_doubtful(Counter(filter(None, result)))))


def _doubtful(counts: Counter[str]) -> list[str]:
    """Find what may be typing errors.

    That is a label that is another but for punctuation around it; or one that is nearly another, and that one patient
    has, or a tenth of the other's patients.
    """
    lines = []
    cores: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(counts, key=len):
        cores[_OUTER.sub("", folded(label))].append(label)
    for group in cores.values():
        lines += [_question(label, group[0], counts) for label in group[1:]]
    asked = {label for group in cores.values() for label in group[1:]}
    known = [label for label in counts if len(label) <= _LONGEST and label not in asked]
    for label in known if len(known) <= _MOST else ():
        count = counts[label]
        others = [other for other in known if counts[other] > count and (count == 1 or counts[other] >= 10 * count)]
        near = difflib.get_close_matches(label, others, n=1, cutoff=_NEAR)
        if near:
            lines.append(_question(label, near[0], counts))
    return lines


def _question(label: str, other: str, counts: Counter[str]) -> str:
    return f"{quoted(label)} ({counts[label]:,} x): did you mean {quoted(other)} ({counts[other]:,} x)?"
