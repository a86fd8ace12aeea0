"""Results as laboratories write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.cohort import CohortError, Indicator, Schema, read_cohort
from pmlm_env.cohort.sources.results import Kind, decimal_mark, read_results
from tests.cohort.three_patients import LABS, PATIENTS, values_of

Folder = Callable[..., Path]


def kind_and_value(text: str, mark: str = ".") -> tuple[Kind, float]:
    results = read_results([text], mark)
    return Kind(int(results.kinds[0])), float(results.values[0])


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("12.5", Kind.NUMBER, 12.5),
        (" 12.5 ", Kind.NUMBER, 12.5),
        ("-3.5", Kind.NUMBER, -3.5),
        ("\u22123.5", Kind.NUMBER, -3.5),
        ("\uff11\uff12.5", Kind.NUMBER, 12.5),
        (".5", Kind.NUMBER, 0.5),
        ("5.", Kind.NUMBER, 5.0),
        ("1e3", Kind.NUMBER, 1000.0),
        ("1,234", Kind.NUMBER, 1234.0),
        ("1,234,567.5", Kind.NUMBER, 1234567.5),
        ("1 234.5", Kind.NUMBER, 1234.5),
        ("1'234.5", Kind.NUMBER, 1234.5),
        ("<0.1", Kind.LIMIT, 0.1),
        (">200", Kind.LIMIT, 200.0),
        (">= 200", Kind.LIMIT, 200.0),
        ("\u2264 5", Kind.LIMIT, 5.0),
        ("\uff1c0.1", Kind.LIMIT, 0.1),
        ("<0.1 L", Kind.LIMIT, 0.1),
        ("12.5 H", Kind.FLAGGED, 12.5),
        ("12.5H", Kind.FLAGGED, 12.5),
        ("12.5 HH", Kind.FLAGGED, 12.5),
        ("12.5 (L)", Kind.FLAGGED, 12.5),
        ("12.5*", Kind.FLAGGED, 12.5),
        ("*12.5", Kind.FLAGGED, 12.5),
        ("H 12.5", Kind.FLAGGED, 12.5),
        ("12.5 \u2191", Kind.FLAGGED, 12.5),
        ("12.5 A", Kind.FLAGGED, 12.5),
    ],
)
def test_a_number_is_read_whatever_stands_around_it(text: str, kind: Kind, value: float) -> None:
    assert kind_and_value(text) == (kind, value)


@pytest.mark.parametrize(
    "text",
    ["hemolyzed", "see note", "see note 3", "\u9634\u6027", "neg.", "-", "++", "2+", "1:80", "0-2", "<", "(H)", "A1"],
)
def test_words_grades_titers_and_ranges_are_no_numbers(text: str) -> None:
    kind, value = kind_and_value(text)
    assert kind == Kind.WORD
    assert math.isnan(value)


@pytest.mark.parametrize(
    "text",
    [
        *("12..5", "1.2.3", "12 g", "1_000", "0x10", "inf", "-Infinity", "1,23", "12,34,567", "1O2", "10^5"),
        *("10\u2075", ">10\u2075", "12.5\u00b2", "5\u2082", "5%%", "%" * 9_000 + "5"),
    ],
)
def test_what_may_be_a_damaged_number_is_unreadable(text: str) -> None:
    assert kind_and_value(text)[0] == Kind.UNREADABLE


@pytest.mark.parametrize("text", ["45%", "45.5 %", "1,234.5%", "\uff14\uff15\uff05"])
def test_a_number_with_a_percent_sign_is_neither_a_number_nor_a_word(text: str) -> None:
    assert kind_and_value(text)[0] == Kind.PERCENT


@pytest.mark.parametrize("text", ["", "  ", "NA", "NULL", "nan", "\u200b"])
def test_what_is_not_measured_is_empty(text: str) -> None:
    assert kind_and_value(text)[0] == Kind.EMPTY


@pytest.mark.parametrize(
    ("text", "value"),
    [("12,5", 12.5), ("1.234", 1234), ("1.234,5", 1234.5), ("1 234,5", 1234.5), ("<0,1", 0.1), ("7", 7)],
)
def test_a_decimal_comma_holds_for_all_results(text: str, value: float) -> None:
    assert kind_and_value(text, ",")[1] == value


@pytest.mark.parametrize("text", ["12.5", "1,234.5", "12,5,1"])
def test_a_decimal_point_among_decimal_commas_is_unreadable(text: str) -> None:
    assert kind_and_value(text, ",")[0] == Kind.UNREADABLE


@pytest.mark.parametrize(
    ("texts", "mark"),
    [
        (["12,5", "1.234"], ","),
        (["1.234,5"], ","),
        (["<0,1", "7"], ","),
        (["0,123"], ","),
        (["12.5", "1,234"], "."),
        (["1,234,567", "1,234"], "."),
        (["1.234"], "."),
        (["7", "8"], "."),
        (["see note, please", "7"], "."),
        (["1,234", "250"], ""),
        (["12,5", "12.5"], ""),
    ],
)
def test_all_results_of_a_table_tell_what_marks_decimals(texts: list[str], mark: str) -> None:
    assert decimal_mark([texts]) == mark
    assert decimal_mark([[text] for text in reversed(texts)]) == mark


@pytest.mark.parametrize("text", ["n.d.", ".", "...", "Kontrolle in 3 Mon.", "12.03.2022", "0.5 mg", "< 1.234"])
def test_a_point_that_marks_no_decimals_does_not_contradict_decimal_commas(text: str) -> None:
    assert decimal_mark([["12,5"], [text, "7"]]) == ","
    assert decimal_mark([["12,5", text]]) == ","


@given(st.floats(0.001, 9e5).map(lambda value: round(value, 2)))
def test_a_number_in_a_german_and_an_english_table_is_the_same(value: float) -> None:
    english = f"{value:,.2f}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert kind_and_value(english)[1] == kind_and_value(german, ",")[1] == value


# In a table


def test_each_form_is_counted(folder: Folder) -> None:
    results = ["3,hgb,<100", "3,plt,200 H", "3,alt,hemolyzed", "4,alt,hemolyzed"]
    rows = "".join(f"B2,2022-02-0{result},\n" for result in results)
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=LABS + rows))
    assert values_of(cohort[1]) == {
        ("2022-02-02", "hgb"): 120,
        ("2022-02-03", "hgb"): 100,
        ("2022-02-03", "plt"): 200,
    }
    assert (report.limits, report.flagged, report.words, report.frequent_words) == (1, 1, 2, {"hemolyzed": 2})
    said = str(report)
    assert "read as the limit itself: 1" in said
    assert "results that are no numbers, left out: 2 (most frequent: 2 x 'hemolyzed')" in said


def test_words_that_are_most_of_the_values_are_refused(folder: Folder) -> None:
    rows = "".join(f"B2,2022-02-{day:02},alt,see note,U/L\n" for day in range(1, 20))
    with pytest.raises(CohortError, match=r"19 results in labs\.csv are no numbers, such as 'see note'") as caught:
        read_cohort(folder(patients=PATIENTS, labs=LABS + rows))
    assert "19 of 24 values in labs.csv would be left out" in str(caught.value)


def test_a_schema_gives_words_their_numbers(folder: Folder, tmp_path: Path) -> None:
    schema = Schema((Indicator("protein", words=(("negative", 0.0), ("trace", 0.1), ("1+", 1.0))), Indicator("hgb")))
    labs = "patient_id,date,indicator,value\n" + "".join(
        f"007,2021-04-0{day},protein,{word}\n" for day, word in enumerate(("Negative", "1+", "cloudy", "0.3"), start=1)
    )
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=labs), schema)
    assert cohort[0].values[:, 0].tolist() == [0, 1, 0.3]
    assert (report.coded, report.words) == (2, 1)
    schema.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json").indicators[0].words == schema.indicators[0].words


def test_words_are_written_as_a_table_of_a_schema(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    path.write_text('indicators = [{ name = "protein", words = { negative = 0, positive = 1 } }]')
    assert Schema.load(path).indicators[0].words == (("negative", 0), ("positive", 1))
    path.write_text('indicators = [{ name = "protein", words = { negative = "0" } }]')
    with pytest.raises(ValueError, match=r"words is .*: use a table of numbers"):
        Schema.load(path)


def test_a_number_that_may_be_one_or_a_thousand_is_refused(folder: Folder) -> None:
    labs = LABS.replace("90.5", "90").replace("7.4", "7").replace("210", '"1,210"')
    with pytest.raises(CohortError, match=r"line 4, column value: '1,210' may have a decimal comma .*map\.toml"):
        read_cohort(folder(patients=PATIENTS, labs=labs))


def test_a_column_of_decimal_commas_beside_decimal_points_is_a_problem_and_not_left_out(folder: Folder) -> None:
    checkups = "patient_id;date;hgb;marker Q\n007;2021-04-01;90.5;12,5\nB2;2022-02-01;91;7,5\n"
    with pytest.raises(CohortError, match=r"line 2, column 'marker Q': '12,5' may have a decimal comma .*map\.toml"):
        read_cohort(folder(patients=PATIENTS, checkups=checkups))


@pytest.mark.parametrize("form", ["labs", "checkups"])
def test_decimal_commas_are_read_and_said(folder: Folder, form: str) -> None:
    tables = {
        "labs": "patient_id;date;indicator;value\n007;2021-04-01;hgb;90,5\n007;2021-04-01;plt;1.210\n",
        "checkups": "patient_id;date;hgb;plt\n007;2021-04-01;90,5;1.210\n",
    }
    cohort, report = read_cohort(folder(patients=PATIENTS, **{form: tables[form]}))
    assert values_of(cohort[0]) == {("2021-04-01", "hgb"): 90.5, ("2021-04-01", "plt"): 1210}
    assert "decimal commas" in str(report)
