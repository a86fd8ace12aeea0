"""Results in words, in each published form: a schema gives them numbers, and the others are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.cohort import Cohort, CohortError, ReadReport
from pmlm_env.cohort.schema import Indicator, Schema
from pmlm_env.cohort.sources.discharge_me import read_discharge_me
from pmlm_env.cohort.sources.fhir import read_fhir
from pmlm_env.cohort.sources.meds import read_meds
from pmlm_env.cohort.sources.mimic_iv import read_mimic_iv
from pmlm_env.cohort.sources.omop import read_omop
from tests.cohort.sources.fhir_form import resources, write_fhir, write_lines
from tests.cohort.sources.hospital import TESTS, Person, hospital, positive
from tests.cohort.sources.meds_form import write_meds
from tests.cohort.sources.mimic_form import write_csv, write_discharge_me, write_mimic
from tests.cohort.sources.omop_form import write_omop

pa = pytest.importorskip("pyarrow")

Found = tuple[Cohort, ReadReport]
SCHEMA = Schema(
    (
        Indicator("Creatinine", "mg/dL"),
        Indicator("Nitrite", words=(("negative", 0.0), ("neg", 0.0), ("positive", 1.0), ("true", 1.0))),
    )
)
#: Results of the first person's first stay, in words: two that the schema knows, in any letter case, and one that it
#: does not.
WORDS = ("NEG", "Positive", "hemolyzed")


def _rows(path: Path, rows: list[tuple[object, ...]]) -> None:
    """Append rows to a table."""
    import csv
    import gzip

    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        header, *old = csv.reader(file)
    write_csv(path, ",".join(header), [*old, *rows])


def mimic(root: Path, people: list[Person]) -> Found:
    write_mimic(root, people)
    stay = people[0].stays[0]
    _rows(root / "hosp" / "d_labitems.csv.gz", [(51487, "Nitrite", "Blood", "Hematology")])
    cells = [("NEG", "NEG."), ("___", "Positive."), ("", "hemolyzed ")]
    events: list[tuple[object, ...]] = [
        (k, stay.person, stay.id, 1, 51487, "", f"{stay.start:%Y-%m-%d} {12 + k}:00:00", "", value, "", "", "", "", "",
         "", comment)
        for k, (value, comment) in enumerate(cells)
    ]  # fmt: skip
    _rows(root / "hosp" / "labevents.csv.gz", events)
    return read_mimic_iv(root, SCHEMA, patient="person")


def omop(root: Path, people: list[Person]) -> Found:
    write_omop(root, people)
    stay = people[0].stays[0]
    header = (root / "measurement.csv").read_text().splitlines()[0].split(",")
    forms: list[dict[str, object]] = [
        {"value_source_value": "NEG"},
        {"value_source_value": "POS", "value_as_concept_id": 9191},
        {"value_source_value": "hemolyzed", "value_as_concept_id": 0},
    ]
    common = {"person_id": stay.person, "measurement_concept_id": 77, "measurement_date": stay.start.date()}
    _rows(root / "measurement.csv", [tuple({**common, **form}.get(name, "") for name in header) for form in forms])
    with (root / "CONCEPT.csv").open("a") as file:
        file.write("77\tNitrite\tMeasurement\tLOINC\tLab Test\tS\t5802-4\n9191\tPositive\tMeas Value\tSNOMED\t\tS\t1\n")
    return read_omop(root, SCHEMA)


def fhir(root: Path, people: list[Person]) -> Found:
    write_fhir(root, people)
    coding = {"system": "http://snomed.info/sct", "code": "10828004", "display": "Positive (qualifier value)"}
    forms: list[dict[str, Any]] = [
        {"valueString": "NEG"},
        {"valueCodeableConcept": {"coding": [coding]}},
        {"valueString": "hemolyzed"},
    ]
    example = resources(people[:1])["Observation"][0]
    del example["valueQuantity"]
    nitrite = {"code": {"text": "Nitrite"}, "effectiveDateTime": people[0].stays[0].start.isoformat()}
    write_lines(root / "Observation.words.ndjson", [{**example, **nitrite, **form, "id": str(form)} for form in forms])
    return read_fhir(root, SCHEMA)


def meds(root: Path, people: list[Person]) -> Found:
    write_meds(root, people)
    rows = [
        {"subject_id": int(people[0].id), "time": people[0].stays[0].start, "code": "LAB//Nitrite", "text_value": word}
        for word in WORDS
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), root / "data" / "train" / "9.parquet")
    return read_meds(root, SCHEMA)


FORMS: dict[str, Callable[[Path, list[Person]], Found]] = {"mimic-iv": mimic, "omop": omop, "fhir": fhir, "meds": meds}


@pytest.fixture
def people() -> list[Person]:
    return positive(hospital(12))


@pytest.mark.parametrize("form", FORMS)
def test_words_are_the_numbers_that_the_schema_gives_them_and_others_are_counted(
    form: str, people: list[Person], tmp_path: Path
) -> None:
    import pyarrow.parquet  # noqa: F401

    cohort, report = FORMS[form](tmp_path, people)
    found = next(patient for patient in cohort if patient.patient_id == people[0].id)
    day = found.dates == people[0].stays[0].start.date()
    assert found.values[day, cohort.schema.index("Nitrite")].tolist() == [0.5]  # the mean of the day
    assert (report.coded, report.words, report.frequent_words) == (2, 1, {"hemolyzed": 1})


@pytest.mark.parametrize("form", FORMS)
def test_a_schema_chooses_some_indicators_of_a_published_form_and_the_others_are_counted(
    form: str, people: list[Person], tmp_path: Path
) -> None:
    import pyarrow.parquet  # noqa: F401

    cohort, report = FORMS[form](tmp_path, people)
    assert cohort.schema == SCHEMA
    values = sum(result.test.name != "Creatinine" for each in people for stay in each.stays for result in stay.results)
    names = {test.name for test in TESTS if test.mean > 0} - {"Creatinine"}
    (line,) = (line for line in report.notes if line.startswith("indicators that the schema does not have, left out"))
    # In the form of MIMIC, a result of another test is removed from the file by a comment.
    assert f"({len(names) + (form == 'mimic-iv')}, {values + (form == 'mimic-iv'):,} values)" in line
    assert not report.dropped


def test_a_schema_of_which_nothing_is_there_is_refused_in_one_line(people: list[Person], tmp_path: Path) -> None:
    write_omop(tmp_path, people)
    with pytest.raises(CohortError, match=r"measurement: none of its indicators \(.*Sodium.*\) is one .* \(GCS\)") as e:
        read_omop(tmp_path, Schema((Indicator("GCS"),)))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_a_word(value: bool, tmp_path: Path) -> None:
    about = {"subject": {"reference": "Patient/p"}, "effectiveDateTime": "2020-01-01", "status": "final"}
    result = {"resourceType": "Observation", "code": {"text": "Nitrite"}, "valueBoolean": value, **about}
    schema = replace(SCHEMA, indicators=(Indicator("Nitrite", words=(("true", 1.0), ("false", 0.0))),))
    write_lines(tmp_path / "a.ndjson", [{"resourceType": "Patient", "id": "p"}, result])
    assert read_fhir(tmp_path, schema)[0][0].values.tolist() == [[float(value)]]


def test_without_a_concept_table_a_result_has_the_number_of_its_concept(people: list[Person], tmp_path: Path) -> None:
    write_omop(tmp_path, people)
    (tmp_path / "CONCEPT.csv").unlink()
    rows = (tmp_path / "measurement.csv").read_text().splitlines()
    header = rows[0].split(",")
    number, source = header.index("value_as_number"), header.index("value_source_value")
    concept = header.index("value_as_concept_id")
    for k in range(1, 4):
        cells = rows[k].split(",")
        cells[number], cells[source], cells[concept] = "", "", "9189.0"
        rows[k] = ",".join(cells)
    (tmp_path / "measurement.csv").write_text("\n".join(rows) + "\n")
    assert read_omop(tmp_path)[1].frequent_words == {"concept 9189": 3}


def test_pain_in_words_at_triage_is_counted(people: list[Person], tmp_path: Path) -> None:
    write_discharge_me(tmp_path, people)
    schema = Schema((Indicator("Heart rate", "/min"), Indicator("Pain severity", words=(("uta", 0.0),))))
    _, report = read_discharge_me(tmp_path, schema)
    assert report.coded == report.patients


def test_long_comments_are_cut(people: list[Person], tmp_path: Path) -> None:
    write_mimic(tmp_path, people)
    stay = people[0].stays[0]
    day = f"{stay.start:%Y-%m-%d} 12:00:00"
    event = (9, stay.person, stay.id, 1, 50912, "", day, "", "", "", "", "", "", "", "", "long " * 100_000)
    _rows(tmp_path / "hosp" / "labevents.csv.gz", [event])
    _, report = read_mimic_iv(tmp_path, SCHEMA, label="diagnosis")
    assert max(map(len, report.frequent_words)) <= 201
