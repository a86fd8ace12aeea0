"""OMOP: what is particular to it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import CohortError
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


def with_dates(path: Path, table: str, form: Callable[[date], str]) -> None:
    """Write the dates of a table in another form; times are left out."""
    with (path / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in row:
            if name.endswith("_date") and row[name]:
                row[name] = form(date.fromisoformat(row[name][:10]))
            elif name.endswith("_datetime"):
                row[name] = ""
    with (path / f"{table}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("form", ["%d-%b-%Y", "%Y%m%d", "%d.%m.%Y"])
def test_dates_in_other_forms_are_compared_as_dates(form: str, tmp_path: Path) -> None:
    people = positive(hospital(12))
    plain, _ = read_omop(write_omop(tmp_path / "plain", people))
    path = write_omop(tmp_path / "other", people)
    for table in ("note", "measurement", "condition_occurrence", "visit_occurrence"):
        with_dates(path, table, lambda day: day.strftime(form))
    other, _ = read_omop(path)
    for one, another in zip(plain, other, strict=True):
        assert (one.reference, one.label, one.split_date) == (another.reference, another.label, another.split_date)
        assert one.dates.tolist() == another.dates.tolist()


@pytest.mark.parametrize("table", ["note", "measurement", "condition_occurrence", "visit_occurrence"])
def test_dates_whose_day_and_month_cannot_be_told_apart_are_refused_with_file_and_column(
    table: str, tmp_path: Path
) -> None:
    path = write_omop(tmp_path, positive(hospital(4)))
    with_dates(path, table, lambda day: day.strftime("%m/%d/%Y"))
    with pytest.raises(CohortError, match=rf"^{table}\.csv, column \w+_date: '\d\d/.*write .* as YYYY-MM-DD") as caught:
        read_omop(path)
    assert "map.toml" not in str(caught.value)


def test_values_without_a_unit_in_a_doubtful_one_are_refused_without_a_map(tmp_path: Path) -> None:
    path = write_omop(tmp_path, positive(hospital(40)))
    rows = (path / "measurement.csv").read_text().splitlines()
    header = rows[0].split(",")
    for k, row in enumerate(rows[1:], start=1):
        cells = row.split(",")
        for name in ("unit_concept_id", "unit_source_value"):
            cells[header.index(name)] = ""
        rows[k] = ",".join(cells)
    (path / "measurement.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(CohortError, match=r"no unit is given: give it in the files, or in a schema \(unit") as caught:
        read_omop(path)
    assert "map.toml" not in str(caught.value)


def test_decimal_commas_are_read_if_no_result_has_a_point(tmp_path: Path) -> None:
    path = write_omop(tmp_path, positive(hospital(25)))
    plain, _ = read_omop(path)
    with (path / "measurement.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    at = header.index("value_as_number")
    for row in rows:
        row[at] = row[at].replace(".", ",")
    with (path / "measurement.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows])
    commas, report = read_omop(path)
    assert report.decimal_comma
    for one, other in zip(plain, commas, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
