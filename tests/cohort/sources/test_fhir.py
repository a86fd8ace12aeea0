"""FHIR as hospitals and servers write it, and as strangers might."""

from __future__ import annotations

import base64
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.cohort import Cohort, CohortError
from pmlm_env.cohort.schema import Indicator, Schema
from pmlm_env.cohort.sources.fhir import read_fhir
from pmlm_env.cohort.sources.fhir import resources as fhir_resources
from pmlm_env.cohort.sources.fhir.elements import attached_text, diagnosis_name, local_time, plain_text
from pmlm_env.cohort.sources.fhir.resources import reference_id
from pmlm_env.cohort.sources.histories import Person, Stay, StayFinder
from tests.cohort.sources.fhir_form import write_fhir, write_lines
from tests.cohort.sources.hospital import hospital

pytest.importorskip("pyarrow")

Resource = dict[str, Any]
SCHEMA = Schema((Indicator("Hemoglobin", "g/dL"), Indicator("Systolic", "mmHg"), Indicator("Diastolic", "mmHg")))
PATIENT: Resource = {"resourceType": "Patient", "id": "p", "gender": "male", "birthDate": "1950"}


def observation(key: str = "o", **other: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7", "display": "Hemoglobin"}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2020-05-05T23:30:00-05:00",
        "valueQuantity": {"value": 12.5, "unit": "g/dL"},
    } | other


def letter(body: str = "Rest.", key: str = "d", **other: Any) -> Resource:
    data = base64.b64encode(body.encode()).decode()
    return {
        "resourceType": "DocumentReference",
        "id": key,
        "status": "current",
        "subject": {"reference": "Patient/p"},
        "date": "2020-06-01",
        "content": [{"attachment": {"contentType": "text/plain", "data": data}}],
    } | other


def read(folder: Path, *resources: Resource, **kwargs: Any) -> tuple[Cohort, str]:
    write_lines(folder / "export.ndjson", [PATIENT, *resources])
    cohort, report = read_fhir(folder, SCHEMA, **kwargs)
    return cohort, "\n".join(report.notes)


def values(cohort: Cohort) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for patient in cohort:
        for row in patient.values.tolist():
            for name, value in zip(cohort.schema.names, row, strict=True):
                if not math.isnan(value):
                    found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("status", ["preliminary", "registered", "cancelled", "entered-in-error", "unknown"])
def test_results_that_are_not_final_are_left_out_and_counted(status: str, tmp_path: Path) -> None:
    wrong = observation("x", status=status, valueQuantity={"value": 99})
    cohort, notes = read(tmp_path, observation(), wrong)
    assert values(cohort) == {"Hemoglobin": [12.5]}
    assert f"1 x status {status}" in notes


@pytest.mark.parametrize(
    ("element", "why"),
    [
        ({"valueRange": {"low": {"value": 1}}}, "neither a number nor words"),
        ({"valueBoolean": "yes"}, "neither a number nor words"),
        ({"dataAbsentReason": {"text": "not performed"}}, "not measured"),
        ({"valueQuantity": {"unit": "g/dL"}}, "without a value"),
        ({"hasMember": [{"reference": "Observation/y"}]}, "panel"),
        ({"effectiveDateTime": "2020-05", "valueQuantity": {"value": 1}}, "without a date"),
        ({"code": {}, "valueQuantity": {"value": 1}}, "without the name of a test"),
        ({"subject": {"reference": "Patient/stranger"}, "valueQuantity": {"value": 1}}, "of other people"),
    ],
)
def test_results_without_a_number_of_a_patient_are_counted_by_kind(element: Resource, why: str, tmp_path: Path) -> None:
    other = observation("x")
    del other["valueQuantity"]
    cohort, notes = read(tmp_path, observation("a"), observation("b"), observation("c"), {**other, **element})
    assert values(cohort) == {"Hemoglobin": [12.5]}
    assert f"1 x {why}" in notes


def test_a_result_that_is_a_mere_code_is_no_number(tmp_path: Path) -> None:
    coded = observation(
        "x", valueCodeableConcept={"coding": [{"system": "http://snomed.info/sct", "code": "10828004"}]}
    )
    del coded["valueQuantity"]
    write_lines(tmp_path / "export.ndjson", [PATIENT, observation(), coded])
    cohort, report = read_fhir(tmp_path, SCHEMA)
    assert values(cohort) == {"Hemoglobin": [12.5]}
    assert report.frequent_words == {"code 10828004": 1}


def report(status: str, **times: Any) -> Resource:
    """Return a report that contains a result without a time of its own."""
    contained = observation("c", valueQuantity={"value": 99, "unit": "g/dL"})
    for name in ("subject", "effectiveDateTime"):
        del contained[name]
    about = {"subject": {"reference": "Patient/p"}, "contained": [contained]}
    return {"resourceType": "DiagnosticReport", "id": "r", "status": status, **about, **times}


def test_the_results_in_a_report_have_its_time_and_do_not_hold_if_it_does_not(tmp_path: Path) -> None:
    cohort, _ = read(tmp_path, observation(), report("final", effectivePeriod={"start": "2020-05-04"}))
    assert [str(day) for day in cohort[0].dates] == ["2020-05-04", "2020-05-05"]
    assert values(cohort) == {"Hemoglobin": [99.0, 12.5]}
    wrong = report("entered-in-error", effectiveDateTime="2020-05-04")
    cohort, notes = read(tmp_path, observation(), wrong)
    assert values(cohort) == {"Hemoglobin": [12.5]}
    assert "1 x status entered-in-error" in notes


def test_a_result_about_somebody_else_is_not_the_patients(tmp_path: Path) -> None:
    fetus = observation("x", valueQuantity={"value": 17}, focus=[{"reference": "Patient/fetus"}])
    own = observation("y", effectiveDateTime="2020-05-06", focus=[{"reference": "Patient/p"}])
    cohort, notes = read(tmp_path, observation(), fetus, own)
    assert values(cohort) == {"Hemoglobin": [12.5, 12.5]}
    assert "1 x about somebody else (focus)" in notes


def test_the_components_of_a_blood_pressure_are_results(tmp_path: Path) -> None:
    def component(code: str, name: str, value: int) -> Resource:
        coding = {"system": "http://loinc.org", "code": code, "display": name}
        return {"code": {"coding": [coding]}, "valueQuantity": {"value": value, "unit": "mmHg"}}

    parts = [component("8480-6", "Systolic", 120), component("8462-4", "Diastolic", 80)]
    pressure = observation("x", code={"text": "Blood pressure"}, component=parts)
    del pressure["valueQuantity"]
    cohort, notes = read(tmp_path, pressure)
    assert list(values(cohort).values()) == [[120.0], [80.0]]
    assert "left out" not in notes


def test_a_result_keeps_the_day_on_the_clock_of_the_place(tmp_path: Path) -> None:
    cohort, _ = read(tmp_path, observation())
    assert [str(day) for day in cohort[0].dates] == ["2020-05-05"]


def test_a_code_has_one_name_whatever_texts_the_results_have(tmp_path: Path) -> None:
    other = observation(
        "x", effectiveDateTime="2020-05-06", code={"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    )
    cohort, _ = read(tmp_path, observation(), other)
    assert values(cohort) == {"Hemoglobin": [12.5, 12.5]}


@pytest.mark.parametrize(
    "reference",
    ["Patient/p", "https://server/fhir/Patient/p", "Patient/p/_history/3", "urn:uuid:p", "#p"],
)
def test_references_have_several_forms(reference: str) -> None:
    assert reference_id(reference) == "p"


def test_duplicates_and_deleted_resources_are_left_out(tmp_path: Path) -> None:
    request = {"method": "DELETE", "url": "Observation/gone"}
    write_lines(tmp_path / "deleted" / "a.ndjson", [{"resourceType": "Bundle", "entry": [{"request": request}]}])
    gone = observation("gone", valueQuantity={"value": 99})
    cohort, notes = read(tmp_path, observation(), observation(), gone)
    assert values(cohort) == {"Hemoglobin": [12.5]}
    assert "1 x duplicate" in notes
    assert "1 x deleted" in notes


def test_the_reply_is_what_is_meant_for_the_patient_and_of_these_the_latest(tmp_path: Path) -> None:
    cohort, _ = read(
        tmp_path,
        observation(),
        letter("Old.", "1", date="2019-01-01", type={"text": "Discharge instructions"}),
        letter("Yours.", "2", date="2020-06-01", type={"text": "Discharge instructions"}),
        letter("Summary.", "3", date="2021-01-01", type={"text": "Discharge summary"}),
        letter("X-ray.", "4", date="2022-01-01"),
        letter("Wrong.", "5", date="2023-01-01", type={"text": "Discharge instructions"}, status="entered-in-error"),
    )
    assert (cohort[0].reference, str(cohort[0].split_date)) == ("Yours.", "2020-06-01")


def test_texts_in_other_resources_are_letters(tmp_path: Path) -> None:
    html = base64.b64encode(b"<p>Rest &amp; <b>drink</b>.</p><script>x</script>").decode()
    about = {"subject": {"reference": "Patient/p"}}
    forms: list[Resource] = [
        {"resourceType": "DiagnosticReport", "status": "final", "effectiveDateTime": "2020-06-01", **about,
         "presentedForm": [{"contentType": "text/html", "data": html}]},
        {"resourceType": "CarePlan", "status": "active", "period": {"start": "2020-06-01"}, **about,
         "text": {"div": "<div>Rest &amp; drink.</div>"}},
        {"resourceType": "Composition", "status": "final", "date": "2020-06-01", **about,
         "section": [{"text": {"div": "<div>Rest &amp; drink.</div>"}}]},
        {"resourceType": "Communication", "status": "completed", "sent": "2020-06-01", **about,
         "payload": [{"contentString": "Rest & drink."}]},
    ]  # fmt: skip
    for number, form in enumerate(forms):
        cohort, _ = read(tmp_path / str(number), observation(), form)
        assert cohort[0].reference == "Rest & drink."


def test_a_text_in_a_binary_is_found_and_one_elsewhere_counted(tmp_path: Path) -> None:
    binary = {
        "resourceType": "Binary",
        "id": "b",
        "contentType": "text/plain",
        "data": base64.b64encode(b"Rest.").decode(),
    }
    here = letter(content=[{"attachment": {"url": "Binary/b"}}])
    there = letter(key="e", content=[{"attachment": {"url": "https://server/file.txt"}}])
    write_lines(tmp_path / "Binary.ndjson", [binary])
    cohort, notes = read(tmp_path, observation(), here, there)
    assert cohort[0].reference == "Rest."
    assert "not in the export (attachment.url): 1" in notes


def test_attachments_that_are_no_text_are_counted(tmp_path: Path) -> None:
    pdf = letter(key="e", content=[{"attachment": {"contentType": "application/pdf", "data": "JVBERi0="}}])
    _, notes = read(tmp_path, observation(), letter(), pdf)
    assert "letters that could not be read: 1 x application/pdf attachment" in notes


def test_disorders_go_before_findings_and_wrong_conditions_are_no_labels(tmp_path: Path) -> None:
    def condition(key: str, name: str, date: str, **other: Any) -> Resource:
        return {"resourceType": "Condition", "id": key, "code": {"coding": [{"display": name}]}, "onsetDateTime": date,
                "subject": {"reference": "Patient/p"}} | other  # fmt: skip

    cohort, _ = read(
        tmp_path,
        observation(),
        condition("1", "Heart failure (disorder)", "2019-01-01"),
        condition("2", "Full-time employment (finding)", "2020-01-01"),
        condition("3", "Sepsis", "2020-02-01", verificationStatus={"coding": [{"code": "entered-in-error"}]}),
    )
    assert cohort[0].label == "Heart failure"
    assert diagnosis_name({"text": "Stress (finding)"}) == ("Stress", False)


def test_an_encounter_that_is_part_of_another_counts_as_that(tmp_path: Path) -> None:
    about = {"subject": {"reference": "Patient/p"}, "period": {"start": "2020-05-01", "end": "2020-05-09"}}
    ward: Resource = {"resourceType": "Encounter", "id": "w", "partOf": {"reference": "Encounter/h"}, **about}
    stay: Resource = {"resourceType": "Encounter", "id": "h", **about}
    result = observation(encounter={"reference": "Encounter/w"})
    cohort, _ = read(tmp_path, stay, ward, result, patient="stay")
    assert [patient.patient_id for patient in cohort] == ["h"]


def test_compressed_files_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\n".join(map(json.dumps, (PATIENT, observation())))
    (tmp_path / "export.ndjson.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))
    cohort, _ = read_fhir(tmp_path, SCHEMA)
    assert values(cohort) == {"Hemoglobin": [12.5]}


@pytest.mark.parametrize(
    "content", [b"", b"x", b"[1]", b'{"a":' * 100_000, b"\xff\xfe{", b'{"resourceType": "Patient"']
)
def test_what_is_not_fhir_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "export.json").write_bytes(content)
    with pytest.raises(CohortError) as error:
        read_fhir(tmp_path, SCHEMA)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [None, 7, "x", [], {}, [[]], [None], {"coding": 3}, {"reference": ["Patient/p"]}])
def test_elements_of_the_wrong_type_are_passed_over(wrong: Any, tmp_path: Path) -> None:
    good = [observation(), letter()]
    keys = {key for each in good for key in each} - {"resourceType"}
    broken = [{**each, "id": f"{key}{k}", key: wrong} for k, each in enumerate(good) for key in sorted(keys)]
    broken += [
        {"resourceType": kind, "id": kind, "subject": {"reference": "Patient/p"}, "period": wrong, "code": wrong,
         "section": wrong, "payload": wrong, "diagnosis": wrong, "presentedForm": wrong, "entry": wrong}
        for kind in ("Encounter", "Condition", "Composition", "Communication", "CarePlan", "DiagnosticReport", "Bundle")
    ]  # fmt: skip
    cohort, _ = read(tmp_path, *good, *broken)
    assert cohort[0].reference == "Rest."


def test_a_chain_of_encounters_that_is_a_circle_ends(tmp_path: Path) -> None:
    circle = [
        {"resourceType": "Encounter", "id": one, "partOf": {"reference": f"Encounter/{other}"},
         "subject": {"reference": "Patient/p"}, "period": {"start": "2020-05-01"}}
        for one, other in (("a", "b"), ("b", "a"))
    ]  # fmt: skip
    read(tmp_path, observation(encounter={"reference": "Encounter/a"}), *circle)


def test_files_and_lines_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fhir(tmp_path, hospital(2))
    monkeypatch.setattr(fhir_resources, "MAX_LINE", 50)
    with pytest.raises(CohortError, match="a line of more than 50 bytes"):
        read_fhir(tmp_path, SCHEMA)


def test_many_lines_that_are_not_json_are_refused_and_few_counted(tmp_path: Path) -> None:
    lines = [json.dumps(each) for each in (PATIENT, observation(), observation("x"))]
    (tmp_path / "a.ndjson").write_text("\n".join([*lines, "{"]))
    _, report = read_fhir(tmp_path, SCHEMA)
    assert any("1 x line that is not JSON" in line for line in report.notes)
    (tmp_path / "a.ndjson").write_text("\n".join([*lines, "{", "{", "{"]))
    with pytest.raises(CohortError, match="too much to drop"):
        read_fhir(tmp_path, SCHEMA)


def test_times_and_texts() -> None:
    assert local_time("2020-05-05T10:00:00.123Z") == "2020-05-05T10:00:00"
    assert local_time("2020-05") == ""
    assert plain_text("<ul><li>a</li><li>b</li></ul>") == "a\n\nb"
    assert attached_text({"contentType": "text/plain; charset=latin-1", "data": "6Q=="}) == "\u00e9"
    assert attached_text({"contentType": "text/plain", "data": "not base64!"}) is None


def test_an_indicator_taken_for_another_does_not_stop_the_others(tmp_path: Path) -> None:
    def width(number: int) -> Resource:  # as Synthea writes it: 300 fL, which no platelets have
        coding = {"system": "http://loinc.org", "code": "32207-3", "display": "Platelet distribution width"}
        return observation(f"w{number}", code={"coding": [coding]}, valueQuantity={"value": 300 + number, "unit": "fL"})

    anemia = {"resourceType": "Condition", "id": "c", "code": {"text": "Anemia"}, "subject": {"reference": "Patient/p"}}
    results = [*(observation(f"h{k}") for k in range(30)), *map(width, range(20))]
    write_lines(tmp_path / "a.ndjson", [PATIENT, anemia, *results])
    cohort, report = read_fhir(tmp_path)
    assert list(values(cohort).values()) == [[12.5]] or list(values(cohort).values()) == [[125.0]]
    assert report.dropped == {"impossible value": 20}


def _encounter(key: str, start: str, end: str, **other: Any) -> Resource:
    about = {"status": "finished", "subject": {"reference": "Patient/p"}, "period": {"start": start, "end": end}}
    return {"resourceType": "Encounter", "id": key, **about, **other}


def test_the_reason_for_a_later_visit_is_no_diagnosis_beside_one(tmp_path: Path) -> None:
    subject = {"subject": {"reference": "Patient/p"}}
    gout = {"resourceType": "Condition", "id": "1", "code": {"text": "Gout"}, "onsetDateTime": "2020-01-01", **subject}
    visit = _encounter("e", "2020-05-05T08:00:00Z", "2020-05-05T09:00:00Z", reasonCode=[{"text": "Annual check-up"}])
    assert read(tmp_path / "both", observation(), letter(), gout, visit)[0][0].label == "Gout"
    assert read(tmp_path / "visit", observation(), letter(), visit)[0][0].label == "Annual check-up"


def test_of_two_dated_exports_the_later_version_of_a_resource_counts(tmp_path: Path) -> None:
    corrected = observation(status="corrected", valueQuantity={"value": 8.1, "unit": "g/dL"})
    for day, found in (("2020-01", observation()), ("2020-02", corrected)):
        write_lines(tmp_path / day / "Observation.ndjson", [found])
    write_lines(tmp_path / "2020-01" / "Patient.ndjson", [PATIENT])
    write_lines(tmp_path / "2020-02" / "DocumentReference.ndjson", [letter()])
    assert values(read_fhir(tmp_path, SCHEMA)[0]) == {"Hemoglobin": [8.1]}


def test_a_letter_that_names_no_stay_is_of_the_latest_it_can_be_about(tmp_path: Path) -> None:
    stays = [_encounter("e1", "2020-05-05", "2020-05-05"), _encounter("e2", "2020-05-19", "2020-05-21")]
    results = [observation(key, effectiveDateTime=day) for key, day in (("a", "2020-05-05"), ("b", "2020-05-20"))]
    cohort, _ = read(tmp_path, *results, *stays, letter(date="2020-05-21"), patient="stay")
    assert [(patient.patient_id, patient.reference) for patient in cohort] == [("e2", "Rest.")]


@pytest.mark.parametrize(("time", "n"), [("2020-05-05", 1), ("2020-05-05T00:00:00", 1), ("2020-05-05T07:59:00", 0)])
def test_a_result_without_a_time_of_day_is_of_the_stay_that_began_on_its_day(time: str, n: int, tmp_path: Path) -> None:
    stay = _encounter("e", "2020-05-05T08:00:00", "2020-05-07T09:00:00")
    results = observation("a", effectiveDateTime=time), observation("b", effectiveDateTime="2020-05-06T10:00:00")
    cohort, _ = read(tmp_path, *results, stay, letter(date="2020-05-07"), patient="stay")
    assert len(values(cohort)["Hemoglobin"]) == 1 + n


def test_a_time_that_is_unknown_is_in_no_stay() -> None:
    stay = Stay("e", "2020-05-05 08:00:00", "2020-05-07 09:00:00")
    finder = StayFinder({"p": Person(stays=[stay])})
    assert [finder.find("p", time) for time in ("", "2020-05-05", "2020-05-04", "2020-05-08")] == ["", "e", "", ""]
