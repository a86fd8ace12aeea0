"""MIMIC-IV and Discharge Me: what is particular to them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import CohortError
from pmlm_env.cohort.sources.assembly import Reading
from pmlm_env.cohort.sources.discharge_me import read_discharge_me
from pmlm_env.cohort.sources.icd import chapter, icd_version
from pmlm_env.cohort.sources.mimic_iv import read_mimic_iv
from tests.cohort.sources.hospital import SCHEMA, Person, hospital, positive
from tests.cohort.sources.mimic_form import write_csv, write_discharge_me, write_mimic

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return positive(hospital(12))


@pytest.mark.parametrize(
    ("code", "version", "name"),
    [
        ("A419", "10", "infectious and parasitic diseases"),
        ("C7A00", "10", "neoplasms"),
        ("D49.9", "10", "neoplasms"),
        ("D500", "10", "diseases of the blood and immune mechanism"),
        ("E1010", "10", "endocrine, nutritional and metabolic diseases"),
        ("H59", "10", "diseases of the eye"),
        ("H60", "10", "diseases of the ear"),
        ("I50.33", "10", "diseases of the circulatory system"),
        ("O9A211", "10", "pregnancy, childbirth and the puerperium"),
        ("S72001A", "10", "injury, poisoning and other external consequences"),
        ("U071", "10", "codes for special purposes"),
        ("V892XXA", "10", "external causes"),
        ("Z3A39", "10", "factors influencing health status"),
        ("0389", "9", "infectious and parasitic diseases"),
        ("41401", "9", "diseases of the circulatory system"),
        ("36201", "9", "diseases of the eye"),
        ("650", "9", "pregnancy, childbirth and the puerperium"),
        ("V3000", "9", "factors influencing health status"),
        ("E8859", "9", "external causes"),
        ("", "10", ""),
        ("000", "9", ""),
        ("I50", "9", ""),
        ("41401", "10", ""),
        ("I50", "", ""),
    ],
)
def test_icd_chapters(code: str, version: str, name: str) -> None:
    assert chapter(code, version) == name


def test_a_code_that_may_be_of_either_version_has_none() -> None:
    assert [icd_version(code) for code in ("I5033", "41401", "E8859", "V3000", "E119", "x")] == [
        "10",
        "9",
        "",
        "",
        "",
        "",
    ]
    assert [icd_version(code) for code in ("E11.9", "e78.5", "E885.9", "V30.0", "E11.", "414.01")] == [
        "10",
        "10",
        "9",
        "",
        "10",
        "9",
    ]


def test_the_label_is_a_chapter_a_title_or_a_drg(people: list[Person], tmp_path: Path) -> None:
    write_mimic(tmp_path, people)
    stays = {stay.id: stay for person in people for stay in person.stays}
    for patient in read_mimic_iv(tmp_path, SCHEMA)[0]:
        assert patient.label == stays[patient.patient_id].diagnoses[0][3]
    for patient in read_mimic_iv(tmp_path, SCHEMA, label="drg")[0]:
        assert patient.label == "heart failure & shock w mcc"


def test_a_diagnosis_whose_number_is_no_number_comes_last(people: list[Person], tmp_path: Path) -> None:
    write_mimic(tmp_path, people)
    stay = next(stay for person in people for stay in person.stays if len(stay.diagnoses) > 1)
    pairs = zip("²2", stay.diagnoses, strict=False)
    rows = [(1, stay.id, sign, code, version) for sign, (code, version, _, _) in pairs]
    (found,) = (tmp_path / "hosp").glob("diagnoses_icd*")
    write_csv(found, "subject_id,hadm_id,seq_num,icd_code,icd_version", rows)
    labels = {patient.patient_id: patient.label for patient in read_mimic_iv(tmp_path, SCHEMA)[0]}
    assert labels[stay.id] == stay.diagnoses[1][3]


def test_without_notes_there_are_no_replies_and_the_report_says_so(people: list[Person], tmp_path: Path) -> None:
    cohort, report = read_mimic_iv(write_mimic(tmp_path, people, notes=False), SCHEMA)
    assert len(cohort) == sum(len(person.stays) for person in people)
    assert report.unanswered == len(cohort)
    assert any("no table discharge" in line for line in report.notes)


def test_stays_without_a_summary_are_left_out_counted_and_kept_on_demand(people: list[Person], tmp_path: Path) -> None:
    write_mimic(tmp_path, people)
    stay = people[0].stays[0]
    rows = [(f"{people[0].id}-DS-1", people[0].id, stay.id, "DS", 1, "2150-01-01", "", stay.summary("male"))]
    header = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"
    write_csv(tmp_path / "note" / "discharge.csv.gz", header, rows)
    cohort, report = read_mimic_iv(tmp_path, SCHEMA)
    assert [patient.patient_id for patient in cohort] == [stay.id]
    total = sum(len(person.stays) for person in people)
    assert any(f"without a letter, left out: {total - 1} of {total}" in line for line in report.notes)
    assert len(read_mimic_iv(tmp_path, SCHEMA, without_reply=True)[0]) == total
    assert len(read_mimic_iv(tmp_path, SCHEMA, reading=Reading(new_patients=True))[0]) == total


def test_every_result_that_is_left_out_is_counted(people: list[Person], tmp_path: Path) -> None:
    _, report = read_mimic_iv(write_mimic(tmp_path, people), SCHEMA)
    line = next(line for line in report.notes if line.startswith("labevents:"))
    for kind in ("1 x outside any stay", "1 x of other people"):
        assert kind in line


def test_flat_folders_upper_case_parquet_and_parts_are_read_alike(people: list[Person], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet

    one = read_mimic_iv(write_mimic(tmp_path / "one", people), SCHEMA)[0]
    for path in (tmp_path / "one").rglob("*.csv.gz"):
        table = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))
        table = table.rename_columns([name.upper() for name in table.column_names])
        folder = tmp_path / "other" / path.name.split(".")[0].upper()
        folder.mkdir(parents=True)
        half = len(table) // 2
        parquet.write_table(table.slice(0, half), folder / "part-0.parquet")
        parquet.write_table(pa.Table.from_batches(table.slice(half).to_batches()), folder / "part-1.parquet")
    other = read_mimic_iv(tmp_path / "other", SCHEMA)[0]
    assert [(p.patient_id, p.label, p.reference, p.extra) for p in one] == [
        (p.patient_id, p.label, p.reference, p.extra) for p in other
    ]
    for a, b in zip(one, other, strict=True):
        assert a.dates.tolist() == b.dates.tolist()


def test_errors_name_the_table_the_column_and_what_is_there(people: list[Person], tmp_path: Path) -> None:
    write_mimic(tmp_path, people)
    with pytest.raises(CohortError, match="use chapter, diagnosis or drg"):
        read_mimic_iv(tmp_path, SCHEMA, label="icd")  # type: ignore[arg-type]
    shutil.copy(tmp_path / "hosp" / "labevents.csv.gz", tmp_path / "labevents.csv.gz")
    with pytest.raises(CohortError, match=r"has the table labevents 2 times .* remove all but one"):
        read_mimic_iv(tmp_path, SCHEMA)
    (tmp_path / "labevents.csv.gz").unlink()
    write_csv(tmp_path / "hosp" / "labevents.csv.gz", "subject_id,item,charttime,valuenum", [])
    with pytest.raises(CohortError, match=r"labevents.csv.gz, header, no column 'itemid' \(did you mean 'item'\?\)"):
        read_mimic_iv(tmp_path, SCHEMA)
    (tmp_path / "hosp" / "labevents.csv.gz").write_bytes(b"\x1f\x8b\x08\x00damaged")
    with pytest.raises(CohortError, match=r"labevents.csv.gz cannot be read"):
        read_mimic_iv(tmp_path, SCHEMA)
    (tmp_path / "hosp" / "labevents.csv.gz").unlink()
    with pytest.raises(CohortError, match=r"no table labevents \(the results\).* It has admissions"):
        read_mimic_iv(tmp_path, SCHEMA)
    with pytest.raises(CohortError, match="there is no folder"):
        read_mimic_iv(tmp_path / "nowhere", SCHEMA)


def test_discharge_me_has_the_published_split_vitals_and_instructions(people: list[Person], tmp_path: Path) -> None:
    cohort, report = read_discharge_me(write_discharge_me(tmp_path, people), SCHEMA)
    stays = {stay.id: stay for person in people for stay in person.stays}
    assert {patient.extra["split"] for patient in cohort} == {"train", "validation", "test"}
    for patient in cohort:
        stay = stays[patient.patient_id]
        assert patient.reference == stay.instructions
        assert patient.label == stay.diagnoses[0][3]
        assert str(patient.split_date) == stay.end.date().isoformat()
        assert patient.extra["chief_complaint"] == "Dyspnea"
        temperature = patient.values[0, cohort.schema.index("Body temperature")]
        assert temperature in (
            pytest.approx(36.6),
            pytest.approx(37.0),
        )  # 36.6 in the file, or 98.6 in degrees Fahrenheit
    assert any("converted from degrees Fahrenheit" in line for line in report.notes)


def test_a_person_in_two_parts_is_used_in_the_last_alone(people: list[Person], tmp_path: Path) -> None:
    cohort, report = read_discharge_me(write_discharge_me(tmp_path, people), SCHEMA)
    person = people[1]
    assert len(person.stays) > 1
    assert [patient.patient_id for patient in cohort if patient.person_id == person.id] == [person.stays[0].id]
    assert any(f"later part of the split, left out: {len(person.stays) - 1}" in line for line in report.notes)


def test_discharge_me_gets_laboratory_results_from_mimic(people: list[Person], tmp_path: Path) -> None:
    write_discharge_me(tmp_path / "dm", people)
    write_mimic(tmp_path / "mimic", people)
    cohort, _ = read_discharge_me(tmp_path / "dm", SCHEMA, mimic=str(tmp_path / "mimic"))
    measured = ~np.isnan(np.concatenate([patient.values for patient in cohort])).all(axis=0)
    assert {"Heart rate", "Sodium"} <= set(np.array(cohort.schema.names)[measured])


def test_one_folder_of_discharge_me_without_targets(people: list[Person], tmp_path: Path) -> None:
    write_discharge_me(tmp_path, people)
    (tmp_path / "train" / "discharge_target.csv.gz").unlink()
    cohort, report = read_discharge_me(tmp_path / "train", SCHEMA)
    stays = {stay.id: stay for person in people for stay in person.stays}
    assert all(patient.reference == stays[patient.patient_id].instructions for patient in cohort)
    assert any("split at random" in line for line in report.notes)
