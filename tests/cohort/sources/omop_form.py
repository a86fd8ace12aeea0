"""A folder in the form of the OMOP Common Data Model 5.4, with vocabularies as OHDSI Athena delivers them."""

from __future__ import annotations

from pathlib import Path

from tests.cohort.sources.hospital import TESTS, Person
from tests.cohort.sources.mimic_form import write_csv

_TIME = "%Y-%m-%d %H:%M:%S"


def write_omop(root: Path, people: list[Person], *, suffix: str = ".csv") -> Path:
    """Write the tables; the names of the columns are in lower case, those of the files too."""
    stays = [(person, stay) for person in people for stay in person.stays]
    tests = {test.item: 3_000_000 + number for number, test in enumerate(TESTS)}
    units = {unit: 8_000 + number for number, unit in enumerate(sorted({test.unit for test in TESTS}))}
    codes = {code: title for _, s in stays for code, _, title, _ in s.diagnoses}
    titles = {code: (4_000_000 + number, title) for number, (code, title) in enumerate(codes.items())}
    write_csv(
        root / f"person{suffix}",
        "person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,birth_datetime,race_concept_id,"
        "ethnicity_concept_id,location_id,provider_id,care_site_id,person_source_value,gender_source_value",
        [
            (p.id, {"male": 8507, "female": 8532}[p.sex], p.born, "", "", "", 0, 0, "", "", "", p.id, p.sex)
            for p in people
        ],
    )
    write_csv(
        root / f"visit_occurrence{suffix}",
        "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_start_datetime,visit_end_date,"
        "visit_end_datetime,visit_type_concept_id",
        [
            (s.id, p.id, 9201, s.start.date(), s.start.replace(hour=7).strftime(_TIME), s.end.date(),
             s.end.strftime(_TIME), 32817)
            for p, s in stays
        ],
    )  # fmt: skip
    write_csv(
        root / f"condition_occurrence{suffix}",
        "condition_occurrence_id,person_id,condition_concept_id,condition_start_date,condition_start_datetime,"
        "condition_end_date,condition_type_concept_id,condition_status_concept_id,visit_occurrence_id,"
        "condition_source_value,condition_source_concept_id",
        [
            (
                f"{s.id}{k}",
                p.id,
                titles[code][0],
                s.start.date(),
                "",
                "",
                32817,
                32902 if k == 0 else 32908,
                s.id,
                code,
                0,
            )
            for p, s in stays
            for k, (code, _, _, _) in reversed(list(enumerate(s.diagnoses)))
        ],
    )
    write_csv(
        root / f"measurement{suffix}",
        "measurement_id,person_id,measurement_concept_id,measurement_date,measurement_datetime,measurement_time,"
        "measurement_type_concept_id,operator_concept_id,value_as_number,value_as_concept_id,unit_concept_id,"
        "range_low,range_high,provider_id,visit_occurrence_id,visit_detail_id,measurement_source_value,"
        "measurement_source_concept_id,unit_source_value,unit_source_concept_id,value_source_value",
        [
            (f"{s.id}{k}", p.id, tests[r.test.item], r.time.date(), r.time.strftime(_TIME), "", 32856, 4172703, r.value,
             "", units[r.test.unit], "", "", "", s.id if r.named else "", "", r.test.item, 0, r.test.unit, "", r.value)
            for p, s in stays
            for k, r in enumerate(s.results)
        ],
    )  # fmt: skip
    write_csv(
        root / f"note{suffix}",
        "note_id,person_id,note_date,note_datetime,note_type_concept_id,note_class_concept_id,note_title,note_text,"
        "encoding_concept_id,language_concept_id,provider_id,visit_occurrence_id,note_source_value",
        [
            row
            for p, s in stays
            for row in (
                (f"{s.id}1", p.id, s.end.date(), "", 32831, 0, "Discharge instructions", s.instructions, 0, 0, "",
                 s.id, ""),
                (f"{s.id}2", p.id, s.end.date(), "", 32831, 0, "Chest X-ray", "No effusion.", 0, 0, "", s.id, ""),
            )
        ],
    )  # fmt: skip
    names = {t.item: t.name + (" (Urine)" if t.fluid == "Urine" else "") for t in TESTS}
    concepts = [(tests[t.item], names[t.item], "Measurement", "LOINC", "Lab Test", "S", t.loinc) for t in TESTS]
    concepts += [(number, unit, "Unit", "UCUM", "Unit", "S", unit) for unit, number in units.items()]
    concepts += [(n, title, "Condition", "SNOMED", "Disorder", "S", str(n)) for n, title in titles.values()]
    concepts.append((1, '15" ruler', "Device", "SNOMED", "Device", "S", "1"))
    lines = ["concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\tconcept_code"]
    lines += ["\t".join(map(str, each)) for each in concepts]
    (root / "CONCEPT.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
