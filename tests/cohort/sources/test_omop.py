"""OMOP: what is particular to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmlm_env.cohort.sources.omop import read_omop
from tests.cohort.sources.hospital import TESTS, hospital, positive
from tests.cohort.sources.omop_form import write_omop

pytest.importorskip("pyarrow")


def test_without_concepts_codes_tell_indicators_and_chapters_name_conditions(tmp_path: Path) -> None:
    people = positive(hospital(12))
    write_omop(tmp_path, people)
    (tmp_path / "CONCEPT.csv").unlink()
    rows = (tmp_path / "measurement.csv").read_text().splitlines()
    place = rows[0].split(",").index("measurement_source_value")
    loinc = {str(test.item): test.loinc for test in TESTS}
    for k, row in enumerate(rows[1:], start=1):
        cells = row.split(",")
        cells[place] = loinc[cells[place]]
        rows[k] = ",".join(cells)
    (tmp_path / "measurement.csv").write_text("\n".join(rows) + "\n")
    cohort, report = read_omop(tmp_path)
    assert {"creatinine", "hgb", "sodium", "urine_glucose"} <= set(cohort.schema.names)
    chapters = {chapter for person in people for stay in person.stays for _, _, _, chapter in stay.diagnoses}
    assert {patient.label for patient in cohort} <= chapters
    assert any("there is no table concept" in line for line in report.notes)
