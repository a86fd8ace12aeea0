"""Train, validation and test by date, as in the paper ("Data")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, moments
from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.wording import SHOWN, bare, named, quoted, suggestion


@dataclass(frozen=True)
class Split:
    """Three cohorts without a patient in common, each in the order of the whole.

    Attributes:
        train: Up to and including the first cut.
        validation: After that, up to and including the second cut.
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
    """Split a cohort by each patient's index date; a patient is never on both sides of a cut.

    Args:
        cohort: All patients.
        train_until: Last day of train, YYYY-MM-DD.
        validation_until: Last day of validation; the same day as ``train_until`` = no validation.
        by: "split_date", or the name of a column of dates in ``Patient.extra``.

    Returns:
        The three parts; any may be empty.

    Raises:
        CohortError: A cut is not a date, the cuts are in the wrong order, or a patient has no such date.
    """
    cuts = moments([train_until, validation_until]).astype("datetime64[D]")
    options = ("--train-until", "--validation-until")
    for option, text, cut in zip(options, (train_until, validation_until), cuts, strict=True):
        if np.isnat(cut):
            raise CohortError(f"{option} {bare(text)} is not a date; write YYYY-MM-DD")
    if cuts[0] > cuts[1]:
        raise CohortError(f"--train-until {train_until} is after --validation-until {validation_until}; swap them")
    # Not later than the first cut: 0. After the first: 1. After the second: 2.
    part = np.searchsorted(cuts, index_dates(cohort, by), side="left")
    train, validation, test = (cohort.take(np.flatnonzero(part == k)) for k in range(3))
    return Split(train, validation, test)


def index_dates(cohort: Cohort, by: str) -> npt.NDArray[np.datetime64]:
    """Return the day that each patient is split by, shape (N,), datetime64[D].

    Raises:
        CohortError: A patient has no such date.
    """
    if by == "split_date":
        texts = [str(patient.split_date) for patient in cohort]
        days = np.array([patient.split_date for patient in cohort], dtype="datetime64[D]")
    else:
        lacking = [patient.patient_id for patient in cohort if by not in patient.extra]
        if lacking:
            known = ["split_date", *dict.fromkeys(name for patient in cohort for name in patient.extra)]
            raise CohortError(
                f"--split-by {bare(by)}{suggestion(by, known)}: no such column for patient {named(lacking)}; "
                f"the cohort has {named(known, shown=50)}"
            )
        texts = [patient.extra[by] for patient in cohort]
        days = moments(texts).astype("datetime64[D]")
    bad = [
        f"{bare(patient.patient_id)} ({quoted(text)})"
        for patient, text, day in zip(cohort, texts, days, strict=True)
        if np.isnat(day)
    ]
    if bad:
        more = f" and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
        told = ", ".join(bad[:SHOWN]) + more
        raise CohortError(f"cannot split by {bare(by)}, not a date ({DATE_FORMAT}) of patient {told}")
    return days
