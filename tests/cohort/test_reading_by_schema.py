"""Cohorts of other indicators, and indicators under other names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmlm_env.cohort import CohortError, Indicator, Label, Patient, Schema, read_cohort, write_cohort
from pmlm_env.cohort.sources import daily
from tests.cohort.three_patients import CHECKUPS, LABS, PATIENTS, assert_same, values_of
from tests.schemas import MEN, SCHEMA, cohort_of

Folder = Callable[..., Path]

MEN_PATIENTS = "patient_id,label,reference,split_date\nM1,Gout,Drink water.,2021-05-01\nM2,,,2022-05-01\n"
MEN_CHECKUPS = (
    "patient_id,date,psa,creatinine,urate,hemoglobin,crp\nM1,2021-01-01,1.5,90,510,141,\nM2,2022-01-01,,,,,3\n"
)
MEN_LABS = """\
patient_id,date,indicator,value,unit
M1,2021-01-01,psa,1.5,ng/mL
M1,2021-01-01,creatinine,90,umol/L
M1,2021-01-01,urate,510,umol/L
M1,2021-01-01,hemoglobin,141,g/L
M2,2022-01-01,crp,3,mg/L
"""


@pytest.fixture
def men(folder: Folder) -> Folder:
    """Return a function that writes tables beside the schema of five indicators."""

    def write(**texts: str) -> Path:
        path = folder(**{"patients": MEN_PATIENTS, **texts})
        (path / "schema.toml").write_text(MEN, encoding="utf-8")
        return path

    return write


def refused(path: Path, **options: Any) -> str:
    """Return the one line that a cohort is refused with."""
    with pytest.raises(CohortError) as caught:
        read_cohort(path, **options)
    said = str(caught.value)
    lines = [
        line
        for line in said.splitlines()
        if not line.startswith("Correct the files") and " in " + str(path) not in line
    ]
    assert len(lines) == 1
    return lines[0]


# The schema of a cohort


@pytest.mark.parametrize("table", [{"checkups": MEN_CHECKUPS}, {"labs": MEN_LABS}])
def test_a_cohort_has_the_indicators_of_the_schema_in_its_folder(men: Folder, table: dict[str, str]) -> None:
    cohort, report = read_cohort(men(**table))
    assert cohort.schema.names == ("psa", "creatinine", "urate", "hemoglobin", "crp")
    np.testing.assert_array_equal(cohort[0].values, [[1.5, 90, 510, 141, np.nan]])
    np.testing.assert_array_equal(cohort[1].values, [[np.nan] * 4 + [3]])
    assert report.read_as == {}


def test_a_saved_schema_in_the_folder_is_used(men: Folder) -> None:
    path = men(checkups=MEN_CHECKUPS)
    schema = Schema.load(path / "schema.toml")
    schema.save(path / "schema.json")
    (path / "schema.toml").unlink()
    assert read_cohort(path)[0].schema == schema


def test_two_schemas_in_a_folder_are_refused(men: Folder) -> None:
    path = men(checkups=MEN_CHECKUPS)
    SCHEMA.save(path / "schema.json")
    with pytest.raises(CohortError, match=r"has schema\.toml and schema\.json: remove one"):
        read_cohort(path)


def test_a_given_schema_replaces_that_of_the_folder(men: Folder) -> None:
    schema = Schema((Indicator("alt"), *Schema.load(men() / "schema.toml").indicators))
    cohort, _ = read_cohort(men(checkups=MEN_CHECKUPS), schema)
    assert cohort.schema is schema
    np.testing.assert_array_equal(cohort[0].values, [[np.nan, 1.5, 90, 510, 141, np.nan]])


def test_a_bad_schema_in_the_folder_is_refused_with_its_file(men: Folder) -> None:
    path = men(checkups=MEN_CHECKUPS)
    (path / "schema.toml").write_text(MEN.replace("low = 20", "low = 2000"))
    assert refused(path).startswith(f"{path / 'schema.toml'}: indicator 3 ('urate'): low is 2000, high is 2000:")


def test_a_broken_link_to_a_schema_is_not_ignored(men: Folder) -> None:
    path = men(checkups=MEN_CHECKUPS)
    (path / "schema.toml").unlink()
    (path / "schema.toml").symlink_to("elsewhere.toml")
    assert refused(path) == f"schema {path / 'schema.toml'} does not exist"


def test_a_table_without_any_indicator_of_the_schema_says_where_to_describe_others(folder: Folder) -> None:
    said = refused(
        folder(patients=MEN_PATIENTS, checkups="patient_id,date,ferritin\nM1,2021-01-01,90\n"), schema=SCHEMA
    )
    assert "line 1, no column is an indicator of the schema. Found besides the date: 'ferritin'. Describe other" in said


def test_without_a_schema_tables_of_the_papers_patients_are_read_by_its_schema(folder: Folder) -> None:
    assert read_cohort(folder(patients=PATIENTS, labs=LABS))[0].schema == SCHEMA


def test_an_indicator_of_another_schema_is_unknown(men: Folder) -> None:
    said = refused(men(checkups=MEN_CHECKUPS.replace("urate", "plt")))
    assert "column plt: 'plt' is not an indicator of the schema; rename or remove it, or add it to the schema" in said


# Other names of indicators


def test_a_wide_table_may_use_synonyms_in_any_letter_case(folder: Folder) -> None:
    wide = CHECKUPS.replace("hgb,plt,pH", "Hemoglobin, PLATELETS ,ph")
    cohort, report = read_cohort(folder(patients=PATIENTS, checkups=wide))
    assert_same(cohort, read_cohort(folder(patients=PATIENTS, checkups=CHECKUPS))[0])
    assert report.read_as == {"Hemoglobin": "hgb", "PLATELETS": "plt", "ph": "pH"}
    assert "Hemoglobin was read as hgb, PLATELETS was read as plt, ph was read as pH" in str(report)


def test_a_long_table_may_use_synonyms_in_any_letter_case(folder: Folder) -> None:
    long = (
        LABS.replace(",hgb,88", ",haemoglobin,88").replace(",hgb,120", ",\uff28\uff22,120").replace("pH", "Blood  pH")
    )
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=long))
    assert_same(cohort, read_cohort(folder(patients=PATIENTS, labs=LABS))[0])
    assert report.read_as == {"\uff28\uff22": "hgb", "haemoglobin": "hgb", "Blood pH": "pH"}


def test_names_of_the_schema_are_not_reported(folder: Folder) -> None:
    _, report = read_cohort(folder(patients=PATIENTS, labs=LABS.replace(",plt,", ", plt ,")))
    assert report.read_as == {}
    assert "was read as" not in str(report)


def test_two_columns_of_one_indicator_are_refused(folder: Folder) -> None:
    path = folder(patients=PATIENTS, checkups=CHECKUPS.replace("hgb,plt,pH", "hgb,Hb,pH"))
    for drop in (False, True):
        assert "checkups.csv, line 1, columns 'hgb' and 'Hb' are both the indicator hgb: keep one" in refused(
            path, drop_bad_rows=drop
        )


def test_two_columns_of_one_indicator_are_refused_if_they_have_it_in_other_words(men: Folder) -> None:
    text = 'patient_id,date,hemoglobin,"Hemoglobin [Mass/volume] in Blood"\nM1,2021-01-01,141,\nM2,2022-01-01,,150\n'
    line = "checkups.csv, line 1, columns 'hemoglobin' and 'Hemoglobin [Mass/volume] in Blood' are both the indicator"
    assert refused(men(checkups=text)).startswith(f"{line} hemoglobin: keep one")


def test_the_first_of_many_other_names_are_reported(folder: Folder) -> None:
    schema = Schema(tuple(Indicator(f"i{n}") for n in range(12)))
    header = ",".join(f"I{n}" for n in range(12))
    checkups = f"patient_id,date,{header}\nM1,2021-01-01,{'1' + ',1' * 11}\n"
    _, report = read_cohort(folder(patients=MEN_PATIENTS, checkups=checkups), schema)
    assert len(report.read_as) == 12
    assert "I9 was read as i9 and 2 more" in str(report)


def test_two_names_of_one_indicator_on_one_day_are_averaged(folder: Folder) -> None:
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=LABS + "007,2021-04-01,Hb,92.5,g/L\n"))
    assert values_of(cohort[0])["2021-04-01", "hgb"] == 91.5
    assert report.averaged == 2


def test_a_value_under_a_synonym_has_the_bounds_and_the_unit_of_the_indicator(folder: Folder) -> None:
    low = refused(folder(patients=PATIENTS, labs=LABS + "B2,2022-02-05,Hb,12,g/L\n"))
    assert "column value: hgb 12 is outside 20 to 260 g/L" in low
    unit = refused(folder(patients=PATIENTS, labs=LABS + "B2,2022-02-05,Hb,12,mmHg\n"))
    assert "'mmHg' is not the unit of hgb, g/L: it does not measure" in unit


def test_a_synonym_that_is_almost_right_is_suggested(folder: Folder) -> None:
    said = refused(folder(patients=PATIENTS, labs=LABS + "B2,2022-02-05,haemoglobine,120,g/L\n"))
    assert "'haemoglobine' is not an indicator of the schema (did you mean 'haemoglobin' or 'hemoglobin'?)" in said


# Values and units


@pytest.mark.parametrize("value", ["0", "1e-9", "1e15"])
def test_an_indicator_without_bounds_may_have_any_value_from_0(men: Folder, value: str) -> None:
    cohort, _ = read_cohort(men(checkups=MEN_CHECKUPS.replace(",3\n", f",{value}\n")))
    assert cohort[1].values[0, 4] == float(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-3", "crp -3 is negative; correct or remove it, or give crp a negative low in the schema"),
        ("1e16", "crp 1e16 is outside 0 to 1e+15 mg/L"),
        ("3nan", "'3nan' is not a number"),
    ],
)
def test_other_values_of_an_indicator_without_bounds_are_refused(men: Folder, value: str, message: str) -> None:
    said = refused(men(checkups=MEN_CHECKUPS.replace(",3\n", f",{value}\n")))
    assert f"checkups.csv, line 3, column crp: {message}" in said


@pytest.mark.parametrize("unit", ["Borg points", "BORG POINTS", " borg  points ", ""])
def test_a_unit_that_cannot_be_parsed_matches_itself(folder: Folder, unit: str) -> None:
    labs = f"patient_id,date,indicator,value,unit\nM1,2021-01-01,dyspnea,3,{unit}\n"
    schema = Schema((Indicator("dyspnea", "Borg points"),))
    cohort, _ = read_cohort(folder(patients=MEN_PATIENTS, labs=labs), schema)
    assert cohort[0].values.tolist() == [[3.0]]


def test_another_unit_than_one_that_cannot_be_parsed_is_refused(folder: Folder) -> None:
    labs = "patient_id,date,indicator,value,unit\nM1,2021-01-01,dyspnea,30,%\n"
    with pytest.raises(CohortError, match="'%' is not the unit of dyspnea, Borg points: write Borg points, or convert"):
        read_cohort(folder(patients=MEN_PATIENTS, labs=labs), Schema((Indicator("dyspnea", "Borg points"),)))


@pytest.mark.parametrize(("form", "text"), [("labs", LABS), ("checkups", CHECKUPS)])
def test_more_values_than_fit_into_memory_are_refused(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, form: str, text: str
) -> None:
    path = folder(patients=PATIENTS, **{form: text})
    monkeypatch.setattr(daily, "MAX_VALUES", 4 * 35)
    assert len(read_cohort(path)[0]) == 3
    monkeypatch.setattr(daily, "MAX_VALUES", 4 * 35 - 1)
    assert f"{form}.csv has 4 check-ups: with the schema's 35 indicators, at most 3 are read" in refused(path)


# Labels


def test_a_label_of_the_schema_is_read_in_the_schemas_spelling(men: Folder) -> None:
    cohort, report = read_cohort(men(checkups=MEN_CHECKUPS))
    assert cohort[0].label == "gout"
    assert report.merged_labels == {"gout": ("Gout",)}


def test_other_labels_keep_their_most_frequent_spelling(men: Folder) -> None:
    path = men(checkups=MEN_CHECKUPS)
    schema = replace(Schema.load(path / "schema.toml"), labels=(Label("sepsis"),))
    cohort, report = read_cohort(path, schema)
    assert cohort[0].label == "Gout"
    assert report.merged_labels == {}


# Writing


def test_a_written_cohort_has_its_schema(men: Folder, tmp_path: Path) -> None:
    cohort, _ = read_cohort(men(checkups=MEN_CHECKUPS))
    target = tmp_path / "again"
    write_cohort(cohort, target)
    again, _ = read_cohort(target)
    assert again.schema == cohort.schema
    assert_same(again, cohort)
    assert sorted(path.name for path in target.iterdir()) == ["checkups.csv", "patients.csv", "schema.json"]


def some_patient() -> Patient:
    dates = np.array(["2021-01-01"], "datetime64[D]")
    return Patient("P1", "normal", "", np.datetime64("2021-01-02"), dates, np.full((1, 35), 60.0))


def test_the_papers_schema_is_written_because_the_labels_may_be_others(tmp_path: Path) -> None:
    values = np.full((1, 35), np.nan)
    values[0, SCHEMA.index("hgb")] = 120.0
    write_cohort(cohort_of(replace(some_patient(), label="gout", values=values)), tmp_path)
    assert Schema.load(tmp_path / "schema.json") == read_cohort(tmp_path)[0].schema == SCHEMA


def test_the_schema_of_an_earlier_cohort_is_replaced(men: Folder, tmp_path: Path) -> None:
    cohort, _ = read_cohort(men(checkups=MEN_CHECKUPS))
    target = tmp_path / "again"
    write_cohort(cohort, target)
    write_cohort(cohort_of(some_patient()), target)
    assert Schema.load(target / "schema.json") == SCHEMA


def test_a_schema_that_someone_wrote_is_not_replaced(men: Folder) -> None:
    path = men(checkups=MEN_CHECKUPS)
    with pytest.raises(CohortError, match=r"schema\.toml is not the cohort's schema: remove it, or use another folder"):
        write_cohort(cohort_of(some_patient()), path)
    assert (path / "checkups.csv").read_text() == MEN_CHECKUPS
