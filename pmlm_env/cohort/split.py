"""Train, validation and test: by date as in the paper ("Data"), by a column, or at random; one person in one part."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.parsing import DATE_FORMAT, is_slashed, parse_datetimes
from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.wording import SHOWN, bare, folded, named, quoted, suggestion, tidy

#: The paper's cuts: the last days of train and of validation.
PAPER_CUTS = ("2021-12-31", "2022-06-30")
#: Shares of dates, or of people, up to the end of train and of validation, where the paper's cuts do not fit.
_SHARES = (0.7, 0.85)
SPLIT_DATE, SPLIT_COLUMN, RANDOM = "split_date", "split", "random"
_PARTS = {"train": 0, "training": 0, "validation": 1, "val": 1, "dev": 1, "tuning": 1, "test": 2, "held_out": 2}


@dataclass(frozen=True)
class Split:
    """Three disjoint cohorts, each in the original order; all stays of a person are in one part.

    Attributes:
        train: Index date up to and including the first cut.
        validation: After the first cut, up to and including the second.
        test: The rest.
        how: How the patients were split, for reports.
        cuts: The last days of train and validation; None if dates do not decide.
    """

    train: Cohort
    validation: Cohort
    test: Cohort
    how: str = field(default="", compare=False)
    cuts: tuple[str, str] | None = field(default=None, compare=False)


def split_cohort(
    cohort: Cohort,
    *,
    by: str | None = None,
    train_until: str | None = None,
    validation_until: str | None = None,
    enough: int = 1,
    seed: int = 0,
) -> Split:
    """Split a cohort so that each person, with all stays, is in one part.

    Args:
        cohort: All patients.
        by: ``split`` (the column of this name, with the words train, validation and test, or MEDS's tuning and
            held_out), ``random`` (70, 15 and 15 % of the people), ``split_date``, or another date column of
            ``Patient.extra``; None = ``split`` if the cohort has the column, or else ``split_date``, or ``random`` if
            all have the same date.
        train_until: Last day of train, YYYY-MM-DD. None = the paper's, if the other cut is given or if it leaves
            ``enough`` patients with a label in train and one in each other part; otherwise the day up to which 70 %
            of the dates are.
        validation_until: Last day of validation, likewise; otherwise the day up to which 85 % of the dates are.
        enough: Patients with a label that train needs.
        seed: Draws a random split.

    Raises:
        CohortError: A cut is not a date or has no effect, the cuts are in the wrong order, a patient lacks the date or
            has an unknown word, or the stays of a person are in several parts.
    """
    chosen = by is not None
    if by is None:
        by = SPLIT_COLUMN if any(SPLIT_COLUMN in patient.extra for patient in cohort) else SPLIT_DATE
    if by in (SPLIT_COLUMN, RANDOM):
        for option, cut in (("--train-until", train_until), ("--validation-until", validation_until)):
            if cut is not None:
                why = "the column split decides" if by == SPLIT_COLUMN else "the split is random"
                raise CohortError(f"{option} has no effect: {why}; leave it out, or give --split-by split_date")
        part = _parts_of_column(cohort) if by == SPLIT_COLUMN else _random_parts(cohort, seed)
        return _split(
            cohort, part, "the column split" if by == SPLIT_COLUMN else f"people drawn at random, seed {seed}"
        )
    dates = _last_of_person(cohort, index_dates(cohort, by))
    if train_until is None and validation_until is None:
        if not chosen and len(set(dates)) == 1 < len({patient.person for patient in cohort}):
            return _split(
                cohort,
                _random_parts(cohort, seed),
                f"people drawn at random, seed {seed}, as all have the same split_date",
            )
        return _split_at_usual_cuts(cohort, dates, by, enough)
    cuts = _cuts(train_until or PAPER_CUTS[0], validation_until or PAPER_CUTS[1])
    return _cut(cohort, dates, by, cuts)


def split_by_date(
    cohort: Cohort,
    *,
    train_until: str = PAPER_CUTS[0],
    validation_until: str = PAPER_CUTS[1],
    by: str = SPLIT_DATE,
) -> Split:
    """Split a cohort by each patient's index date; of a person with several stays, by the latest.

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
    cuts = _cuts(train_until, validation_until)
    dates = _last_of_person(cohort, index_dates(cohort, by))
    return _cut(cohort, dates, by, cuts)


def index_dates(cohort: Cohort, by: str) -> npt.NDArray[np.datetime64]:
    """Return the date that each patient is split by, shape (N,), datetime64[D].

    Raises:
        CohortError: A patient lacks the date.
    """
    if by == SPLIT_DATE:
        texts = [str(patient.split_date) for patient in cohort]
        days = np.array([patient.split_date for patient in cohort], dtype="datetime64[D]")
    else:
        without = [patient.patient_id for patient in cohort if by not in patient.extra]
        if without:
            known = [SPLIT_DATE, *dict.fromkeys(name for patient in cohort for name in patient.extra), RANDOM]
            raise CohortError(
                f"--split-by {bare(by)}{suggestion(by, known)}: no such column for patient {named(without)}; "
                f"the cohort has {named(known[:-1], shown=50)}"
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
        slashed = any(is_slashed(text) for text, day in zip(texts, days, strict=True) if np.isnat(day))
        hint = "; write YYYY-MM-DD, as day_first in map.toml does not hold for this column" if slashed else ""
        raise CohortError(f"cannot split by {bare(by)}: not a date ({DATE_FORMAT}) for patient {patients}{hint}")
    return days


def usual_cuts(dates: npt.NDArray[np.datetime64]) -> tuple[np.datetime64, np.datetime64] | None:
    """Return the days up to which 70 % and 85 % of the dates are, so that later ones remain; None if all are equal."""
    days = np.sort(dates)
    earlier = days[days < days[-1]]
    if not len(earlier):
        return None
    first, second = (earlier[min(max(round(share * len(days)), 1), len(earlier)) - 1] for share in _SHARES)
    return first, second


def _split_at_usual_cuts(cohort: Cohort, dates: npt.NDArray[np.datetime64], by: str, enough: int) -> Split:
    split = _cut(cohort, dates, by, _cuts(*PAPER_CUTS))
    n_labeled = [int(np.sum(part.y != "")) for part in (split.train, split.validation, split.test)]
    cuts = usual_cuts(dates) if n_labeled[0] < enough or not all(n_labeled) else None
    if cuts is None:
        return split
    why = " (70 % and 85 % of the dates, because the paper's cuts leave too few patients in a part)"
    return _cut(cohort, dates, by, np.array(cuts, dtype="datetime64[D]"), why)


def _cut(
    cohort: Cohort, dates: npt.NDArray[np.datetime64], by: str, cuts: npt.NDArray[np.datetime64], why: str = ""
) -> Split:
    # 0: up to the first cut, 1: up to the second, 2: later.
    part = np.searchsorted(cuts, dates, side="left")
    how = f"{bare(by)}, train up to {cuts[0]}, validation up to {cuts[1]}{why}"
    return _split(cohort, part, how, (str(cuts[0]), str(cuts[1])))


def _cuts(train_until: str, validation_until: str) -> npt.NDArray[np.datetime64]:
    cuts = parse_datetimes([train_until, validation_until]).astype("datetime64[D]")
    options = ("--train-until", "--validation-until")
    for option, text, cut in zip(options, (train_until, validation_until), cuts, strict=True):
        if np.isnat(cut):
            raise CohortError(f"{option} {bare(text)} is not a date; write YYYY-MM-DD")
    if cuts[0] > cuts[1]:
        raise CohortError(f"--train-until {train_until} is after --validation-until {validation_until}; swap them")
    return cuts


def _last_of_person(cohort: Cohort, dates: npt.NDArray[np.datetime64]) -> npt.NDArray[np.datetime64]:
    """Return the latest date of each patient's person, shape (N,)."""
    latest: dict[str, np.datetime64] = {}
    for patient, day in zip(cohort, dates, strict=True):
        latest[patient.person] = max(day, latest.get(patient.person, day))
    return np.array([latest[patient.person] for patient in cohort], dtype="datetime64[D]")


def _parts_of_column(cohort: Cohort) -> npt.NDArray[np.intp]:
    """Return the part of each patient by the column ``split``.

    Raises:
        CohortError: A patient has an unknown word, or a person is in several parts.
    """
    texts = [tidy(patient.extra.get(SPLIT_COLUMN, "")) for patient in cohort]
    parts = [_PARTS.get(folded(text).replace(" ", "_").replace("-", "_")) for text in texts]
    wrong = [
        f"{bare(patient.patient_id)} ({quoted(text)})"
        for patient, text, part in zip(cohort, texts, parts, strict=True)
        if part is None
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
        raise CohortError(
            f"the column split has another word than train, validation, test, tuning and held_out for patient "
            f"{', '.join(wrong[:SHOWN])}{more}; correct it, or give --split-by split_date"
        )
    of_person = defaultdict(set)
    for patient, part in zip(cohort, parts, strict=True):
        of_person[patient.person].add(part)
    if several := [person for person, each in of_person.items() if len(each) > 1]:
        raise CohortError(
            f"the column split has the stays of person {named(several)} in several parts; put them into one, or give "
            "--split-by split_date or random"
        )
    return np.array(parts, dtype=np.intp)


def _random_parts(cohort: Cohort, seed: int) -> npt.NDArray[np.intp]:
    people = sorted({patient.person for patient in cohort})  # so that the order of the table does not matter
    order = np.random.default_rng(seed).permutation(len(people))
    bounds = [round(share * len(people)) for share in _SHARES]
    part = dict(zip(people, np.searchsorted(bounds, order, side="right").tolist(), strict=True))
    return np.array([part[patient.person] for patient in cohort], dtype=np.intp)


def _split(cohort: Cohort, part: npt.NDArray[np.intp], how: str, cuts: tuple[str, str] | None = None) -> Split:
    train, validation, test = (cohort.take(np.flatnonzero(part == k)) for k in range(3))
    return Split(train, validation, test, how, cuts)
