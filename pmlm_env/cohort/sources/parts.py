"""Joining the parts of a large cohort, and what was reported of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import Any

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.cohort.sources.labels import unify_spelling
from pmlm_env.cohort.sources.report import ReadReport
from pmlm_env.cohort.wording import SHOWN


def joined(parts: Iterable[tuple[Cohort, ReadReport]]) -> tuple[Cohort, ReadReport]:
    """Return all patients as one cohort, and what was reported of them.

    Labels that differ only in their spelling are merged, as within a part.

    Args:
        parts: At least one part with its report, all of the same schema.
    """
    patients: list[Patient] = []
    reports: list[ReadReport] = []
    for cohort, report in parts:
        schema = cohort.schema
        patients += cohort
        reports.append(report)
    spelling = unify_spelling([patient.label for patient in patients], [label.name for label in schema.labels])
    for i, label in enumerate(spelling.labels):
        if patients[i].label != label:
            patients[i] = replace(patients[i], label=label)
    merged = _together([spelling.merged, *(report.merged_labels for report in reports)])
    report = ReadReport(
        **{each.name: _together([getattr(report, each.name) for report in reports]) for each in _FIELDS}
    )
    frequent = dict(Counter(report.frequent_words).most_common(SHOWN))
    report = replace(report, merged_labels=merged, doubtful_labels=spelling.doubtful, frequent_words=frequent)
    return Cohort(tuple(patients), schema), replace(report, examples=report.examples[:SHOWN])


_FIELDS = fields(ReadReport)


def _together(values: Sequence[Any]) -> Any:
    """Return the sum of numbers and of counts, what is true of any part, and different texts once."""
    first = values[0]
    if isinstance(first, bool):
        return any(values)
    if isinstance(first, int):
        return sum(values)
    if isinstance(first, tuple):
        return tuple(dict.fromkeys(chain.from_iterable(values)))
    assert isinstance(first, Mapping)
    found: dict[str, Any] = {}
    for name, value in chain.from_iterable(each.items() for each in values):
        found[name] = _together([found[name], value]) if name in found and not isinstance(value, str) else value
    return found
