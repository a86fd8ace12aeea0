"""What is left out and counted, and where so much would be that it is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pmlm_env.cohort import CohortError, read_cohort
from pmlm_env.cohort.schema import Schema
from pmlm_env.cohort.schema_toml import schema_toml
from tests.cohort.three_patients import CHECKUPS, LABS, PATIENTS, assert_same

Folder = Callable[..., Path]

# People who are not in the patients' table


@pytest.mark.parametrize("bad", ["", "?"])
@pytest.mark.parametrize("form", ["labs", "checkups"])
def test_rows_of_other_people_are_left_out_and_counted(folder: Folder, form: str, bad: str) -> None:
    texts = {"labs": LABS, "checkups": CHECKUPS}
    rows = {"labs": "{},2022-01-01,hgb,99{},g/L\n", "checkups": "{},2022-01-01,99{},,\n"}[form]
    others = "".join(rows.format(name, bad) for name in ("X1", "X2", "X1", "X3"))
    sound, _ = read_cohort(folder(patients=PATIENTS, **{form: texts[form]}))
    cohort, report = read_cohort(folder(patients=PATIENTS, **{form: texts[form] + others}))
    assert_same(sound, cohort)
    assert (report.outside_rows, report.outside_people) == (4, 3)
    assert "rows left out, of 3 people who are not in the patients' table: 4" in str(report)


def test_spaces_around_an_identifier_make_no_other_person(folder: Folder) -> None:
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=LABS.replace("007,", " 007\u00a0,")))
    assert len(cohort) == 3
    assert report.outside_rows == 0


def test_where_all_rows_are_of_other_people_that_is_said(folder: Folder) -> None:
    labs = LABS.replace("007", "X1").replace("B2", "X2").replace("C3", "X3")
    with pytest.raises(CohortError, match=r"no check-up with a value.* 5 rows are of people who are not in it"):
        read_cohort(folder(patients=PATIENTS, labs=labs))


def test_a_row_of_nobody_is_a_problem(folder: Folder) -> None:
    with pytest.raises(CohortError, match=r"labs\.csv, line 7, column patient_id: the cell is empty; name the patient"):
        read_cohort(folder(patients=PATIENTS, labs=LABS + ",2022-02-05,hgb,120,g/L\n"))


# After the index date


LATE = "007,2021-05-01 23:59,hgb,99,\n007,2021-05-02,hgb,99,\n007,2021-05-02,plt,200,\nB2,2022-03-05,hgb,99,\n"


def test_values_after_the_index_date_are_left_out_and_counted_by_day(folder: Folder) -> None:
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=LABS + LATE))
    assert (report.values_after_index, report.values, report.patients_after_index) == (3, 6, 2)
    assert "(split_date): 3 of 9, of 2 patients; left out" in str(report)
    assert str(cohort[0].dates[-1]) == "2021-05-01"
    assert len(cohort[1].dates) == 1


def test_values_after_the_index_date_can_be_kept(folder: Folder) -> None:
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=LABS + LATE), keep_later=True)
    assert (report.values_after_index, report.values) == (3, 9)
    assert "(split_date): 3 of 9, of 2 patients; used" in str(report)
    assert len(cohort[0].dates) == 4


def test_a_new_patient_without_an_index_date_keeps_all_values(folder: Folder) -> None:
    patients = PATIENTS.replace("2021-05-01", "")
    cohort, report = read_cohort(folder(patients=patients, labs=LABS + LATE), new_patients=True)
    assert len(cohort[0].dates) == 4
    assert report.values_after_index == 1


def test_what_the_schema_of_others_lacks_is_left_out_of_new_patients_and_counted(folder: Folder) -> None:
    path = folder(patients=PATIENTS, labs=LABS + "B2,2022-02-02,blood group,A,\n007,2021-04-01,Zonulin,12,ug/L\n")
    schema = Schema.load("obstetric")
    with pytest.raises(CohortError, match="is not an indicator of the schema"):
        read_cohort(path, schema)
    cohort, report = read_cohort(path, schema, new_patients=True)
    assert_same(cohort, read_cohort(folder(patients=PATIENTS, labs=LABS))[0])
    assert "indicators that the schema does not have, left out (2, 2 values): 'blood group', Zonulin" in report.notes
    path = folder(patients=PATIENTS, labs=LABS + "B2,2022-02-02,hgb1,120,g/L\n")
    with pytest.raises(CohortError, match=r"'hgb1' is not an indicator of the schema \(did you mean 'hgb'"):
        read_cohort(path, schema, new_patients=True)  # most likely misspelled


def test_where_all_values_are_after_the_index_date_that_is_said(folder: Folder) -> None:
    patients = re.sub(r"202\d-\d\d-\d\d", "2020-01-01", PATIENTS)
    with pytest.raises(CohortError, match=r"all 5 values in labs\.csv are after .*keep the values with --keep-later"):
        read_cohort(folder(patients=patients, labs=LABS))


def test_that_no_value_is_after_the_index_date_is_said_too(folder: Folder) -> None:
    _, report = read_cohort(folder(patients=PATIENTS, labs=LABS))
    assert "values after the patient's index date (split_date): 0 of 5" in str(report)


# Indicators of a schema that is made from the tables

MEN = "patient_id,label,reference,split_date\n" + "".join(f"M{i},gout,Rest.,2021-12-01\n" for i in range(10))


def results(written: str, name: str = "urate", share: float = 1.0) -> str:
    """Return a long table of ten men's creatinine, and of a share of whom another result is written so."""
    rows = [f"M{i},2021-11-01,creatinine,80,umol/L\n" for i in range(10)]
    rows += [f"M{i},2021-11-01,{name},{'300' if i >= 10 * share else written},\n" for i in range(10)]
    return "patient_id,date,indicator,value,unit\n" + "".join(rows)


@pytest.mark.parametrize(
    ("written", "name", "said"),
    [
        ("540 umol/L", "urate", "'540 umol/L' is not a number; write it as 12.5"),
        ('"7,500"', "wbc", "'7,500' may have a decimal comma or a group of thousands"),
        ('"7,500"', "Marker Q", "'7,500' may have a decimal comma or a group of thousands"),
    ],
)
def test_an_indicator_whose_numbers_cannot_be_read_is_told_not_left_out(
    folder: Folder, written: str, name: str, said: str
) -> None:
    with pytest.raises(CohortError, match=r"10 problems in ") as caught:
        read_cohort(folder(patients=MEN, labs=results(written, name)))
    assert f"labs.csv, line 12, column value: {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("known", "written", "said"),
    [
        ("0012", "12", "'12' may be '0012' there, as spreadsheets drop leading zeros"),
        ("A12", "a12", "'a12' may be 'A12' there"),
        ("1", "1.0", "'1.0' may be '1' there"),
        ("A12", "7", "its identifiers are such as '7', those of patients.csv such as 'A12'; use the same in both"),
    ],
)
def test_identifiers_that_all_differ_are_told_with_an_example_of_each_table(
    folder: Folder, known: str, written: str, said: str
) -> None:
    labs = f"patient_id,date,indicator,value\n{written},2021-11-01,urate,400\n"
    with pytest.raises(CohortError) as caught:
        read_cohort(
            folder(patients=f"patient_id,label,reference,split_date\n{known},gout,Rest.,2021-12-01\n", labs=labs)
        )
    assert f"labs.csv, column patient_id: no row is of a patient in patients.csv; {said}" in str(caught.value)


def test_an_unknown_indicator_with_some_numbers_is_told_not_left_out(folder: Folder) -> None:
    with pytest.raises(CohortError, match=r"8 problems in .*\n  labs\.csv, line 12, column value: '5 g/g'"):
        read_cohort(folder(patients=MEN, labs=results("5 g/g", "Marker Q", share=0.8)))


@pytest.mark.parametrize("written", ["120/80", "1961-05-03"])
def test_what_is_no_indicator_at_all_is_left_out_and_counted(folder: Folder, written: str) -> None:
    rows = "".join(f"M{i},2021-11-01,80,{written}\n" for i in range(10))
    cohort, report = read_cohort(folder(patients=MEN, checkups="patient_id,date,creatinine,Marker Q\n" + rows))
    assert cohort.schema.names == ("creatinine",)
    assert "indicators without numbers, left out (1, 10 values): 'Marker Q'" in str(report)


def test_indicators_without_numbers_that_are_most_of_a_long_table_are_refused(folder: Folder) -> None:
    more = "".join(f"M{i},2021-11-01,urine color,yellow,\n" for i in range(10))
    with pytest.raises(CohortError, match=r"labs\.csv: 20 of 30 values are of indicators without numbers \(stool,"):
        read_cohort(folder(patients=MEN, labs=results("brown", "stool") + more))


def test_decimal_commas_hold_beside_remarks_with_points(folder: Folder) -> None:
    rows = "".join(f"M{i};2021-11-01;12,5;{'5' if i % 2 else 'n.d.'}\n" for i in range(10))
    path = folder(patients=MEN, checkups="patient_id;date;hgb (g/dL);crp\n" + rows)
    cohort, report = read_cohort(path)
    assert dict(zip(cohort.schema.names, cohort[1].values[0].tolist(), strict=True)) == {"hgb": 12.5, "crp": 5}
    assert report.frequent_words == {"n.d.": 5}


# Too much to drop

MANY = 20


def refused(folder: Folder, **texts: str) -> str:
    with pytest.raises(CohortError) as caught:
        read_cohort(folder(**{"patients": PATIENTS, "labs": LABS, **texts}), drop_bad_rows=True)
    return str(caught.value)


def test_more_than_half_of_the_values_are_not_dropped(folder: Folder) -> None:
    named = "".join(f"B2,2022-03-{i + 1:02},{name},99,g/L\n" for i in range(MANY) for name in ("hgb2", "plt2"))
    said = refused(folder, labs=LABS + named)
    assert "40 problems" in said
    assert "40 x unknown indicator:" in said
    assert "'hgb2' is not an indicator" in said
    assert "40 of 45 values in labs.csv would be left out; correct the files" in said


def test_more_than_half_of_the_values_of_a_wide_table_are_not_dropped(folder: Folder) -> None:
    table = "patient_id,date,hgb,plt,HGB2,PLT2\n007,2021-04-01,90,200,90,200\nB2,2022-02-02,120,?,120,200\n"
    path = folder(patients=PATIENTS, wide=table)
    with pytest.raises(CohortError, match=r"5 of 8 values in wide\.csv would be left out"):
        read_cohort(path, checkups="wide.csv", drop_bad_rows=True)


def test_more_than_half_of_the_rows_of_a_wide_table_are_not_dropped(folder: Folder) -> None:
    path = folder(patients=PATIENTS, wide=CHECKUPS + "B2,2022-02-03,99,9\n" * MANY)
    with pytest.raises(CohortError, match=r"values in wide\.csv would be left out"):
        read_cohort(path, checkups="wide.csv", drop_bad_rows=True)


def test_more_than_half_of_the_patients_are_not_dropped(folder: Folder) -> None:
    patients = PATIENTS.replace("2021-05-01", "May").replace("2022-03-04", "March")
    assert "2 of 3 patients in patients.csv would be left out" in refused(folder, patients=patients)


def test_an_indicator_in_another_unit_throughout_is_not_dropped(folder: Folder) -> None:
    sound = "".join(f"B2,2022-03-{i + 1:02},plt,200,\n" for i in range(MANY))
    wrong = "".join(f"B2,2022-03-{i + 1:02},alt,1,mmHg\n" for i in range(MANY // 2))
    assert "10 of 10 values of alt in labs.csv would be left out" in refused(folder, labs=LABS + sound + wrong)


def test_identifiers_that_lost_their_zeros_throughout_are_not_dropped(folder: Folder) -> None:
    lost = "".join(f"7,2021-03-{i + 1:02},hgb,99,g/L\n" for i in range(MANY))
    assert "20 of 25 values in labs.csv would be left out" in refused(folder, labs=LABS + lost)


def test_the_only_value_of_an_indicator_may_be_dropped(folder: Folder) -> None:
    cohort, report = read_cohort(
        folder(patients=PATIENTS, labs=LABS + "B2,2022-03-01,alt,5 or so,\n"), drop_bad_rows=True
    )
    assert len(cohort) == 3
    assert report.dropped == {"unparsable value": 1}


@pytest.mark.parametrize(
    ("known", "written"),
    [("10031", "10031.0"), ("Andr\u00e9", "Andre\u0301"), ("P1", "P1\u200b"), ("P1", "\uff301"), ("P-1", "P\u20131"),
     ("P 1", "P  1"), ("007", "7"), ("p1", "P1")],
)  # fmt: skip
def test_an_identifier_that_is_a_patients_in_another_spelling_is_a_problem(
    folder: Callable[..., Path], known: str, written: str
) -> None:
    patients = f"patient_id,label,reference,split_date\n{known},normal,Rest.,2022-02-02\nQ,normal,Rest.,2022-02-02\n"
    checkups = f"patient_id,date,hgb\n{written},2022-01-01,100\nQ,2022-01-01,100\n"
    with pytest.raises(CohortError, match=r"is not in the patients' table \(did you mean"):
        read_cohort(folder(patients=patients, checkups=checkups))


def test_two_files_about_other_people_are_refused(folder: Callable[..., Path]) -> None:
    patients = "patient_id,label,reference,split_date\n" + "".join(f"P{i},normal,Rest.,2022-02-02\n" for i in range(9))
    checkups = "patient_id,date,hgb\nP0,2022-01-01,100\n" + "".join(f"X{i},2022-01-01,100\n" for i in range(8))
    with pytest.raises(CohortError, match=r"8 of 9 patients in .* have no value .* 8 rows of 8 people who are not in"):
        read_cohort(folder(patients=patients, checkups=checkups))


def test_of_two_rows_of_a_patient_the_sound_one_is_taken(folder: Callable[..., Path]) -> None:
    patients = "patient_id,label,reference,split_date\nP1,normal,Rest.,never\nP1,normal,Rest.,2022-02-02\n" + "".join(
        f"Q{i},normal,Rest.,2022-02-02\n" for i in range(5)
    )
    checkups = "patient_id,date,hgb\nP1,2022-01-01,100\n" + "".join(f"Q{i},2022-01-01,100\n" for i in range(5))
    cohort, report = read_cohort(folder(patients=patients, checkups=checkups), drop_bad_rows=True)
    assert cohort[0].patient_id == "P1"
    assert str(cohort[0].split_date) == "2022-02-02"
    assert report.dropped == {"duplicate patient_id": 1, "unparsable date": 1}


def test_a_person_in_two_spellings_is_a_problem_because_the_stays_would_be_in_two_parts(folder: Folder) -> None:
    lines = PATIENTS.splitlines()
    persons = ["person_id", "0031", "", "31"]
    patients = "\n".join(f"{line},{person}" for line, person in zip(lines, persons, strict=True)) + "\n"
    message = r"patients\.csv, line 4, column person_id: '31' may be the person '0031'; write each person in one way"
    with pytest.raises(CohortError, match=message):
        read_cohort(folder(patients=patients, labs=LABS))
    cohort, report = read_cohort(folder(patients=patients, labs=LABS), drop_bad_rows=True)
    assert [patient.person for patient in cohort] == ["0031", "B2"]
    assert report.dropped["person with two spellings"] == 1
    cohort, _ = read_cohort(folder(patients=patients.replace(",31\n", ",0031\n"), labs=LABS))
    assert [patient.person for patient in cohort] == ["0031", "B2", "0031"]
    with pytest.raises(CohortError, match="'b2' may be the person 'B2'"):  # who is one by the patient_id
        read_cohort(folder(patients=patients.replace(",31\n", ",b2\n"), labs=LABS))


MORE = """B2,2022-02-02,blood group,A,
007,2021-04-01,blood group,B,
007,2021-04-01,Zonulin,12,ug/L
"""


WIDE = """patient_id,date,hgb (g/L),Zonulin (ug/L),blood group,note
007,2021-04-01,90,12,A,
B2,2022-02-02,99,,B,
"""


@pytest.mark.parametrize("long", [True, False])
def test_the_schema_that_is_written_reads_the_tables_that_it_was_made_from(
    folder: Folder, tmp_path: Path, long: bool
) -> None:
    path = folder(patients=PATIENTS, **({"labs": LABS + MORE} if long else {"checkups": WIDE}))
    cohort, _ = read_cohort(path)
    schema = cohort.schema
    assert cohort.schema.ignored == (("blood group",) if long else ("blood group", "note"))
    assert "Zonulin" in schema.names
    (tmp_path / "own.toml").write_text(schema_toml(cohort))
    schema.save(tmp_path / "own.json")
    assert Schema.load(tmp_path / "own.toml") == Schema.load(tmp_path / "own.json") == schema
    again, report = read_cohort(path, schema)
    assert_same(again, cohort)
    assert any(note.startswith("indicators that the schema ignores, left out") for note in report.notes)


def test_a_name_of_which_only_a_part_is_left_out_is_not_ignored(folder: Folder) -> None:
    more = "007,2021-04-01,Zonulin,12,ug/L\nB2,2022-02-02,Zonulin,13,ug/L\nB2,2022-02-02,Zonulin,cloudy,%\n"
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=LABS + more))
    assert any("indicators without numbers, left out (1, 1 values): 'Zonulin (%)'" in note for note in report.notes)
    assert "Zonulin" in cohort.schema.names
    assert cohort.schema.ignored == ()


@pytest.mark.parametrize(("cells", "said"), [(",", "the cell is empty"), ("b2,2022-02-02", "did you mean B2")])
def test_an_indicator_of_rows_without_a_patient_is_not_left_out_with_them(
    folder: Folder, cells: str, said: str
) -> None:
    labs = LABS + f"{cells},Zonulin,12,ug/L\n"  # as where a patient's rows share one merged cell
    with pytest.raises(CohortError, match=rf"labs\.csv, line 7, column patient_id: .*{said}"):
        read_cohort(folder(patients=PATIENTS, labs=labs))
    _, report = read_cohort(folder(patients=PATIENTS, labs=labs), drop_bad_rows=True)
    assert report.dropped["unknown patient"] == 1
    assert "unknown indicator" not in report.dropped


def test_names_that_a_schema_ignores_are_left_out_whatever_their_case_and_unit(folder: Folder) -> None:
    expected, _ = read_cohort(folder(patients=PATIENTS, labs=LABS))
    path = folder(patients=PATIENTS, labs=LABS + MORE + "B2,2022-02-02,BLOOD GROUP [serology],0,\n")
    schema = replace(expected.schema, ignored=("Blood group", "zonulin"))
    with pytest.raises(CohortError, match=r"1 problem .*\n.*line 10, .*'BLOOD GROUP \[serology\]' is not an indicator"):
        read_cohort(path, schema)
    schema = replace(expected.schema, ignored=("Blood group", "zonulin", "blood group [serology]"))
    cohort, report = read_cohort(path, schema)
    assert_same(cohort, read_cohort(folder(patients=PATIENTS, labs=LABS), schema)[0])
    assert report.dropped == {}
    assert [note for note in report.notes if "ignores" in note] == [
        "indicators that the schema ignores, left out (3, 4 values): 'blood group', Zonulin, 'BLOOD GROUP [serology]'"
    ]


def test_new_patients_of_whom_all_is_ignored_or_unknown_are_refused(folder: Folder) -> None:
    labs = LABS.splitlines(keepends=True)[0] + MORE
    schema = replace(Schema.load("obstetric"), ignored=("blood group",))
    with pytest.raises(CohortError, match=r"labs\.csv: none of its indicators \(Zonulin\) is one of the schema's"):
        read_cohort(folder(patients=PATIENTS, labs=labs), schema, new_patients=True)


def test_a_name_is_an_indicator_or_ignored_but_not_both(tmp_path: Path) -> None:
    text = 'ignored = ["comment", "HGB"]\nindicators = [{ name = "hemoglobin", unit = "g/L", synonyms = ["hgb"] }]\n'
    (tmp_path / "schema.toml").write_text(text)
    message = r"schema\.toml: ignored: 'HGB' is a name of indicator 1 \('hemoglobin'\): remove one of them"
    with pytest.raises(ValueError, match=message):
        Schema.load(tmp_path / "schema.toml")
    (tmp_path / "schema.toml").write_text(text.replace('"HGB"', "5"))
    with pytest.raises(ValueError, match=r"ignored is .*: use a list of texts"):
        Schema.load(tmp_path / "schema.toml")
