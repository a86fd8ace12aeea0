"""The Chinese cohort: the same women as the English one, in the words of a Chinese hospital."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, Schema, named_labels, read_cohort, write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.cohort.simulator.tables import read_table, word_in
from pmlm_env.rewards.numbers import _numbers

N = 600


@pytest.fixture(scope="module")
def english() -> Cohort:
    return simulate_cohort(N, personal=0.5)


@pytest.fixture(scope="module")
def chinese() -> Cohort:
    return simulate_cohort(N, personal=0.5, language="zh")


def test_the_women_and_their_values_are_the_same(english: Cohort, chinese: Cohort) -> None:
    names = dict(zip((x.name for x in english.schema.labels), (x.name for x in chinese.schema.labels), strict=True))
    for one, other in zip(english, chinese, strict=True):
        assert (one.patient_id, one.split_date) == (other.patient_id, other.split_date)
        assert names[one.label] == other.label
        assert np.array_equal(one.dates, other.dates)
        assert np.array_equal(one.values, other.values, equal_nan=True)
        assert {column: word_in("zh", value) for column, value in one.extra.items()} == other.extra


def test_the_schemas_measure_the_same() -> None:
    english, chinese = Schema.load("obstetric"), Schema.load("obstetric-zh")
    assert english.names == chinese.names
    assert [x.unit for x in english.indicators] == [x.unit for x in chinese.indicators]
    assert np.array_equal(english.bounds, chinese.bounds)
    for one, other in zip(english.indicators, chinese.indicators, strict=True):
        assert (one.reference_low, one.reference_high) == (other.reference_low, other.reference_high)
        assert re.search("[\u4e00-\u9fff]", other.title)
        assert chinese.index(other.title) == chinese.index(other.name)
    assert (len(chinese.labels), chinese.language, chinese.templates) == (12, "zh", "obstetric")
    assert [x.no_finding for x in english.labels] == [x.no_finding for x in chinese.labels]


def test_every_letter_names_its_label_and_no_other(chinese: Cohort) -> None:
    for patient in chinese:
        assert named_labels(patient.reference, chinese.schema.labels, "zh") == {patient.label}, patient.reference


def test_a_letter_quotes_the_numbers_of_the_english_one(english: Cohort, chinese: Cohort) -> None:
    for one, other in zip(english, chinese, strict=True):
        assert sorted(_numbers(one.reference)) == sorted(_numbers(other.reference)), other.reference


def test_letters_have_as_many_pieces_of_advice_as_the_english_ones(english: Cohort, chinese: Cohort) -> None:
    for one, other in zip(english, chinese, strict=True):
        assert len(one.reference.split(" Advice: ")[1].split("; ")) == len(
            other.reference.split("建议：")[1].split("；")
        )


def test_letters_read_as_chinese_prose(chinese: Cohort) -> None:
    for patient in chinese:
        text = patient.reference
        assert text.startswith(("出院诊断：", "出院时诊断："))
        assert text.endswith("。")
        assert not re.search(r"[{}_\s]|nan|None|[，。；：、]{2}|[,;?!]|。；|[a-z]{5}", text), text


def test_over_95_percent_of_the_letters_are_distinct(chinese: Cohort) -> None:
    assert len({patient.reference for patient in chinese}) > 0.95 * N


def test_every_phrase_and_every_word_of_the_table_is_translated() -> None:
    for row in read_table("phrases.csv"):
        assert sorted(re.findall(r"\{\w+\}", row["text"])) == sorted(re.findall(r"\{\w+\}", row["zh"])), row
        assert re.search("[\u4e00-\u9fff]", row["zh"]), row
        assert row["zh"].endswith("。") == (row["part"] in ("finding", "opening")), row
    for row in read_table("personal.csv"):
        assert row["finding_zh"].count("{value}") == row["finding_zh"].count("{level}") == 1, row
        assert re.search("[\u4e00-\u9fff]", row["advice_zh"]), row
    forms = {row[name] for row in read_table("conditions.csv") for name in ("form_mild", "form_severe")} - {""}
    assert all(word_in("zh", form) != form for form in forms)


def test_a_written_cohort_is_read_back_with_its_schema(chinese: Cohort, tmp_path: Path) -> None:
    write_cohort(chinese[:20], tmp_path)
    cohort, _ = read_cohort(tmp_path)
    assert cohort.schema == chinese.schema
    assert [patient.reference for patient in cohort] == [patient.reference for patient in chinese[:20]]


def test_a_language_without_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="language must be one of en, zh, not 'de'"):
        simulate_cohort(2, language="de")  # type: ignore[arg-type]
