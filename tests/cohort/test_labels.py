"""Labels that are spelled in several ways, and patients without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.cohort import OBSTETRIC, ReadReport, Schema, read_cohort

Folder = Callable[..., Path]
CHECKUP = "{},2022-01-01,100\n"


def read(folder: Folder, *labels: str) -> tuple[list[str], ReadReport]:
    """Return the labels of patients as they are read, and the report."""
    patients = "patient_id,label,reference,split_date\n"
    patients += "".join(f'P{i},"{label}",Rest.,2022-02-02\n' for i, label in enumerate(labels))
    checkups = "patient_id,date,hgb\n" + "".join(CHECKUP.format(f"P{i}") for i in range(len(labels)))
    cohort, report = read_cohort(folder(patients=patients, checkups=checkups))
    return [patient.label for patient in cohort], report


@pytest.mark.parametrize("word", ["None", "none", "NONE"])
def test_none_is_a_label_of_those_in_whom_nothing_was_found(folder: Folder, word: str) -> None:
    labels, report = read(folder, word, "gout", "")
    assert labels == [word, "gout", ""]
    assert report.unlabeled == 1


@pytest.mark.parametrize("marker", ["NA", "n/a", "NaN", "NULL"])
def test_a_missing_value_marker_is_no_label(folder: Folder, marker: str) -> None:
    assert read(folder, marker, "gout", "gout")[0] == ["", "gout", "gout"]


def test_patients_whose_labels_are_missing_value_markers_are_read_by_the_papers_schema(folder: Folder) -> None:
    patients = "patient_id,label,reference,split_date\nP0,NA,Rest.,2022-02-02\n"
    cohort, _ = read_cohort(folder(patients=patients, checkups="patient_id,date,hgb\nP0,2022-01-01,100\n"))
    assert cohort.schema == Schema.load(OBSTETRIC)


@pytest.mark.parametrize(
    "other",
    ["uterine scar ", " uterine scar", "uterine  scar", "uterine\u00a0scar", "uterine\tscar", "uterine\u2028scar",
     "\ufeffuterine scar", "uterine\u200b scar", "uterine\nscar"],
)  # fmt: skip
def test_white_space_and_what_cannot_be_seen_make_no_other_label(folder: Folder, other: str) -> None:
    labels, report = read(folder, "uterine scar", other, other)
    assert labels == ["uterine scar"] * 3
    assert report.merged_labels == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [("normal", "Normal"), ("normal", "NORMAL"), ("normal", "\uff4e\uff4f\uff52\uff4d\uff41\uff4c"),
     ("Stra\u00dfe", "STRASSE"), ("pre-eclampsia", "pre\u2011eclampsia"),
     ("distress (heart)", "distress \uff08heart\uff09"),
     ("Crohn's disease", "Crohn\u2019s disease")],
)  # fmt: skip
def test_letter_case_and_width_make_no_other_label_and_the_frequent_spelling_stays(
    folder: Folder, one: str, other: str
) -> None:
    labels, report = read(folder, other, one, one)
    assert labels == [one] * 3
    assert report.merged_labels == {one: (other,)}
    assert f"label '{one}' was also written '{other}'".replace("'Crohn's disease'", '"Crohn\'s disease"') in str(report)


def test_composed_and_decomposed_accents_are_one(folder: Folder) -> None:
    labels, _ = read(folder, "Gr\u00e9goire", "Gre\u0301goire")
    assert labels == ["Gr\u00e9goire"] * 2


def test_labels_in_full_width_alone_stay_as_they_are(folder: Folder) -> None:
    labels, report = read(folder, "\u80ce\u513f\u7a98\u8feb\uff08\u5fc3\u578b\uff09", "normal")
    assert labels == ["\u80ce\u513f\u7a98\u8feb\uff08\u5fc3\u578b\uff09", "normal"]
    assert report.merged_labels == {}


def test_a_rare_label_that_is_nearly_a_frequent_one_is_doubted_and_kept(folder: Folder) -> None:
    labels, report = read(folder, *["gestational diabetes"] * 3, "gestational diabetis")
    assert labels[-1] == "gestational diabetis"
    assert "label 'gestational diabetis' (1 x): did you mean 'gestational diabetes' (3 x)?" in str(report)


def test_a_label_spelled_by_ear_is_doubted(folder: Folder) -> None:
    _, report = read(folder, *["IgA nephropathy"] * 3, "IgA nefropathy")
    assert report.doubtful_labels == ("'IgA nefropathy' (1 x): did you mean 'IgA nephropathy' (3 x)?",)


def test_two_frequent_labels_that_are_nearly_the_same_are_not_doubted(folder: Folder) -> None:
    _, report = read(folder, *["hypothyroidism"] * 3, *["hyperthyroidism"] * 3)
    assert report.doubtful_labels == ()


def test_patients_without_a_label_or_a_reply_are_read_and_counted(folder: Folder) -> None:
    patients = "patient_id,label,reference,split_date\nP1,,Rest.,2022-02-02\nP2,normal, ,2022-02-02\nP3,,,2022-02-02\n"
    checkups = "patient_id,date,hgb\n" + "".join(map(CHECKUP.format, ("P1", "P2", "P3")))
    cohort, report = read_cohort(folder(patients=patients, checkups=checkups))
    assert [(patient.label, patient.reference) for patient in cohort] == [("", "Rest."), ("normal", ""), ("", "")]
    assert (report.unlabeled, report.unanswered) == (2, 2)
    assert "patients without a label: 2 of 3" in str(report)
    assert "patients without a reply: 2 of 3" in str(report)


@pytest.mark.parametrize("other", ["normal;", "Normal.", "(normal)", "normal :"])
def test_punctuation_around_a_label_is_doubted_however_often_it_is_there(folder: Folder, other: str) -> None:
    _, report = read(folder, "normal", "normal", other, other, other)
    assert report.doubtful_labels == (f"'{other}' (3 x): did you mean 'normal' (2 x)?",)


@pytest.mark.parametrize("missing", ["NA", "N/A", "nan", "NULL", "None", "<NA>", "\u200b", " "])
def test_how_r_pandas_and_sql_write_nothing_is_nothing(folder: Folder, missing: str) -> None:
    label = "" if missing == "None" else missing  # which is a word there
    patients = f"patient_id,label,reference,split_date\nP1,{label},{missing},2022-02-02\nP2,normal,Rest.,2022-02-02\n"
    checkups = f"patient_id,date,hgb,plt\nP1,2022-01-01,100,{missing}\nP2,2022-01-01,{missing},200\n"
    cohort, report = read_cohort(folder(patients=patients, checkups=checkups))
    assert [(patient.label, patient.reference) for patient in cohort] == [("", ""), ("normal", "Rest.")]
    assert (report.unlabeled, report.unanswered, report.values, report.dropped) == (1, 1, 2, {})
