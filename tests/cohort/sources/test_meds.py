"""MEDS: what is particular to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.cohort import Cohort, CohortError, ReadReport
from pmlm_env.cohort.indicator import Indicator
from pmlm_env.cohort.schema import Schema
from pmlm_env.cohort.sources.meds import read_meds
from tests.cohort.sources.hospital import Person, hospital, positive

pytest.importorskip("pyarrow")


def read(root: Path, people: list[Person], more: list[dict[str, Any]]) -> tuple[Cohort, ReadReport]:
    """Read the people and further events of each, at the beginning of their last stay."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.cohort.sources.meds_form import write_meds

    write_meds(root, people)
    rows = [{"subject_id": int(p.id), "time": p.stays[-1].start, **event} for p in people for event in more]
    pq.write_table(pa.Table.from_pylist(rows), root / "data" / "train" / "9.parquet")
    return read_meds(root)


@pytest.mark.parametrize(
    "code", ["LAB//Glucose reported//mg/dL", "Pain score documented", "Report//Pain", "NOTE//Pain"]
)
def test_a_number_is_a_result_whatever_its_code_resembles(code: str, tmp_path: Path) -> None:
    people = positive(hospital(12))
    cohort, _ = read(tmp_path, people, [{"code": code, "numeric_value": 9.125}])
    assert sum(int((patient.values == 9.125).sum()) for patient in cohort) == len(people)


def without_letters() -> list[Person]:
    return [replace(p, stays=[replace(stay, instructions="") for stay in p.stays]) for p in positive(hospital(4))]


def test_a_word_that_is_reported_is_no_letter(tmp_path: Path) -> None:
    cohort, _ = read(tmp_path, without_letters(), [{"code": "LAB//Glucose reported", "text_value": "hemolyzed"}])
    assert {patient.reference for patient in cohort} == {""}


@pytest.mark.parametrize(
    "code", ["NOTE//radiology", "DischargeSummary", "DISCHARGE_SUMMARY", "Documents//3", "reports"]
)
def test_a_text_under_the_title_of_one_is_a_letter(code: str, tmp_path: Path) -> None:
    cohort, _ = read(tmp_path, without_letters(), [{"code": code, "text_value": "Drink water."}])
    assert {patient.reference for patient in cohort} == {"Drink water."}


def test_a_procedure_is_no_diagnosis_although_its_code_is_of_icd(tmp_path: Path) -> None:
    people = [replace(p, stays=[replace(stay, diagnoses=[]) for stay in p.stays]) for p in positive(hospital(4))]
    for code, label in (
        ("PROCEDURE//ICD//9//3995", ""),
        ("DIAGNOSIS//ICD//9//4660", "diseases of the respiratory system"),
    ):
        cohort, _ = read(tmp_path / code[:4], people, [{"code": code}])
        assert {patient.label for patient in cohort} == {label}


def test_a_column_of_lists_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"9\.parquet, column numeric_value: contains 'list<.*not text, numbers or"):
        read(tmp_path, positive(hospital(4)), [{"code": "LAB//Glucose", "numeric_value": [9.1]}])


@pytest.mark.parametrize(("until", "mean"), [("12:00", 11.0), ("11:59", 10.0), ("", 14.0)])
def test_results_after_the_moment_of_prediction_are_not_known_though_of_the_same_day(
    until: str, mean: float, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    day = datetime(2020, 1, 2)
    events = [
        {"subject_id": n, "time": day + timedelta(hours=hour), "code": "LAB//urate//umol/L", "numeric_value": hour}
        for n in range(1, 13)
        for hour in (10.0, 12.0, 20.0)
    ]
    for folder in ("data", "labels"):
        (tmp_path / folder).mkdir()
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "data" / "0.parquet")
    rows = [f"{n},{f'2020-01-02T{until}'.removesuffix('T')},{n > 6}" for n in range(1, 13)]
    text = "\n".join(["subject_id,prediction_time,boolean_value", *rows]) + "\n"
    (tmp_path / "labels" / "0.csv").write_text(text, encoding="utf-8")
    cohort, _ = read_meds(tmp_path, Schema((Indicator("urate", "umol/L"),), ()), without_reply=True)
    assert [patient.values.tolist() for patient in cohort] == [[[mean]]] * 12
