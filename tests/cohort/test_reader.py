"""read_cohort: what is read, what is refused and in which words, what is counted."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pmlm_env.cohort import CohortError, read_cohort
from tests.cohort.three_patients import CHECKUPS, LABS, PATIENTS, assert_same, line_of, values_of

Folder = Callable[..., Path]


# What is read


def test_a_patient_has_what_the_files_say(folder: Folder) -> None:
    cohort, _ = read_cohort(folder(patients=PATIENTS, labs=LABS))
    patient = cohort[0]
    assert (patient.patient_id, patient.label, patient.reference) == ("007", "thalassemia", "Rest, and come back.")
    assert (patient.split_date, patient.extra) == (np.datetime64("2021-05-01"), {"age": "31"})
    assert values_of(patient) == {
        ("2021-04-01", "hgb"): 90.5,
        ("2021-04-01", "plt"): 210.0,
        ("2021-04-02", "hgb"): 88.0,
    }


def test_patients_keep_the_order_of_their_file(folder: Folder) -> None:
    cohort, _ = read_cohort(folder(patients=PATIENTS, labs=LABS))
    assert [patient.patient_id for patient in cohort] == ["007", "B2", "C3"]


def test_long_and_wide_give_the_same_cohort(folder: Folder) -> None:
    path = folder(patients=PATIENTS, labs=LABS, checkups=CHECKUPS)
    assert_same(read_cohort(path, labs="labs.csv")[0], read_cohort(path, checkups="checkups.csv")[0])


def test_the_date_of_a_wide_table_may_be_named_day(folder: Folder) -> None:
    path = folder(patients=PATIENTS, checkups=CHECKUPS, days=CHECKUPS.replace(",date,", ",day,"))
    assert_same(read_cohort(path)[0], read_cohort(path, checkups="days.csv")[0])


def test_more_than_45_check_ups_are_all_read(folder: Folder) -> None:
    days = np.datetime64("2021-01-01") + np.arange(60)
    wide = "patient_id,date,hgb\n" + "".join(f"007,{day},100\n" for day in days)
    cohort, _ = read_cohort(folder(patients=PATIENTS, checkups=wide))
    assert cohort[0].dates.tolist() == days.tolist()


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(folder: Folder) -> None:
    path = folder(patients=PATIENTS, labs=LABS)
    plain, _ = read_cohort(path)
    for name in ("patients.csv", "labs.csv"):
        text = (path / name).read_bytes()
        (path / name).write_bytes(codecs.BOM_UTF8 + text.replace(b"\n", b"\r\n"))
    assert_same(plain, read_cohort(path)[0])


def test_blank_rows_are_passed_over(folder: Folder) -> None:
    path = folder(patients=PATIENTS + "\n,,,,\n", labs=LABS.replace("C3", "\nC3") + ",,,,\n\n", wide=CHECKUPS)
    assert_same(read_cohort(path)[0], read_cohort(path, checkups="wide.csv")[0])


@pytest.mark.parametrize("form", ["labs", "checkups"])
def test_parquet_gives_the_same_cohort_as_csv(folder: Folder, tmp_path: Path, form: str) -> None:
    pytest.importorskip("pyarrow")
    path = folder(patients=PATIENTS, **{form: LABS if form == "labs" else CHECKUPS})
    expected, _ = read_cohort(path)
    date = {"patients": "split_date", form: "date"}
    other = tmp_path / "parquet"
    other.mkdir()
    for stem, column in date.items():
        table = pd.read_csv(path / f"{stem}.csv", dtype={"patient_id": str})
        table[column] = pd.to_datetime(table[column], format="ISO8601")
        table.to_parquet(other / f"{stem}.parquet")
    assert_same(expected, read_cohort(other)[0])


def test_without_references_the_column_may_be_missing(folder: Folder) -> None:
    patients = "patient_id,label,split_date\n007,survived,2020-02-02\n"
    cohort, _ = read_cohort(
        folder(patients=patients, checkups="patient_id,date,hgb\n007,2020-01-01,90\n"), references=False
    )
    assert cohort[0].reference == ""


# Patients and check-ups without values


def test_patients_without_a_value_are_left_out_and_named(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cohort, report = read_cohort(folder(patients=PATIENTS, checkups=CHECKUPS.replace("C3,2022-09-01,,,7.4\n", "")))
    assert [patient.patient_id for patient in cohort] == ["007", "B2"]
    assert report.patients_without_checkups == ("C3",)
    (warning,) = caplog.messages
    assert "C3" in warning
    assert "C3" in str(report)


def test_a_check_up_without_a_value_is_left_out_and_counted(folder: Folder) -> None:
    cohort, report = read_cohort(folder(patients=PATIENTS, checkups=CHECKUPS + "B2,2022-02-03,,,\n"))
    assert len(cohort[1].dates) == 1
    assert report.empty_checkups == 1


def test_no_check_up_at_all_is_an_error(folder: Folder) -> None:
    with pytest.raises(CohortError, match=r"checkups\.csv has no check-up with a value"):
        read_cohort(folder(patients=PATIENTS, checkups="patient_id,date,hgb\nB2,2022-02-03,\n"))


@pytest.mark.parametrize("name", ["patients", "labs"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", " has no rows below its header$"),
        ("a,b,c\n" * 3, r", line 2, 3 cells where the header has [45], and so in all"),
    ],
)
def test_a_table_without_rows_is_named(folder: Folder, name: str, rows: str, said: str) -> None:
    texts = {"patients": PATIENTS, "labs": LABS}
    texts[name] = texts[name].split("\n")[0] + "\n" + rows
    with pytest.raises(CohortError, match=rf"^{name}\.csv{said}"):
        read_cohort(folder(**texts))


# What is refused: the line, the column, the value found

BAD_LABS = {
    "unknown indicator": ("B2,2022-02-05,hgb1,120,g/L", "column indicator: 'hgb1' .*did you mean 'hgb'"),
    "unparsable value": ("B2,2022-02-05,alt,0.5.1,U/L", "column value: '0.5.1' is not a number"),
    "missing value": ("B2,2022-02-05,alt,,U/L", "column value: the cell is empty"),
    "impossible value": (
        "B2,2022-02-05,hgb,12.6,g/L",
        "column value: hgb 12.6 is outside 20 to 260 g/L.* another unit",
    ),
    "wrong unit": (
        "B2,2022-02-05,hgb,120,mmHg",
        "column unit: 'mmHg' is not the unit of hgb, g/L: it does not measure",
    ),
    "unparsable date": ("B2,5/2/22,hgb,120,g/L", "column date: '5/2/22' is not a date; write YYYY-MM-DD"),
    "unknown patient": ("7,2022-02-05,hgb,120,g/L", "column patient_id: '7' .*did you mean 007"),
    "wrong number of cells": ("B2,2022-02-05,hgb,1,200,g/L", "6 cells where the header has 5"),
}
BAD_CHECKUPS = {
    "unparsable value": ("B2,2022-02-05,120,inf,", "column plt: 'inf' is not a number"),
    "impossible value": ("B2,2022-02-05,,,70", "column pH: pH 70 is outside 4 to 9.5;"),
    "unparsable date": ("B2,2022-02-30,120,,", "column date: '2022-02-30' is not a date"),
    "unknown patient": ("b2,2022-02-05,120,,", "column patient_id: 'b2' .*did you mean B2"),
    "wrong number of cells": ("B2,2022-02-05,120,", "4 cells where the header has 5"),
}
BAD_PATIENTS = {
    "missing patient_id": (",normal,Fine.,2022-01-01,3", "column patient_id: the cell is empty"),
    "duplicate patient_id": ("007,normal,Fine.,2022-01-01,3", "column patient_id: '007' is in line 2 already"),
    "unprintable label": ("D4,no\x1b[2Jrmal,Fine.,2022-01-01,3", r"column label: 'no\\x1b\[2Jrmal' contains a control"),
    "unparsable date": ("D4,normal,Fine.,,3", "column split_date: '' is not a date"),
    "wrong number of cells": ("D4,normal,Rest, sleep.,2022-01-01,3", "6 cells where the header has 5"),
}
CASES = [
    pytest.param(stem, kind, row, message, id=f"{stem}-{kind}")
    for stem, cases in (("labs", BAD_LABS), ("checkups", BAD_CHECKUPS), ("patients", BAD_PATIENTS))
    for kind, (row, message) in cases.items()
]


def with_row(stem: str, row: str) -> dict[str, str]:
    """Return the texts of a cohort whose file ``stem`` has one more row, after a blank line."""
    texts = {"patients": PATIENTS, "labs": LABS} if stem != "checkups" else {"patients": PATIENTS, "checkups": CHECKUPS}
    return {**texts, stem: f"{texts[stem]}\n{row}\n"}


@pytest.mark.parametrize(("stem", "kind", "row", "message"), CASES)
def test_a_bad_row_is_told_by_file_line_and_value(folder: Folder, stem: str, kind: str, row: str, message: str) -> None:
    texts = with_row(stem, row)
    place = rf"{stem}\.csv, line {line_of(texts[stem], row)}, "
    with pytest.raises(CohortError, match=place + message):
        read_cohort(folder(**texts))


@pytest.mark.parametrize(("stem", "kind", "row", "message"), CASES)
def test_a_bad_row_is_dropped_and_counted(folder: Folder, stem: str, kind: str, row: str, message: str) -> None:
    sound, _ = read_cohort(folder(**with_row(stem, "")))
    cohort, report = read_cohort(folder(**with_row(stem, row)), drop_bad_rows=True)
    assert report.dropped == {kind: 1}
    assert f"1 x {kind}" in str(report)
    if (stem, kind) != ("checkups", "unparsable value"):  # 'inf' goes, the hgb of that row stays: see below
        assert_same(sound, cohort)


def test_a_bad_value_of_a_wide_table_does_not_cost_the_check_up(folder: Folder) -> None:
    wide = CHECKUPS.replace("90.5,210", "90.5,1000 or so")
    cohort, _ = read_cohort(folder(patients=PATIENTS, checkups=wide), drop_bad_rows=True)
    assert values_of(cohort[0]) == {("2021-04-01", "hgb"): 90.5, ("2021-04-02", "hgb"): 88.0}


def test_a_reply_of_several_lines_does_not_shift_the_line_numbers(folder: Folder) -> None:
    patients = PATIENTS.replace("Nothing to do.", '"Nothing\nto\ndo."') + "D4,normal,Fine.,soon,3\n"
    with pytest.raises(CohortError, match=rf"patients\.csv, line {line_of(patients, 'D4')}, column split_date"):
        read_cohort(folder(patients=patients, labs=LABS))


def test_a_parquet_row_is_told_by_its_number(folder: Folder) -> None:
    pytest.importorskip("pyarrow")
    path = folder(patients=PATIENTS)
    labs = pd.DataFrame(
        {"patient_id": "B2", "date": "2022-02-02", "indicator": ["hgb", "plt", "alt"], "value": [99.0, 9.0, -1.0]}
    )
    labs.to_parquet(path / "labs.parquet")
    with pytest.raises(CohortError, match=r"labs\.parquet, row 3, column value: alt -1"):
        read_cohort(path)


def test_many_problems_are_told_by_kind_with_examples(folder: Folder) -> None:
    rows = "".join(f"B2,2022-03-{day:02},alt,12 or so,U/L\n" for day in range(1, 26))
    with pytest.raises(CohortError) as caught:
        read_cohort(folder(patients=PATIENTS.replace("2021-05-01", "May"), labs=LABS + rows))
    lines = str(caught.value).splitlines()
    assert "26 problems" in lines[0]
    assert lines[1] == "  25 x unparsable value:"
    assert ["labs.csv, line " in line for line in lines[2:5]] == [True] * 3
    assert lines[5] == "  1 x unparsable date:"
    assert "patients.csv, line 2, column split_date: 'May' is not a date" in lines[6]
    assert "leave out the bad rows with --drop-bad-rows" in lines[7]
    assert len(lines) == 8


def test_each_unknown_name_is_told_once_with_its_number_of_rows(folder: Folder) -> None:
    rows = "".join(f"B2,2022-03-{day:02},{name},9,\n" for day in range(1, 26) for name in ("hgb1", "plt1"))
    with pytest.raises(CohortError) as caught:
        read_cohort(folder(patients=PATIENTS, labs=LABS + rows))
    said = str(caught.value)
    assert said.count("'hgb1'") == said.count("'plt1'") == 1
    assert said.count("(25 rows)") == 2


def test_a_unit_is_told_once_for_each_indicator(folder: Folder) -> None:
    rows = "".join(f"B2,2022-03-{day:02},{name},9,mmHg\n" for day in range(1, 9) for name in ("hgb", "albumin"))
    with pytest.raises(CohortError) as caught:
        read_cohort(folder(patients=PATIENTS, labs=LABS + rows))
    for name in ("hgb", "albumin"):
        assert f"'mmHg' is not the unit of {name}, g/L: it does not measure the same quantity" in str(caught.value)
    assert str(caught.value).count("(8 rows)") == 2


def test_check_ups_of_a_dropped_patient_are_counted(folder: Folder) -> None:
    patients = PATIENTS.replace("2021-05-01", "May")
    cohort, report = read_cohort(folder(patients=patients, labs=LABS), drop_bad_rows=True)
    assert [patient.patient_id for patient in cohort] == ["B2", "C3"]
    assert report.dropped == {"unparsable date": 1, "check-up of a dropped patient": 3}


@pytest.mark.parametrize("text", ["inf", "-inf", "1_000", "0x10", "12 g", "1.2.3", "1e", "- 5", "5 to"])
def test_what_is_not_plainly_a_number_is_refused(folder: Folder, text: str) -> None:
    with pytest.raises(CohortError, match=r"labs\.csv, line 7, column value: .* is not a number"):
        read_cohort(folder(patients=PATIENTS, labs=LABS + f"B2,2022-02-05,alt,{text},U/L\n"))


def test_an_unknown_column_of_a_wide_table_is_a_problem(folder: Folder) -> None:
    wide = CHECKUPS.replace("plt", "PLT2")
    with pytest.raises(CohortError, match=r"checkups\.csv, line 1, column PLT2: 'PLT2' is not an indicator"):
        read_cohort(folder(patients=PATIENTS, checkups=wide))


def test_an_unknown_column_of_a_long_table_is_reported(folder: Folder) -> None:
    _, report = read_cohort(folder(patients=PATIENTS, labs=LABS.replace("unit", "ward")))
    assert report.ignored_columns == ("ward",)


# Files and columns


@pytest.mark.parametrize("column", ["patient_id", "label", "reference", "split_date"])
def test_a_column_in_other_letters_is_refused_and_suggested(folder: Folder, column: str) -> None:
    patients = PATIENTS.replace(column, column.title(), 1)
    with pytest.raises(CohortError, match=f"no column '{column}'.*did you mean '{column.title()}'"):
        read_cohort(folder(patients=patients, labs=LABS), drop_bad_rows=True)


@pytest.mark.parametrize(
    ("column", "written"),
    [("person_id", "Person_ID"), ("person_id", "Person ID"), ("person_id", "PersonID"), ("split", "Split")],
)
def test_a_column_that_keeps_people_in_one_part_is_not_passed_over(folder: Folder, column: str, written: str) -> None:
    lines = PATIENTS.splitlines()
    patients = "\n".join([f"{lines[0]},{written}", *(f"{line},train" for line in lines[1:])]) + "\n"
    with pytest.raises(CohortError, match=rf"no column '{column}' \(did you mean '{written}'\?\)"):
        read_cohort(folder(patients=patients, labs=LABS))
    assert len(read_cohort(folder(patients=patients.replace(written, column, 1), labs=LABS))[0]) == 3


@pytest.mark.parametrize("name", ["Unit", "UNIT", "units", " unit"])
def test_a_unit_column_in_other_letters_is_not_passed_over(folder: Folder, name: str) -> None:
    with pytest.raises(CohortError, match=rf"no column 'unit' \(did you mean '{name}'\?\)"):
        read_cohort(folder(patients=PATIENTS, labs=LABS.replace("unit", name)))


@pytest.mark.parametrize(
    ("header", "message"), [("hgb,hgb,pH", "'hgb' occurs twice"), ("hgb,,pH", "column 4 has no name")]
)
def test_columns_need_names_of_their_own(folder: Folder, header: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_cohort(folder(patients=PATIENTS, checkups=CHECKUPS.replace("hgb,plt,pH", header)))


def test_long_and_wide_together_must_be_told_apart(folder: Folder) -> None:
    with pytest.raises(CohortError, match=r"choose one: --labs-file labs\.csv or --checkups-file checkups\.csv"):
        read_cohort(folder(patients=PATIENTS, labs=LABS, checkups=CHECKUPS))


def test_no_check_ups_file_names_what_is_there(folder: Folder) -> None:
    with pytest.raises(CohortError, match=r"neither labs\.csv .*map\.toml.*It has: panel\.csv, patients\.csv"):
        read_cohort(folder(patients=PATIENTS, panel=CHECKUPS))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"there is no folder .*nowhere"):
        read_cohort(tmp_path / "nowhere")


def test_other_encodings_are_refused_with_the_line(folder: Folder) -> None:
    path = folder(labs=LABS)
    (path / "patients.csv").write_bytes(
        PATIENTS.replace("Mind the sugar.", "\u6ce8\u610f\u8840\u7cd6").encode("gb18030")
    )
    with pytest.raises(CohortError, match=r"patients\.csv, line 4: byte 0x.* is not UTF-8"):
        read_cohort(path)


def test_an_open_quote_is_told_by_its_line(folder: Folder) -> None:
    with pytest.raises(CohortError, match=r"patients\.csv, line 3: .*double quotes"):
        read_cohort(folder(patients=PATIENTS.replace("Nothing", '"Nothing'), labs=LABS))
