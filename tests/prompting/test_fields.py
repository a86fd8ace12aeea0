"""What fields become, held against what they are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, Schema
from pmlm_env.cohort.schema import Indicator, Patient
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.prompting import InitialPrompt
from pmlm_env.prompting.fields import Values, digits
from pmlm_env.prompting.wording import CHINESE, ENGLISH
from tests.schemas import INDICATORS

NAN = np.nan
UNITS = {indicator.name.replace("_", " "): indicator.unit for indicator in INDICATORS}


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(40, seed=4)


@pytest.fixture(scope="module")
def patient(cohort: Cohort) -> Patient:
    """One with a long history."""
    return max(cohort, key=lambda patient: len(patient.dates))


def _fill(
    folder: Path, text: str, patient: Patient | None = None, probabilities: Mapping[str, float] | None = None
) -> str:
    file = folder / "mine.txt"
    file.write_text(f"self: {text}\n", encoding="utf-8")
    return InitialPrompt(file).fill("normal", ("normal",), probabilities, patient).text


def _read(text: str) -> list[dict[str, float]]:
    """The values of each check-up that a text tells of, by indicator; every value has its indicator's unit."""
    found = []
    for part in re.findall(r"(?:L|l)atest check-up: (.*?)\.(?= |$)", text):
        values = {}
        for item in part.split(", ") if part != "nothing was measured" else []:
            told = re.fullmatch(r"(.+?) (-?\d[\d.e+-]*)(?: (\S+))?", item)
            assert told is not None, item
            assert (told[3] or "") == UNITS[told[1]]
            values[told[1]] = float(told[2])
        found.append(values)
    return found


def _measured(patient: Patient, i: int) -> dict[str, float]:
    values = zip(INDICATORS, patient.values[i].tolist(), strict=True)
    return {indicator.name.replace("_", " "): value for indicator, value in values if not np.isnan(value)}


@pytest.mark.parametrize(("field", "n"), [("{labs}", 2), ("{labs:1}", 1), ("{labs:3}", 3), ("{labs:all}", None)])
def test_labs_are_the_values_of_the_last_check_ups_with_units(
    tmp_path: Path, patient: Patient, field: str, n: int | None
) -> None:
    total = len(patient.dates)
    assert total > 3
    text = _fill(tmp_path, field, patient)
    read = _read(text)
    assert len(read) == (n or total)
    for back, values in enumerate(read, start=1):
        expected = _measured(patient, total - back)
        assert list(values) == list(expected)
        assert values == pytest.approx(expected, rel=5e-4)  # four digits
    assert (f"Earlier check-ups, not shown: {total - len(read)}." in text) == (len(read) < total)
    assert ("not shown" in text) == (len(read) < total)


def test_check_ups_are_dated_by_days_before_the_latest_and_not_by_the_calendar(
    tmp_path: Path, patient: Patient
) -> None:
    dates = np.array(["2020-02-27", "2020-02-28", "2020-03-01"], dtype="datetime64[D]")  # a leap year
    text = _fill(tmp_path, "{labs:all}", replace(patient, dates=dates, values=patient.values[:3]))
    assert re.findall(r"(\d+ days?) before", text) == ["2 days", "3 days"]
    assert not re.search("2020|02-2|03-0", text)
    one_day = replace(patient, dates=dates[:2], values=patient.values[:2])
    assert "1 day before the latest check-up: " in _fill(tmp_path, "{labs}", one_day)


def test_raw_prompts_of_a_cohort_hold_no_date_and_no_identifier(cohort: Cohort) -> None:
    for patient in cohort:
        prompt = InitialPrompt("raw").fill("normal", (), None, patient).text
        assert patient.patient_id not in prompt
        assert not any(str(date) in prompt for date in (*patient.dates, patient.split_date))
        assert _read(prompt)[0] == pytest.approx(_measured(patient, -1), rel=5e-4)


def test_a_short_history_and_none_are_told_as_they_are(tmp_path: Path, patient: Patient) -> None:
    once = replace(patient, dates=patient.dates[:1], values=patient.values[:1])
    assert len(_read(_fill(tmp_path, "{labs}", once))) == 1
    assert "not shown" not in _fill(tmp_path, "{labs}", once)
    blank = replace(once, values=np.full((1, len(INDICATORS)), np.nan))
    assert _fill(tmp_path, "{labs}", blank) == "Latest check-up: nothing was measured."
    never = replace(patient, dates=patient.dates[:0], values=patient.values[:0])
    assert _fill(tmp_path, "{labs}", never) == "No check-up is on record."


def test_labs_have_the_names_and_units_of_the_schema(tmp_path: Path, men_cohort: Cohort) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("self: {labs}\n", encoding="utf-8")
    patient = replace(men_cohort[0], values=np.array([[1.5, np.nan, 510, 141, 3]]))
    text = InitialPrompt(file, "counted", men_cohort.schema).fill("gout", ("gout",), None, patient).text
    assert text == "Latest check-up: psa 1.5 ng/mL, urate 510 umol/L, hemoglobin 141 g/L, crp 3 mg/L."


RANGES = """
indicators = [
  { name = "hgb", unit = "g/L", reference_low = 95, reference_high = 150, title = "hemoglobin" },
  { name = "crp", unit = "mg/L", reference_high = 5 },
  { name = "total_protein", unit = "g/L", reference_low = 56, reference_high = 66 },
  { name = "pH" },
  { name = "hdl", reference_low = 1 },
]
"""


def _values(folder: Path, field: str, *rows: tuple[float, ...]) -> str:
    """What a field says of a patient with these check-ups of the five indicators above, the earliest first."""
    (folder / "schema.toml").write_text(RANGES, encoding="utf-8")
    (folder / "mine.txt").write_text(f"self: {field}", encoding="utf-8")
    dates = np.datetime64("2021-01-01") + np.arange(len(rows))
    patient = Patient(
        "a", "", "", dates[0] if rows else np.datetime64("2021-01-01"), dates, np.array(rows).reshape(-1, 5)
    )
    schema = Schema.load(folder / "schema.toml")
    return InitialPrompt(folder / "mine.txt", "counted", schema).fill("gout", (), None, patient).text


def test_values_are_the_latest_ones_and_those_outside_their_reference_range_come_first_furthest_first(
    tmp_path: Path,
) -> None:
    rows = (120, 4, 61, 7.4, 1.2), (84, 30, NAN, NAN, NAN), (NAN, 9, 70, NAN, 0.9)
    assert _values(tmp_path, "{values}", *rows) == (  # by 4/5, 4/10, 11/55 and 0.1/1 of the width
        "crp 9 mg/L (high), total protein 70 g/L (high), hemoglobin 84 g/L (low), hdl 0.9 (low), pH 7.4"
    )


def test_values_within_their_reference_range_limits_included_are_in_the_order_of_the_schema(tmp_path: Path) -> None:
    said = _values(tmp_path, "{values}", (95, 5, 66, 2.0, 1))
    assert said == "hemoglobin 95 g/L, crp 5 mg/L, total protein 66 g/L, pH 2, hdl 1"
    assert _values(tmp_path, "{values}", (150, 0, 56, 9, 100)).count("(") == 0


def test_of_the_values_a_number_or_those_outside_their_range_are_shown(tmp_path: Path) -> None:
    row = (84, 4, 61, 7.4, 0.5)
    assert _values(tmp_path, "{values:1}", row) == "hdl 0.5 (low)"
    assert _values(tmp_path, "{values:3}", row) == "hdl 0.5 (low), hemoglobin 84 g/L (low), crp 4 mg/L"
    assert _values(tmp_path, "{values:99}", row) == _values(tmp_path, "{values}", row)
    assert _values(tmp_path, "{values:abnormal}", row) == "hdl 0.5 (low), hemoglobin 84 g/L (low)"
    assert _values(tmp_path, "{values:abnormal}", (120, 4, 61, NAN, 1.2)) == "all within the reference range"


def test_values_are_not_said_to_be_within_a_range_that_is_not_known() -> None:
    indicators = (Indicator("crp", "mg/L", reference_high=5.0), Indicator("urate", "umol/L"))
    said = {}
    for row in ((4.0, NAN), (4.0, 900.0), (NAN, 900.0), (9.0, 900.0)):
        day = np.datetime64("2020-01-01")
        patient = Patient("A", "gout", "", day, np.array([day]), np.array([row]))
        said[row] = [f"{Values(patient, indicators, words):abnormal}" for words in (ENGLISH, CHINESE)]
    assert said[4.0, NAN] == ["all within the reference range", "均在参考范围内"]
    assert (
        said[4.0, 900.0]
        == said[NAN, 900.0]
        == ["none known to be outside the reference range", "未发现超出已知参考范围的值"]
    )
    assert said[9.0, 900.0] == ["crp 9 mg/L (high)", "crp9mg/L（偏高）"]


@pytest.mark.parametrize("field", ["{values}", "{values:2}", "{values:abnormal}"])
def test_where_nothing_was_measured_values_say_so(tmp_path: Path, field: str) -> None:
    assert _values(tmp_path, field) == _values(tmp_path, field, (NAN,) * 5) == "nothing was measured"


def test_the_values_of_a_simulated_patient_are_those_of_the_table(patient: Patient) -> None:
    said = _fill_values(patient)
    for i, indicator in enumerate(INDICATORS):
        measured = patient.values[np.isfinite(patient.values[:, i]), i]
        found = said.pop(indicator.title or indicator.name.replace("_", " "), None)
        if not len(measured):
            assert found is None
            continue
        assert found is not None
        value, unit, level = found
        assert value == pytest.approx(measured[-1], rel=5e-4)
        low, high = indicator.reference_low or -np.inf, indicator.reference_high or np.inf
        assert (unit, level) == (indicator.unit, "low" if measured[-1] < low else "high" if measured[-1] > high else "")
    assert not said


def _fill_values(patient: Patient) -> dict[str, tuple[float, str, str]]:
    text = InitialPrompt("personal").fill("normal", (), {"normal": 1.0}, patient).text
    items = text.partition("Latest values: ")[2].partition(". The 0 most")[0].split(", ")
    found = {}
    for item in items:
        told = re.fullmatch(r"(.+?) (\d[\d.]*)(?: (?!\()(\S+))?(?: \((low|high)\))?", item)
        assert told is not None, item
        found[told[1]] = (float(told[2]), told[3] or "", told[4] or "")
    return found


def test_peers_are_listed_with_their_likeness(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("peer: {peers:likeness}.\n", encoding="utf-8")
    prompt = InitialPrompt(file)
    labels = ("thalassemia", "normal", "thalassemia")
    filled = prompt.fill("normal", labels, likeness=(0.934, 0.9151, -0.2))
    assert filled.text == "thalassemia (0.93), normal (0.92), thalassemia (-0.20)."
    with pytest.raises(ValueError, match=r"no value was given for \{peers:likeness\}"):
        prompt.fill("normal", labels)


@pytest.mark.parametrize(
    ("probabilities", "text"),
    [
        ({"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2}, "b 40%, c 30%, d 20%"),  # three at most
        ({"a": 0.62, "b": 0.34, "c": 0.04}, "a 62%, b 34%"),  # 5 % at least
        ({"a": 0.9, "b": 0.05, "c": 0.05}, "a 90%, b 5%, c 5%"),
        ({f"l{i}": 0.03 + 0.001 * i for i in range(30)}, "l29 6%, l28 6%, l27 6%"),
        ({f"l{i}": 0.02 + 0.001 * i for i in range(12)}, "l11 3%"),  # one in any case
    ],
)
def test_probabilities_are_those_of_the_likeliest_labels(
    tmp_path: Path, probabilities: dict[str, float], text: str
) -> None:
    assert _fill(tmp_path, "{probabilities}", None, probabilities) == text


def test_a_column_of_the_patients_table_is_told_and_an_empty_one_is_unknown(tmp_path: Path, patient: Patient) -> None:
    hers = replace(patient, extra={"age": " 31 ", "blood type": "0 {k}", "history": "  "})
    text = _fill(tmp_path, "Age {age}, type {blood type}, history {history}, weeks {weeks}.", hers)
    assert text == "Age 31, type 0 {k}, history unknown, weeks unknown."


def test_a_column_may_begin_with_a_digit(tmp_path: Path, patient: Patient) -> None:
    assert _fill(tmp_path, "Urine {24h urine} mL.", replace(patient, extra={"24h urine": "900"})) == "Urine 900 mL."


def test_a_zero_has_no_sign() -> None:
    assert [digits(value) for value in (-0.0, 0.0, -0.5)] == ["0", "0", "-0.5"]


@pytest.mark.parametrize(("cell", "told"), [("NA", "unknown"), ("NULL", "unknown"), ("None", "None"), ("0", "0")])
def test_a_missing_value_marker_in_a_column_is_unknown(cell: str, told: str, tmp_path: Path, patient: Patient) -> None:
    assert _fill(tmp_path, "Allergies: {allergies}.", replace(patient, extra={"allergies": cell})) == (
        f"Allergies: {told}."
    )


def test_a_column_that_the_table_lacks_is_named_with_those_that_it_has(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("self: {predicted} at {weight}\n", encoding="utf-8")
    prompt = InitialPrompt(file)
    prompt.check_columns({"weight"})
    with pytest.raises(ValueError, match=r"cannot fill \{weight\}; .*patients' table \(age, parity\)"):
        prompt.check_columns({"parity", "age"})
