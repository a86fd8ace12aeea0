"""Schema: loading, saving, and what is refused in which words."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, Indicator, Label, Patient, Schema
from pmlm_env.cohort.schema import MAX_INDICATORS, MAX_LABELS
from tests.schemas import MEN, SCHEMA

PAGE = (Path(__file__).parents[2] / "docs" / "schema.md").read_text(encoding="utf-8")

#: A valid file; the tests spoil one entry each.
SMALL = """\
language = "en"
templates = "general"
max_checkups = 20
indicators = [
  { name = "psa", unit = "ng/mL", low = 0, high = 100, synonyms = ["PSA total"] },
  { name = "urate" },
]
labels = [{ name = "gout", aliases = ["gouty arthritis"] }, { name = "well", no_finding = true }]
"""


def load(tmp_path: Path, text: str, name: str = "schema.toml") -> Schema:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Schema.load(path)


# Loading


def test_the_built_in_schema_is_the_papers() -> None:
    schema = Schema.load("obstetric")
    assert (len(schema.indicators), len(schema.labels), schema.max_checkups) == (35, 12, 45)
    assert schema.indicators[0] == Indicator("pH", "", 4, 9.5, ("blood pH",))
    assert schema.names[-3:] == ("hgb", "mcv", "rbc")
    assert [label.name for label in schema.labels if label.no_finding] == ["normal"]
    assert (schema.language, schema.templates) == ("en", "obstetric")


def test_a_toml_file_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, SMALL) == Schema(
        indicators=(Indicator("psa", "ng/mL", 0, 100, ("PSA total",)), Indicator("urate")),
        labels=(Label("gout", ("gouty arthritis",)), Label("well", (), no_finding=True)),
        max_checkups=20,
    )


def test_a_file_needs_only_the_names_of_the_indicators(tmp_path: Path) -> None:
    schema = load(tmp_path, 'indicators = [{ name = "psa" }]')
    assert schema == Schema((Indicator("psa"),))
    assert (schema.labels, schema.language, schema.templates, schema.max_checkups) == ((), "en", "general", 45)


def test_a_byte_order_mark_of_an_editor_does_not_matter(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + SMALL) == load(tmp_path, SMALL)


@pytest.mark.parametrize("text", [SMALL, MEN])
def test_what_is_saved_is_loaded_again(tmp_path: Path, text: str) -> None:
    schema = load(tmp_path, text)
    schema.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json") == schema


def test_the_built_in_schema_is_saved_and_loaded_again(tmp_path: Path) -> None:
    SCHEMA.save(tmp_path / "s.json")
    assert Schema.load(tmp_path / "s.json") == SCHEMA


def test_a_schema_is_saved_as_json_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"schema\.toml: the name must end in \.json"):
        SCHEMA.save(tmp_path / "schema.toml")


def test_the_example_in_the_documentation_is_the_tested_one() -> None:
    assert f"```toml\n{MEN}```" in PAGE


def test_the_documentation_lists_the_built_in_indicators() -> None:
    rows = []
    for each in SCHEMA.indicators:
        low, high = each.reference_low, each.reference_high
        span = "-" if high is None else f"up to {high:g} (" if low is None else f"{low:g} to {high:g} ("
        rows.append(f"| `{each.name}` | {each.unit or 'none'} | {each.low:g} to {each.high:g} | {span}")
    page = re.sub(r"\([ACNS]\) \|", "(", PAGE).replace("| - |", "| -")
    assert "\n".join(rows) in page


@pytest.mark.parametrize("text", [SMALL, MEN])
def test_reference_ranges_and_titles_are_saved_and_loaded_again(tmp_path: Path, text: str) -> None:
    more = 'name = "urate", reference_high = 420.5, title = "uric acid" }'
    schema = load(tmp_path, SMALL.replace('name = "urate" }', more))
    schema.save(tmp_path / "schema.json")
    urate = Schema.load(tmp_path / "schema.json").indicators[1]
    assert (urate.reference_low, urate.reference_high, urate.title) == (None, 420.5, "uric acid")


def test_schemas_that_differ_in_reference_ranges_alone_measure_the_same(tmp_path: Path) -> None:
    other = SMALL.replace('name = "urate" }', 'name = "urate", reference_low = 100, title = "uric acid" }')
    assert load(tmp_path, other) == load(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("limits", "value", "excess"),
    [
        ({"reference_low": 95, "reference_high": 145}, 90, -0.1),
        ({"reference_low": 95, "reference_high": 145}, 150, 0.1),
        ({"reference_low": 95, "reference_high": 145}, 95, 0),
        ({"reference_low": 95, "reference_high": 145}, 145, 0),
        ({"reference_high": 5}, 7, 0.4),
        ({"reference_low": 2}, 1, -0.5),
        ({"reference_low": 0}, 0, 0),
        ({}, 1e9, 0),
    ],
)
def test_how_far_a_value_is_outside_its_range_is_counted_in_widths_of_the_range(
    limits: dict[str, float], value: float, excess: float
) -> None:
    assert Indicator("x", **limits).excess(value) == pytest.approx(excess)


# Names


@pytest.mark.parametrize("name", ["psa", "PSA", " psa ", "psa total", "\uff30\uff33\uff21 Total", "PSA\u00a0total"])
def test_an_indicator_is_found_by_name_and_synonym_in_any_spelling(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, SMALL).index(name) == 0


@pytest.mark.parametrize("name", ["", "ps", "psa_total", "gout"])
def test_another_name_is_not_an_indicator(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyError):
        load(tmp_path, SMALL).index(name)


def test_an_indicator_may_repeat_its_own_name_as_a_synonym(tmp_path: Path) -> None:
    assert load(tmp_path, SMALL.replace("PSA total", "PSA")).index("Psa") == 0


def test_labels_may_share_an_alias(tmp_path: Path) -> None:
    text = SMALL.replace('"well", no_finding = true', '"pseudogout", aliases = ["gouty arthritis"]')
    assert load(tmp_path, text).labels[1].aliases == ("gouty arthritis",)


# What is refused

REFUSED = {
    "unknown key": ("max_checkups", "max_checkup", "there is no key 'max_checkup' (did you mean 'max_checkups'?)"),
    "unknown key of an indicator": (
        "unit =",
        "units =",
        "indicator 1 ('psa'): there is no key 'units' (did you mean 'unit'?): use name, unit, low, high, synonyms",
    ),
    "unknown key of a label": ("aliases", "synonyms", "label 1 ('gout'): there is no key 'synonyms'"),
    "type of the length": ("= 20", '= "20"', "max_checkups is '20': use a whole number"),
    "fraction of a check-up": ("= 20", "= 20.5", "max_checkups is 20.5: use a whole number"),
    "truth as a length": ("= 20", "= true", "max_checkups is True: use a whole number"),
    "language as a list": ('"en"', '["en"]', "language is ['en']: use text"),
    "type of a bound": ("low = 0", 'low = "0"', "indicator 1 ('psa'): low is '0': use a number"),
    "type of a name": ('"psa"', "7", "indicator 1: name is 7: use text"),
    "type of the synonyms": ('["PSA total"]', '"PSA total"', "synonyms is 'PSA total': use a list of texts"),
    "number as a synonym": ('["PSA total"]', "[1]", "synonyms is [1]: use a list of texts"),
    "type of no_finding": ("= true }", '= "yes" }', "label 2 ('well'): no_finding is 'yes': use true or false"),
    "text as an indicator": ('{ name = "urate" }', '"urate"', ": use a list of tables"),
    "no name": ('{ name = "urate" }', '{ unit = "g/L" }', "indicator 2 has no name: add one"),
    "empty name": ('"urate"', '" "', "indicator 2 (' '): name is ' ': it must not be empty"),
    "empty synonym": ('"PSA total"', '""', "indicator 1 ('psa'): synonym is '': it must not be empty"),
    "long name": ('"urate"', f'"{"u" * 201}"', ": use at most 200 characters"),
    "control character": ('"urate"', r'"u\u001brate"', r"name is 'u\x1brate': it contains an invisible character"),
    "override of the direction": ('"gout"', r'"go\u202eut"', r"name is 'go\u202eut': it contains an invisible"),
    "needless space": ('"gout"', '"gout "', "label 1 ('gout '): name is 'gout ': write it as 'gout'"),
    "line break in an alias": ("gouty arthritis", r"gouty\narthritis", "write it as 'gouty arthritis'"),
    "unit": ("ng/mL", r"ng\u0007", r"indicator 1 ('psa'): unit is 'ng\x07': it contains an invisible character"),
    "column of the tables": ('"urate"', '"Date"', "indicator 2 ('Date'): 'Date' is the name of another column"),
    "bounds": ("low = 0", "low = 100", "indicator 1 ('psa'): low is 100, high is 100: low must be less than high"),
    "negative bound": ("low = 0, high = 100", "high = -1", "high is -1: use 0 to 1e+15, or add a negative low"),
    "high bound": ("high = 100", "high = 1e16", "indicator 1 ('psa'): high is 1e+16: use 0 to 1e+15"),
    "reversed range": (
        "high = 100",
        "high = 100, reference_low = 4, reference_high = 3",
        "indicator 1 ('psa'): reference_low is 4, reference_high is 3: reference_low must be less than reference_high",
    ),
    "empty range": (
        "high = 100",
        "high = 100, reference_low = 4, reference_high = 4",
        "reference_low must be less than reference_high",
    ),
    "range in another unit": (
        "high = 100",
        "high = 100, reference_high = 4000",
        "indicator 1 ('psa'): reference_high is 4000, high is 100: reference_high must not be more than high",
    ),
    "range below the bounds": (
        "low = 0",
        "low = 2, reference_low = 1",
        "low is 2, reference_low is 1: low must not be more than reference_low",
    ),
    "range of nothing": ("high = 100", "high = 100, reference_high = 0", "reference_high is 0: use a number above 0"),
    "negative range": ("high = 100", "high = 100, reference_low = -1", "reference_low is -1: use 0 to 1e+15, or add a"),
    "range as a list": ("high = 100", "high = 100, reference_high = [1, 2]", "reference_high is [1, 2]: use a number"),
    "title": ('"urate"', '"urate", title = "uric  acid"', "title is 'uric  acid': write it as 'uric acid'"),
    "negative reference": (
        "low = 0, high = 100",
        "reference_high = -2",
        "reference_high is -2: use 0 to 1e+15, or add a negative low",
    ),
    "molar mass": ("low = 0", "molar_mass = 0", "molar_mass is 0: use a number of g/mol, up to 1e7"),
    "charge": ("low = 0", "charge = -1", "charge is -1: use 1 to 8, without its sign"),
    "half a charge": ("low = 0", "charge = 0.5", "charge is 0.5: use a whole number"),
    "code as a text": ("low = 0", 'codes = "2857-1"', "codes is '2857-1': use a list of texts"),
    "infinite bound": ("high = 100", "high = inf", "'high' is inf, which is not allowed"),
    "name twice": ('"urate"', '"PSA"', "indicator 2 ('PSA'): 'psa' is also a name of indicator 1 ('psa'): keep one"),
    "synonym as a name": ('"urate"', '"Psa Total"', "'psa total' is also a name of indicator 1 ('psa'): keep one"),
    "label twice": ('"well"', '"Gout"', "label 2 ('Gout'): label 1 ('gout') has the same name: keep one"),
    "no check-up": ("= 20", "= 0", "max_checkups is 0: use 1 to 1,000"),
    "many check-ups": ("= 20", "= 1001", "max_checkups is 1001: use 1 to 1,000"),
    "language": ('"en"', '"English, please"', "language is 'English, please': use a BCP 47 tag, such as en or pt-BR"),
    "language with _": ('"en"', '"pt_BR"', "language is 'pt_BR': use a BCP 47 tag"),
    "folder as templates": (
        '"general"',
        '"../../x"',
        "templates is '../../x': use lower-case letters, digits, - and _",
    ),
    "not TOML": ("= 20", "= ", "schema.toml is not TOML"),
}


@pytest.mark.parametrize(("old", "new", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_entry_is_refused_in_one_line_with_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert SMALL.count(old) >= 1
    with pytest.raises(ValueError, match="schema") as caught:
        load(tmp_path, SMALL.replace(old, new, 1))
    said = str(caught.value)
    assert message in said
    assert said.startswith(str(tmp_path / "schema.toml"))
    assert "\n" not in said
    assert said.isprintable()
    assert len(said) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("text", ["language = 'en'", "indicators = []"])
def test_at_least_one_indicator_is_needed(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"schema\.toml: there are 0 indicators: use 1 to 2,000"):
        load(tmp_path, text)


def test_too_many_indicators_are_refused(tmp_path: Path) -> None:
    content = {"max_checkups": 1, "indicators": [{"name": f"i{n}"} for n in range(MAX_INDICATORS + 1)]}
    with pytest.raises(ValueError, match=r"there are 2,001 indicators: use 1 to 2,000"):
        load(tmp_path, json.dumps(content), "s.json")
    content["indicators"].pop()  # type: ignore[attr-defined]
    assert len(load(tmp_path, json.dumps(content), "s.json").indicators) == MAX_INDICATORS


def test_too_many_labels_are_refused() -> None:
    labels = tuple(Label(f"l{n}") for n in range(MAX_LABELS + 1))
    assert Schema((Indicator("psa"),), labels[:-1])
    with pytest.raises(ValueError, match=r"there are 1,001 labels: use 0 to 1,000"):
        Schema((Indicator("psa"),), labels)


def test_a_history_that_would_not_fit_into_memory_is_refused() -> None:
    indicators = tuple(Indicator(f"i{n}") for n in range(200))
    with pytest.raises(ValueError, match="max_checkups is 501: with 200 indicators, use at most 500"):
        Schema(indicators, max_checkups=501)


def test_a_large_toml_file_is_refused_unread_and_json_is_recommended(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is larger than 50,000 bytes: write it as JSON, which may be larger"):
        load(tmp_path, ".".join("a" * 30_000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "contains [] instead of an object"),
        ('{"indicators": [{"name": "a"}], "indicators": []}', "'indicators' occurs twice"),
        ('{"indicators": [{"name": "a", "high": 1e999}]}', "indicator 1 ('a'): high is inf: use 0 to 1e+15"),
        ('{"indicators": [{"name": "a", "low": null}]}', "indicator 1 ('a'): low is None: use a number"),
        ('{"indicators": [{"name": "a", "high": 1%s}]}' % ("0" * 400), "high is 1000"),
        ('{"indicators": [{"name": "\\ud800"}]}', r"name is '\ud800': it contains an invisible character"),
        ("[" * 100_000, "is damaged: it is not JSON"),
    ],
)
def test_bad_json_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"s\.json") as caught:
        load(tmp_path, text, "s.json")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "obstetrics",
            "there is no schema 'obstetrics' (did you mean 'obstetric'?): use obstetric, common, or a .toml or .json",
        ),
        ("nothing.toml", "schema nothing.toml does not exist"),
        ("", "there is no schema ''"),
    ],
)
def test_a_schema_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match="schema") as caught:
        Schema.load(name)
    assert message in str(caught.value)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.toml")
    with pytest.raises(ValueError, match=r"s\.toml is not a file"):
        Schema.load(tmp_path / "s.toml")


# Cohorts


def patient(columns: int) -> Patient:
    dates = np.array(["2021-01-01"], "datetime64[D]")
    return Patient("P1", "gout", "", np.datetime64("2021-01-02"), dates, np.ones((1, columns)))


def test_a_part_of_a_cohort_has_its_schema(tmp_path: Path) -> None:
    schema = load(tmp_path, SMALL)
    cohort = Cohort((patient(2), patient(2)), schema)
    assert cohort[:1].schema is cohort.take([1]).schema is schema


def test_a_patient_with_other_indicators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="patient P1: values have 35 columns, but the schema has 2 indicators"):
        Cohort((patient(35),), load(tmp_path, SMALL))


def test_values_need_a_row_for_each_date() -> None:
    with pytest.raises(
        ValueError, match=r"patient P1: values have shape \(2, 5\), expected \(1, number of indicators\)"
    ):
        replace(patient(5), values=np.ones((2, 5)))
