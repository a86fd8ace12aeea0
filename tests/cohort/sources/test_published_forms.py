"""The same hospital in five published forms gives the same patients."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.cohort import Cohort, CohortError
from pmlm_env.cohort.sources.discharge_me import read_discharge_me
from pmlm_env.cohort.sources.fhir import read_fhir
from pmlm_env.cohort.sources.meds import read_meds
from pmlm_env.cohort.sources.mimic_iv import read_mimic_iv
from pmlm_env.cohort.sources.omop import read_omop
from tests.cohort.sources.fhir_form import write_bundles, write_fhir
from tests.cohort.sources.hospital import SCHEMA, expected, hospital, positive
from tests.cohort.sources.meds_form import write_meds
from tests.cohort.sources.mimic_form import write_discharge_me, write_mimic
from tests.cohort.sources.omop_form import write_omop

pytest.importorskip("pyarrow")

#: Name -> writer and reader, the reader with options that make a patient of a stay.
BY_STAY: dict[str, tuple[Callable[..., Path], Callable[[Path], Cohort]]] = {
    "mimic-iv": (write_mimic, lambda path: read_mimic_iv(path, SCHEMA, label="diagnosis")[0]),
    "omop": (write_omop, lambda path: read_omop(path, SCHEMA, patient="stay")[0]),
    "omop, compressed": (
        lambda root, people: write_omop(root, people, suffix=".csv.gz"),
        lambda path: read_omop(path, SCHEMA, patient="stay")[0],
    ),
}
BY_PERSON: dict[str, tuple[Callable[..., Path], Callable[[Path], Cohort]]] = {
    "mimic-iv": (write_mimic, lambda path: read_mimic_iv(path, SCHEMA, patient="person", label="diagnosis")[0]),
    "omop": (write_omop, lambda path: read_omop(path, SCHEMA)[0]),
    "fhir": (write_fhir, lambda path: read_fhir(path, SCHEMA)[0]),
    "fhir, bundles": (write_bundles, lambda path: read_fhir(path, SCHEMA)[0]),
    "meds": (write_meds, lambda path: read_meds(path, SCHEMA)[0]),
}


def values(cohort: Cohort) -> dict[tuple[str, str, str], float]:
    return {
        (patient.patient_id, str(day), name): value
        for patient in cohort
        for day, row in zip(patient.dates, patient.values.tolist(), strict=True)
        for name, value in zip(cohort.schema.names, row, strict=True)
        if not math.isnan(value)
    }


@pytest.mark.parametrize("form", BY_STAY)
def test_stays_have_their_values_letters_and_diagnoses(form: str, tmp_path: Path) -> None:
    people = positive(hospital(25))
    write, read = BY_STAY[form]
    cohort = read(write(tmp_path / "data", people))
    assert values(cohort) == pytest.approx(expected(people))
    stays = {stay.id: (person, stay) for person in people for stay in person.stays}
    assert {patient.patient_id for patient in cohort} == set(stays)
    for patient in cohort:
        person, stay = stays[patient.patient_id]
        assert (patient.person_id, patient.reference) == (person.id, stay.instructions)
        assert patient.label == stay.diagnoses[0][2]
        assert str(patient.split_date) == stay.end.date().isoformat()
        assert patient.extra["sex"] == person.sex
        assert patient.extra["age"] == str(stay.end.year - person.born)


@pytest.mark.parametrize("form", BY_PERSON)
def test_people_have_all_their_values_and_the_letter_of_their_last_stay(form: str, tmp_path: Path) -> None:
    people = positive(hospital(25))
    write, read = BY_PERSON[form]
    cohort = read(write(tmp_path / "data", people))
    owner = {stay.id: person.id for person in people for stay in person.stays}
    wanted = {(owner[stay], day, name): value for (stay, day, name), value in expected(people).items()}
    outpatient = ("10000000", "2100-01-01", "Creatinine")  # a result of no stay, in the form of MIMIC
    assert {key: value for key, value in values(cohort).items() if key != outpatient} == pytest.approx(wanted)
    for patient, person in zip(sorted(cohort, key=lambda each: each.patient_id), people, strict=True):
        last = person.stays[-1]
        assert (patient.patient_id, patient.reference) == (person.id, last.instructions)
        assert patient.label in {title for _, _, title, _ in last.diagnoses}
        assert str(patient.split_date) == last.end.date().isoformat()


@pytest.mark.parametrize("form", [*BY_PERSON])
def test_the_order_of_people_in_the_files_does_not_matter(form: str, tmp_path: Path) -> None:
    people = positive(hospital(12))
    write, read = BY_PERSON[form]
    one, other = read(write(tmp_path / "one", people)), read(write(tmp_path / "other", people[::-1]))
    assert values(one) == pytest.approx(values(other))
    assert {patient.patient_id: patient.label for patient in one} == {p.patient_id: p.label for p in other}


def test_nobody_is_in_two_parts_of_the_split(tmp_path: Path) -> None:
    people = positive(hospital(40))
    cohorts = [
        read_mimic_iv(write_mimic(tmp_path / "mimic", people), SCHEMA)[0],
        read_omop(write_omop(tmp_path / "omop", people), SCHEMA, patient="stay")[0],
        read_discharge_me(write_discharge_me(tmp_path / "discharge-me", people), SCHEMA)[0],
        read_meds(write_meds(tmp_path / "meds", people), SCHEMA)[0],
    ]
    for cohort in cohorts:
        parts: dict[str, set[str]] = {}
        for patient in cohort:
            parts.setdefault(patient.person_id, set()).add(patient.extra["split"])
        assert all(len(found) == 1 for found in parts.values())
        assert set.union(*parts.values()) == {"train", "validation", "test"}


def test_people_are_drawn_at_random_and_always_the_same(tmp_path: Path) -> None:
    path = write_mimic(tmp_path, positive(hospital(30)))
    (one, report), (other, _) = (read_mimic_iv(path, SCHEMA, people=10) for _ in range(2))
    assert len({patient.person_id for patient in one}) == 10
    assert [patient.patient_id for patient in one] == [patient.patient_id for patient in other]
    assert any(line.startswith("people: 10 of 30, drawn at random") for line in report.notes)


def test_rare_diagnoses_leave_a_patient_without_a_label_and_are_counted(tmp_path: Path) -> None:
    cohort, report = read_mimic_iv(write_mimic(tmp_path, positive(hospital(30))), SCHEMA, label="diagnosis", labels=2)
    assert len({patient.label for patient in cohort} - {""}) == 2
    unlabeled = sum(not patient.label for patient in cohort)
    assert unlabeled
    assert any("not among the 2 most frequent" in line and line.endswith("null}'") for line in report.notes)


def rewrite(file: Path, change: Callable[[int, list[str]], list[str]]) -> int:
    """Change the rows of a table, given their numbers, and return how many there are."""
    with file.open(encoding="utf-8", newline="") as source:
        header, *rows = csv.reader(source)
    with file.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows([header, *(change(number, row) for number, row in enumerate(rows))])
    return len(rows)


@pytest.mark.parametrize("table", ["person", "condition_occurrence", "note", "visit_occurrence", "measurement"])
def test_damaged_rows_of_any_table_are_counted_and_too_many_are_refused(table: str, tmp_path: Path) -> None:
    path = write_omop(tmp_path, positive(hospital(25)))
    file = path / f"{table}.csv"
    n = rewrite(file, lambda number, row: [*row, "x"] if number % 5 == 0 else row)
    assert f"{table}: rows with too few or too many cells, left out: {-(-n // 5):,}" in read_omop(path, SCHEMA)[1].notes
    write_omop(tmp_path, positive(hospital(25)))
    most = n // 2 + 1
    rewrite(file, lambda number, row: [*row, "x"] if number < most else row)
    with pytest.raises(CohortError, match=rf"{table}: {most:,} of {n:,} rows have too few or too many cells"):
        read_omop(path, SCHEMA)


@pytest.mark.parametrize("marker", ["NA", "NaN"])
def test_what_r_and_pandas_write_for_no_value_is_none(marker: str, tmp_path: Path) -> None:
    people = positive(hospital(12))
    sound, path = write_omop(tmp_path / "sound", people), write_omop(tmp_path / "marked", people)
    for table in ("measurement", "note"):
        rewrite(path / f"{table}.csv", lambda _, row: [cell or marker for cell in row])
        assert f",{marker}," in (path / f"{table}.csv").read_text(encoding="utf-8")
    one, other = (read_omop(each, SCHEMA, patient="stay")[0] for each in (sound, path))
    assert values(other) == values(one)
    assert [patient.reference for patient in other] == [patient.reference for patient in one]
