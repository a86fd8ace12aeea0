"""map.toml: a cohort in other words than ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.cohort import CohortError, read_cohort
from pmlm_env.cohort.schema import Schema
from tests.cohort.three_patients import CHECKUPS, LABS, PATIENTS, assert_same, values_of

Folder = Callable[..., Path]

STAYS = """\
PatNr;Diagnose;Brief;Entlassung;age
007;D56;Rest, and come back.;01/05/2021;31
B2;o.B.;Nothing to do.;04/03/2022;28
C3;O24.4;Mind the sugar.;09/09/2022;40
"""
RESULTS = """\
PatNr;Datum;Analyse;Wert
B2;02/02/2022;Hb (Blut);120
007;02/04/2021;Hb (Blut);88
007;01/04/2021;Thrombos;210
007;01/04/2021;hb (blut);90,5
C3;01/09/2022;pH;neutral
C3;01/09/2022;Thrombos;n. d.
"""
MAP = """\
day_first = true

[files]
patients = "stays.csv"
labs = "results.csv"

[columns]
PatNr = "patient_id"
Datum = "date"
Analyse = "indicator"
Wert = "value"
[columns.patients]
Diagnose = "label"
Brief = "reference"
Entlassung = "split_date"

[indicators]
"Hb (Blut)" = "hgb"
Thrombos = "plt"

[values]
neutral = 7.4
"n. d." = ""

[labels]
"D56" = "thalassemia"
"o.b." = "normal"
"O24.4" = "gestational diabetes"
"""


def mapped(folder: Folder, tmp_path: Path, content: str, **texts: str) -> Path:
    path = folder(**texts)
    (path / "map.toml").write_text(content, encoding="utf-8")
    return path


def test_a_map_gives_the_same_cohort_as_our_words(folder: Folder, tmp_path: Path) -> None:
    expected, _ = read_cohort(folder(patients=PATIENTS, labs=LABS))
    for name in ("patients.csv", "labs.csv"):
        (tmp_path / name).unlink()
    cohort, report = read_cohort(mapped(folder, tmp_path, MAP, stays=STAYS, results=RESULTS))
    assert_same(expected, cohort)
    assert report.frequent_words == {"not measured": 1}
    assert report.notes == ()


def test_a_file_named_on_the_command_line_goes_before_the_map(folder: Folder, tmp_path: Path) -> None:
    path = mapped(folder, tmp_path, '[files]\nlabs = "none.csv"\n', patients=PATIENTS, labs=LABS, wide=CHECKUPS)
    assert len(read_cohort(path, checkups="wide.csv")[0]) == 3
    with pytest.raises(CohortError, match=r"has no file 'none\.csv'"):
        read_cohort(path)


def test_names_that_the_tables_do_not_have_are_said(folder: Folder, tmp_path: Path) -> None:
    content = '[columns]\nward = "unit"\n[indicators]\nlactate = "hgb"\n[labels]\nD57 = "normal"\n'
    _, report = read_cohort(mapped(folder, tmp_path, content, patients=PATIENTS, labs=LABS))
    assert report.notes == ("names in map.toml that the tables do not have: ward, lactate, d57",)


def test_what_new_patients_need_not_have_is_not_missed(folder: Folder, tmp_path: Path) -> None:
    content = MAP.replace("[columns]", '[columns]\nWeight = "weight"')
    path = mapped(folder, tmp_path, content, stays="PatNr\n007\nB2\nC3\n", results=RESULTS)
    cohort, report = read_cohort(path, new_patients=True)
    assert [patient.patient_id for patient in cohort] == ["007", "B2", "C3"]
    assert report.notes == ("names in map.toml that the tables do not have: weight",)


def test_a_name_that_is_written_wrongly_in_the_map_is_said_with_what_it_breaks(folder: Folder, tmp_path: Path) -> None:
    path = mapped(folder, tmp_path, MAP.replace("Brief =", "Breif ="), stays=STAYS, results=RESULTS)
    with pytest.raises(CohortError, match=r"stays\.csv, line 1, no column 'reference'\. Found: .*") as caught:
        read_cohort(path)
    assert "Found: PatNr, Diagnose, Brief, Entlassung, age; read as: patient_id, label, Brief," in str(caught.value)
    assert str(caught.value).endswith("\nnames in map.toml that the tables do not have: breif")
    path = mapped(folder, tmp_path, MAP.replace('"reference"', '"referense"'), stays=STAYS, results=RESULTS)
    with pytest.raises(CohortError, match=r"no column 'reference' \(did you mean 'referense'\?\)\. Found: ") as caught:
        read_cohort(path)
    assert "label, referense, split_date" in str(caught.value)
    assert str(caught.value).count("no column 'reference'") == 1


@pytest.mark.parametrize("form", ["labs", "checkups"])
def test_a_problem_names_the_column_as_it_is_in_the_file(folder: Folder, tmp_path: Path, form: str) -> None:
    tables = {
        "labs": "patient_id,date,indicator,Wert\n007,2021-04-01,hgb,9..5\n",
        "checkups": "patient_id,date,Wert\n007,2021-04-01,9..5\n",
    }
    meaning = "[columns]\nWert = 'value'" if form == "labs" else "[indicators]\nWert = 'hgb'"
    path = mapped(folder, tmp_path, meaning, patients=PATIENTS, **{form: tables[form]})
    with pytest.raises(CohortError, match=rf"{form}\.csv, line 2, column Wert: '9\.\.5' is not a number"):
        read_cohort(path)


def test_a_recognized_column_is_named_as_in_the_file_and_so_are_two_that_are_the_same(
    folder: Folder, tmp_path: Path
) -> None:
    columns = "patient_id,date,Hemoglobin,Hb (Blut)"
    content = '[indicators]\n"Hb (Blut)" = "plt"\n'
    wide = f"{columns}\n007,2021-04-01,9..5,210\n"
    with pytest.raises(CohortError, match=r"checkups\.csv, line 2, column Hemoglobin: '9\.\.5' is not a number"):
        read_cohort(mapped(folder, tmp_path, content, patients=PATIENTS, checkups=wide))
    twice = mapped(folder, tmp_path, content.replace("plt", "haemoglobin"), patients=PATIENTS, checkups=wide)
    with pytest.raises(CohortError, match=r"columns 'Hemoglobin' and 'Hb \(Blut\)'"):
        read_cohort(twice, schema=Schema.load("obstetric"))


def test_a_wide_table_has_names_values_and_units(folder: Folder, tmp_path: Path) -> None:
    content = '[indicators]\nHb = "hgb"\n[values]\n"?" = ""\n[units]\nHb = "mg/mL"\nplt = "K/uL"\n'
    checkups = "patient_id,date,Hb,plt\n007,2021-04-01,90.5,210\n007,2021-04-02,?,200\n"
    cohort, report = read_cohort(mapped(folder, tmp_path, content, patients=PATIENTS, checkups=checkups))
    assert values_of(cohort[0])["2021-04-01", "hgb"] == 90.5
    assert ("2021-04-02", "hgb") not in values_of(cohort[0])
    assert report.words == 0


@pytest.mark.parametrize("form", ["labs", "checkups"])
def test_a_unit_of_the_map_is_that_of_the_values(folder: Folder, tmp_path: Path, form: str) -> None:
    tables = {
        "labs": "patient_id,date,indicator,value\n007,2021-04-01,hgb,9.5\n",
        "checkups": "patient_id,date,hgb\n007,2021-04-01,9.5\n",
    }
    path = mapped(folder, tmp_path, '[units]\nhgb = "furlong"\n', patients=PATIENTS, **{form: tables[form]})
    with pytest.raises(CohortError, match=r"'furlong' is not the unit of hgb, g/L"):
        read_cohort(path)


def test_a_unit_in_the_table_goes_before_that_of_the_map(folder: Folder, tmp_path: Path) -> None:
    content = '[units]\nhgb = "furlong"\n'
    path = mapped(folder, tmp_path, content, patients=PATIENTS, labs=LABS)
    assert_same(read_cohort(path)[0], read_cohort(path)[0])
    blank = LABS.replace("88,g/L", "88,")
    path = mapped(folder, tmp_path, content, patients=PATIENTS, labs=blank)
    with pytest.raises(CohortError, match=r"labs\.csv, line 3, column unit: 'furlong'"):
        read_cohort(path)


@pytest.mark.parametrize("section", ["indicators", "columns.checkups"])
@pytest.mark.parametrize("form", ["labs", "checkups"])
def test_a_unit_in_a_name_is_kept_when_the_name_is_translated(
    folder: Folder, tmp_path: Path, form: str, section: str
) -> None:
    if (form, section) == ("labs", "columns.checkups"):
        return  # the names of a long table are no columns
    tables = {
        "labs": (
            "patient_id,date,indicator,value,unit\n007,2021-04-01,Hb (g/dL),9.5,\n007,2021-04-02,Hb (g/dL),95,g/L\n"
        ),
        "checkups": "patient_id,date,Hb (g/dL)\n007,2021-04-01,9.5\n007,2021-04-02,9.5\n",
    }
    content = f'[{section}]\n"Hb (g/dL)" = "hgb"\n'
    cohort, _ = read_cohort(mapped(folder, tmp_path, content, patients=PATIENTS, **{form: tables[form]}))
    assert [*values_of(cohort[0]).values()] == [95.0, 95.0]
    path = mapped(folder, tmp_path, f'{content}[units]\nhgb = "furlong"\n', patients=PATIENTS, **{form: tables[form]})
    with pytest.raises(CohortError, match="'furlong' is not the unit of hgb, g/L"):  # an entry is what the user says
        read_cohort(path)


@pytest.mark.parametrize("form", ["labs", "checkups"])
def test_units_and_values_that_fit_nothing_are_said(folder: Folder, tmp_path: Path, form: str) -> None:
    content = '[units]\nhbg = "g/dL"\nplt = "K/uL"\n[values]\n"n. d." = ""\n"?" = ""\n'
    tables = {
        "labs": "patient_id,date,indicator,value\n007,2021-04-01,plt,210\n007,2021-04-01,hgb,?\n",
        "checkups": "patient_id,date,hgb,plt\n007,2021-04-01,?,210\n",
    }
    path = mapped(folder, tmp_path, content, patients=PATIENTS, **{form: tables[form]})
    assert read_cohort(path)[1].notes[0] == "names in map.toml that the tables do not have: hbg, 'n. d.'"
    assert "n. d." not in read_cohort(path, new_patients=True)[1].notes[0]  # few people have all words


def test_the_map_says_what_marks_decimals(folder: Folder, tmp_path: Path) -> None:
    labs = 'patient_id,date,indicator,value\n007,2021-04-01,plt,"1,210"\n'
    for mark, value in ((",", 1.21), (".", 1210)):
        path = mapped(folder, tmp_path, f'decimal = "{mark}"', patients=PATIENTS, labs=labs)
        assert values_of(read_cohort(path)[0][0]) == {("2021-04-01", "plt"): value}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("colums = {}", r"map\.toml: there is no key 'colums' \(did you mean 'columns'\?\)"),
        ('decimal = ";"', r"""map\.toml: decimal is ';': use "\." or ",\""""),
        ("day_first = 1", "day_first is '1': use true or false"),
        ("[files]\nlab = 'x.csv'", r"\[files\] there is no key 'lab' \(did you mean 'labs'\?\)"),
        ("[columns]\nx = 3", r"\[columns\] 'x' is '3': use text"),
        ("[columns.people]\nx = 'y'", r"\[columns\] there is no key 'people'"),
        ("[values]\nx = true", r"\[values\] 'x' is 'True': use a number"),
        ("labels = 3", r"labels is '3': use a table, \[labels\]"),
        ("x = [", "map.toml is not TOML"),
        ("[columns]\nage = 'label'", "map.toml gives two columns of patients.csv the name 'label'"),
    ],
)
def test_what_a_map_cannot_say_is_one_line(folder: Folder, tmp_path: Path, content: str, message: str) -> None:
    path = mapped(folder, tmp_path, content, patients=PATIENTS, labs=LABS)
    with pytest.raises(CohortError, match=message) as caught:
        read_cohort(path)
    assert "\n" not in str(caught.value)
