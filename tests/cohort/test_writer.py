"""write_cohort: what is written reads back the same, always in the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmlm_env.cohort import Cohort, CohortError, Patient, read_cohort, write_cohort
from pmlm_env.cohort.parsing import has_value
from tests.schemas import INDICATORS, N_INDICATORS, cohort_of


def patient_of(reference: str = "Rest.", **extra: str) -> Patient:
    values = np.full((2, N_INDICATORS), np.nan)
    values[:, 3] = 1 / 3, 1e-7
    dates = np.array(["2021-04-01", "2021-05-02"], "datetime64[D]")
    return Patient("007", "thalassemia", reference, np.datetime64("2021-06-01"), dates, values, extra)


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
filled_texts = texts.filter(lambda text: bool(has_value([text])[0]))
names = st.text(st.characters(codec="utf-8", categories=("Ll", "Nd", "Lo")), min_size=1, max_size=12).filter(
    lambda text: bool(has_value([text])[0])
)
labels = st.sampled_from(["thalassemia", 'fetal distress, "heart type"', "\u5730\u4e2d\u6d77\u8d2b\u8840", "-"])
days = st.dates().map(lambda day: np.datetime64(day, "D"))
measurements = st.integers(0, N_INDICATORS - 1).flatmap(
    lambda i: st.tuples(st.just(i), st.floats(INDICATORS[i].low, INDICATORS[i].high))
)


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    patients = []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        dates = np.array(sorted(draw(st.lists(days, min_size=1, max_size=3, unique=True))), "datetime64[D]")
        values = np.full((len(dates), N_INDICATORS), np.nan)
        for row in values:
            for i, value in draw(st.lists(measurements, min_size=1, max_size=3)):
                row[i] = value
        label, reference, extra = draw(labels), draw(filled_texts), {"any, text": draw(texts)}
        person = draw(st.just("") | names)
        patients.append(Patient(name, label, reference, draw(days), dates, values, extra, person))
    return cohort_of(*patients)


@given(cohort=cohorts())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_reads_back_the_same(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(cohort, folder)
    again, _ = read_cohort(folder, keep_later=True)
    for a, b in zip(cohort, again, strict=True):
        for name in ("patient_id", "label", "reference", "split_date", "extra", "person_id"):
            assert getattr(a, name) == getattr(b, name)
        assert a.dates.tolist() == b.dates.tolist()
        np.testing.assert_array_equal(a.values, b.values)


@pytest.mark.parametrize(
    "reply", ['Say "no", then rest.', "Rest,\nand come back.\n", "Rest.\rSleep.", "\u6ce8\u610f\u8840\u7cd6"]
)
def test_pandas_reads_what_is_written(tmp_path: Path, reply: str) -> None:
    write_cohort(cohort_of(patient_of(reply)), tmp_path)
    table = pd.read_csv(tmp_path / "patients.csv", dtype=str)
    assert table.loc[0, ["patient_id", "reference"]].tolist() == ["007", reply]


def test_numbers_are_written_in_their_shortest_form(tmp_path: Path) -> None:
    write_cohort(cohort_of(patient_of()), tmp_path)
    lines = (tmp_path / "checkups.csv").read_text().splitlines()
    blanks = "," * (N_INDICATORS - 4)
    assert lines[1:] == [f"007,2021-04-01,,,,0.3333333333333333{blanks}", f"007,2021-05-02,,,,1e-07{blanks}"]


def test_writing_twice_gives_the_same_bytes_and_no_other_file(tmp_path: Path) -> None:
    write_cohort(cohort_of(patient_of(age="31")), tmp_path)
    first = bytes_in(tmp_path)
    write_cohort(read_cohort(tmp_path)[0], tmp_path)
    assert bytes_in(tmp_path) == first
    assert set(first) == {"patients.csv", "checkups.csv", "schema.json"}
    assert not any(b"\r" in data for data in first.values())


def test_a_failed_write_leaves_the_old_files(tmp_path: Path) -> None:
    write_cohort(cohort_of(patient_of()), tmp_path)
    before = bytes_in(tmp_path)
    with pytest.raises(UnicodeEncodeError):
        write_cohort(cohort_of(patient_of("new"), patient_of("\ud800")), tmp_path)
    assert bytes_in(tmp_path) == before


@pytest.mark.parametrize("name", ["label", " "])
def test_an_extra_that_cannot_be_a_column_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CohortError, match=repr(name)):
        write_cohort(cohort_of(patient_of(**{name: "x"})), tmp_path)
