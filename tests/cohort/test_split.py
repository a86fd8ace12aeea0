"""split_by_date: the paper's cuts, inclusive, by patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, CohortError, Patient, split_by_date
from pmlm_env.cohort.split import Split, split_cohort, usual_cuts
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


# One person, one part


def stays(**persons: list[str]) -> Cohort:
    """Return a cohort of a stay a date, with the persons' names as keywords."""
    of_person = [(person, date) for person, dates in persons.items() for date in dates]
    patients = cohort_of(*(date for _, date in of_person))
    return Cohort(
        tuple(replace(patient, person_id=person) for patient, (person, _) in zip(patients, of_person, strict=True)),
        SCHEMA,
    )


def persons(cohort: Cohort) -> set[str]:
    return {patient.person for patient in cohort}


def test_all_stays_of_a_person_are_in_the_part_of_the_latest() -> None:
    split = split_by_date(stays(a=["2020-01-01", "2022-09-01"], b=["2020-02-01", "2022-05-01"], c=["2020-01-01"]))
    assert (persons(split.train), persons(split.validation), persons(split.test)) == ({"c"}, {"b"}, {"a"})
    assert len(split.test) == 2


@pytest.mark.parametrize("by", ["random", "split_date"])
def test_no_person_is_in_two_parts(by: str) -> None:
    rng = np.random.default_rng(0)
    days = np.datetime64("2150-01-01") + rng.integers(0, 9000, size=221)  # years that were shifted
    of_person: dict[str, list[str]] = {}
    for person, day in zip(rng.integers(98, size=221), days, strict=True):
        of_person.setdefault(f"h{person}", []).append(str(day))
    split = split_cohort(stays(**of_person), by=by)
    parts = [persons(part) for part in (split.train, split.validation, split.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(of_person)
    assert sum(map(len, (split.train, split.validation, split.test))) == 221


def test_a_random_split_has_70_15_and_15_percent_of_the_people() -> None:
    cohort = stays(**{f"h{i}": ["2020-01-01"] * (1 + i % 3) for i in range(100)})
    split = split_cohort(cohort, by="random")
    assert [len(persons(part)) for part in (split.train, split.validation, split.test)] == [70, 15, 15]


def parts_of(split: Split) -> list[list[str]]:
    return [ids(part) for part in (split.train, split.validation, split.test)]


def test_a_random_split_depends_on_the_seed_and_not_on_the_order() -> None:
    cohort = cohort_of(*["2020-01-01"] * 40)
    turned = cohort.take(range(39, -1, -1))
    one, same, other = (split_cohort(each, by="random", seed=s) for each, s in ((cohort, 0), (turned, 0), (cohort, 1)))
    assert [sorted(part) for part in parts_of(one)] == [sorted(part) for part in parts_of(same)]
    assert parts_of(one) != parts_of(other)


# A column of splits


def with_column(*words: str) -> Cohort:
    cohort = cohort_of(*["2020-01-01"] * len(words))
    return Cohort(tuple(replace(p, extra={"split": word}) for p, word in zip(cohort, words, strict=True)), SCHEMA)


def test_a_column_named_split_decides_unless_something_else_is_said() -> None:
    cohort = with_column("train", "Validation", "tuning", "test", "held_out", "held-out")
    split = split_cohort(cohort)
    assert parts_of(split) == [["P0"], ["P1", "P2"], ["P3", "P4", "P5"]]
    assert "the column split" in split.how
    assert len(split_cohort(cohort, by="split_date").train) == 6


def test_another_word_is_named_with_its_patient() -> None:
    with pytest.raises(CohortError, match=r"than train, validation, .* for patient P1 \('holdout'\)"):
        split_cohort(with_column("train", "holdout"))


def test_a_person_in_two_parts_is_refused() -> None:
    cohort = with_column("train", "test")
    cohort = Cohort(tuple(replace(p, person_id="anna") for p in cohort), SCHEMA)
    with pytest.raises(CohortError, match="stays of person anna in several parts"):
        split_cohort(cohort)


@pytest.mark.parametrize("by", ["random", "split"])
def test_cuts_without_effect_are_refused(by: str) -> None:
    with pytest.raises(CohortError, match="--train-until has no effect"):
        split_cohort(with_column("train", "test"), by=by, train_until="2020-01-01")


# Cuts that nobody gave


def test_the_papers_cuts_are_used_where_they_leave_enough() -> None:
    split = split_cohort(cohort_of("2021-12-31", "2022-01-01", "2022-06-30", "2022-07-01"))
    assert split.cuts == ("2021-12-31", "2022-06-30")
    assert parts_of(split) == [["P0"], ["P1", "P2"], ["P3"]]


@pytest.mark.parametrize("enough", [1, 8])
def test_other_dates_are_cut_at_70_and_85_percent_and_that_is_said(enough: int) -> None:
    start = np.datetime64("2150-01-01") if enough == 1 else np.datetime64("2021-12-25")
    cohort = cohort_of(*(str(start + 30 * i) for i in range(20)))
    split = split_cohort(cohort, enough=enough)
    assert [len(part) for part in parts_of(split)] == [14, 3, 3]
    assert "70 % and 85 % of the dates" in split.how


@pytest.mark.parametrize(("n", "parts"), [(3, [2, 0, 1]), (10, [7, 1, 2]), (80, [56, 12, 12]), (1000, [700, 150, 150])])
def test_the_usual_cuts_leave_the_shares_of_distinct_dates(n: int, parts: list[int]) -> None:
    dates = np.datetime64("2150-01-01") + np.arange(n)
    cuts = usual_cuts(dates[::-1])
    assert cuts is not None
    first, second = cuts
    assert [(dates <= first).sum(), ((dates > first) & (dates <= second)).sum(), (dates > second).sum()] == parts


def test_one_given_cut_goes_with_the_papers_other() -> None:
    assert split_cohort(cohort_of("2021-05-05"), train_until="2021-01-01").cuts == ("2021-01-01", "2022-06-30")


def test_one_day_cannot_be_cut_and_people_are_drawn() -> None:
    split = split_cohort(cohort_of(*["2150-01-01"] * 20))
    assert [len(part) for part in (split.train, split.validation, split.test)] == [14, 3, 3]
    assert split.how == "people drawn at random, seed 0, as all have the same split_date"
    assert len(split_cohort(cohort_of("2150-01-01", "2150-01-01"), by="split_date").test) == 2  # as was asked for
    assert len(split_cohort(cohort_of("2150-01-01")).test) == 1


def test_a_column_whose_dates_do_not_tell_day_and_month_apart_says_what_to_write() -> None:
    cohort = cohort_of("2021-01-01", "2022-01-01", admitted="05/02/2022")
    with pytest.raises(
        CohortError, match=r"P0 \('05/02/2022'\).*; write YYYY-MM-DD, as day_first in map\.toml does not"
    ):
        split_cohort(cohort, by="admitted")
    with pytest.raises(CohortError) as caught:
        split_cohort(cohort_of("2021-01-01", admitted="May"), by="admitted")
    assert "day_first" not in str(caught.value)
