"""split_by_date: the paper's cuts, inclusive, by patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, CohortError, Patient, split_by_date
from tests.schemas import N_INDICATORS, SCHEMA


def cohort_of(*dates: str, **extra: str) -> Cohort:
    """Return a cohort of one patient a split date, P0, P1, ..., all with the same extra columns."""
    return Cohort(
        tuple(
            Patient(
                patient_id=f"P{i}",
                label="normal",
                reference="",
                split_date=np.datetime64(date),
                dates=np.array(["2020-01-01"], "datetime64[D]"),
                values=np.zeros((1, N_INDICATORS)),
                extra=extra,
            )
            for i, date in enumerate(dates)
        ),
        SCHEMA,
    )


def ids(cohort: Cohort) -> list[str]:
    return [patient.patient_id for patient in cohort]


def test_the_cuts_of_the_paper_are_inclusive() -> None:
    split = split_by_date(cohort_of("2021-12-31", "2022-01-01", "2022-06-30", "2022-07-01"))
    assert (ids(split.train), ids(split.validation), ids(split.test)) == (["P0"], ["P1", "P2"], ["P3"])


def test_a_time_on_the_last_day_is_within_it() -> None:
    split = split_by_date(cohort_of("2021-12-31T23:59:59", "2022-06-30T23:59:59"))
    assert (ids(split.train), ids(split.validation)) == (["P0"], ["P1"])


def test_every_patient_is_in_one_part_in_the_old_order() -> None:
    days = np.datetime64("2021-01-01") + np.random.default_rng(0).integers(0, 720, size=50)
    cohort = cohort_of(*map(str, days))
    split = split_by_date(cohort)
    parts = [ids(part) for part in (split.train, split.validation, split.test)]
    assert sorted(name for part in parts for name in part) == sorted(ids(cohort))
    assert all(part == [name for name in ids(cohort) if name in part] for part in parts)


def test_another_column_of_dates_can_be_named() -> None:
    early, late = (
        cohort_of("2030-01-01", admission="2020-01-30 22:12:47"),
        cohort_of("2030-01-01", admission="2020-02-01"),
    )
    late = replace(late[0], patient_id="P1")
    split = split_by_date(
        Cohort((*early, late), SCHEMA), train_until="2020-01-30", validation_until="2020-01-31", by="admission"
    )
    assert (len(split.train), len(split.validation), len(split.test)) == (1, 0, 1)


def test_cuts_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(CohortError, match="--train-until 2022-01-01 is after --validation-until 2021-01-01"):
        split_by_date(cohort_of("2021-01-01"), train_until="2022-01-01", validation_until="2021-01-01")


def test_equal_cuts_mean_no_validation() -> None:
    split = split_by_date(
        cohort_of("2021-01-01", "2021-01-02"), train_until="2021-01-01", validation_until="2021-01-01"
    )
    assert (ids(split.train), ids(split.validation), ids(split.test)) == (["P0"], [], ["P1"])


def test_a_cut_that_is_no_date_is_refused() -> None:
    with pytest.raises(CohortError, match="--validation-until June is not a date"):
        split_by_date(cohort_of("2021-01-01"), validation_until="June")


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(CohortError, match=r"--split-by Admission \(did you mean 'admission'\?\).*patient P0"):
        split_by_date(cohort_of("2021-01-01", admission="2021-01-01"), by="Admission")


@pytest.mark.parametrize("date", ["", "soon", "2021-02-29"])
def test_a_patient_without_the_date_is_named(date: str) -> None:
    with pytest.raises(CohortError, match=rf"patient P0 \('{date}'\)"):
        split_by_date(cohort_of("2021-01-01", admission=date), by="admission")


def test_a_patient_without_split_date_is_named() -> None:
    with pytest.raises(CohortError, match=r"patient P1 \('NaT'\)"):
        split_by_date(cohort_of("2021-01-01", "NaT"))
