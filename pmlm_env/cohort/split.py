"""Train, validation and test by date, as in the paper ("Data")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, parse_datetimes
from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.wording import SHOWN, bare, named, quoted, suggestion


@dataclass(frozen=True)
class Split:
    """Three disjoint cohorts, each in the original order.

    Attributes:
        train: Index date up to and including the first cut.
        validation: After the first cut, up to and including the second.
        test: The rest.
    """

    train: Cohort
    validation: Cohort
    test: Cohort


def split_by_date(
    cohort: Cohort,
    *,
    train_until: str = "2021-12-31",
    validation_until: str = "2022-06-30",
    by: str = "split_date",
) -> Split:
    """Split a cohort by each patient's index date, so that a patient is in one part only.

    Args:
        cohort: All patients.
        train_until: Last day of train, YYYY-MM-DD.
        validation_until: Last day of validation; the same day as ``train_until`` means no validation.
        by: "split_date", or the name of a date column in ``Patient.extra``.

    Returns:
        The three parts; any may be empty.

    Raises:
        CohortError: A cut is not a date, the cuts are in the wrong order, or a patient lacks the date.
    """
    cuts = parse_datetimes([train_until, validation_until]).astype("datetime64[D]")
    options = ("--train-until", "--validation-until")
    for option, text, cut in zip(options, (train_until, validation_until), cuts, strict=True):
        if np.isnat(cut):
            raise CohortError(f"{option} {bare(text)} is not a date; write YYYY-MM-DD")
    if cuts[0] > cuts[1]:
        raise CohortError(f"--train-until {train_until} is after --validation-until {validation_until}; swap them")
    # 0: up to the first cut, 1: up to the second, 2: later.
    part = np.searchsorted(cuts, index_dates(cohort, by), side="left")
    train, validation, test = (cohort.take(np.flatnonzero(part == k)) for k in range(3))
    return Split(train, validation, test)


def index_dates(cohort: Cohort, by: str) -> npt.NDArray[np.datetime64]:
    """Return the date that each patient is split by, shape (N,), datetime64[D].

    Raises:
        CohortError: A patient lacks the date.
    """
    if by == "split_date":
        texts = [str(patient.split_date) for patient in cohort]
        days = np.array([patient.split_date for patient in cohort], dtype="datetime64[D]")
    else:
        without = [patient.patient_id for patient in cohort if by not in patient.extra]
        if without:
            known = ["split_date", *dict.fromkeys(name for patient in cohort for name in patient.extra)]
            raise CohortError(
                f"--split-by {bare(by)}{suggestion(by, known)}: no such column for patient {named(without)}; "
                f"the cohort has {named(known, shown=50)}"
            )
        texts = [patient.extra[by] for patient in cohort]
        days = parse_datetimes(texts).astype("datetime64[D]")
    bad = [
        f"{bare(patient.patient_id)} ({quoted(text)})"
        for patient, text, day in zip(cohort, texts, days, strict=True)
        if np.isnat(day)
    ]
    if bad:
        more = f" and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
        patients = ", ".join(bad[:SHOWN]) + more
        raise CohortError(f"cannot split by {bare(by)}: not a date ({DATE_FORMAT}) for patient {patients}")
    return days
