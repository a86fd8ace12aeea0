"""A schema from the tables: which indicators, in which units, what is left out; and what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmlm_env.cohort import Cohort, CohortError, Indicator, Label, ReadReport, Schema, read_cohort, write_cohort
from pmlm_env.cohort.schema_toml import schema_toml
from pmlm_env.cohort.sources.medians import likely_unit
from pmlm_env.cohort.sources.proposal import in_unit
from pmlm_env.cohort.sources.recognition import common
from tests.schemas import SCHEMA

Folder = Callable[..., Path]

#: name, code, unit, mean, SD of what the men's laboratory measures.
LAB = (
    ("Hemoglobin [Mass/volume] in Blood", "718-7", "g/dL", 12.6, 1.5),
    ("Creatinine", "", "mg/dL", 1.1, 0.2),
    ("Sodium", "", "mEq/L", 139, 3),
    ("NT-proBNP", "", "pg/mL", 2500, 300),
    ("Base Excess", "", "mEq/L", -1, 3),
    ("Neutrophils", "", "%", 60, 6),
    ("Neutrophils", "", "K/uL", 4.5, 1),
    ("Marker Q", "", "AU/mL", 5, 1),
)


def tables(n: int = 40, lab: Sequence[tuple[str, str, str, float, float]] = LAB) -> tuple[list[str], list[str]]:
    """Return the rows of a table of ``n`` men with heart failure or pneumonia, and of their values."""
    draw = random.Random(0)
    people = [
        f"M{i},{'heart failure' if i % 2 else 'pneumonia'},Weigh yourself.,2021-12-{1 + i % 28:02}" for i in range(n)
    ]
    rows = [
        f'M{i},2021-11-{day:02},"{name}",{draw.gauss(mean, sd):.2f},{unit},{code}'
        for i in range(n)
        for day in (1, 2)
        for name, code, unit, mean, sd in lab
    ]
    return people, rows


def text(header: str, rows: Sequence[str]) -> str:
    return "\n".join([header, *rows]) + "\n"


def read(folder: Folder, people: Sequence[str], rows: Sequence[str]) -> tuple[Cohort, ReadReport]:
    return read_cohort(
        folder(
            patients=text("patient_id,label,reference,split_date", people),
            labs=text("patient_id,date,indicator,value,unit,code", rows),
        )
    )


def by_name(schema: Schema) -> dict[str, Indicator]:
    return {each.name: each for each in schema.indicators}


# What is made


def test_indicators_have_the_names_of_the_catalogue_and_the_units_of_the_table(folder: Folder) -> None:
    cohort, report = read(folder, *tables())
    units = {each.name: each.unit for each in cohort.schema.indicators}
    assert units == {
        "hgb": "g/dL", "creatinine": "mg/dL", "sodium": "mmol/L", "nt_probnp": "ng/L", "base_excess": "mmol/L",
        "neutrophil_ratio": "%", "neutrophil_count": "10^9/L", "Marker Q": "AU/mL",
    }  # fmt: skip
    assert (cohort.schema.templates, cohort.schema.labels, cohort.schema.language) == ("general", (), "en")
    assert "indicators that the catalogue does not have, kept as the table names them, without bounds: 'Marker Q'" in (
        str(report)
    )


def test_bounds_and_ranges_of_the_catalogue_are_converted(folder: Folder) -> None:
    hgb = by_name(read(folder, *tables())[0].schema)["hgb"]
    assert (hgb.low, hgb.reference_low, hgb.reference_high, hgb.high) == (2, 12, 18, 26)


def test_values_are_those_of_the_table_negative_ones_too(folder: Folder) -> None:
    cohort, _ = read(folder, ["M1,gout,Rest.,2021-12-01"], ["M1,2021-11-01,Base Excess,-3.5,mEq/L,"])
    assert cohort[0].values.tolist() == [[-3.5]]


def test_a_negative_value_of_an_unknown_indicator_needs_no_bound(folder: Folder) -> None:
    cohort, _ = read(folder, ["M1,gout,Rest.,2021-12-01"], ["M1,2021-11-01,Delta,-3.5,,"])
    assert cohort[0].values.tolist() == [[-3.5]]


def test_values_of_the_rarer_unit_are_converted_to_the_more_frequent_one(folder: Folder) -> None:
    people, rows = tables(2)
    rows += ["M0,2021-11-03,Creatinine,88.4,umol/L,"]
    cohort, _ = read(folder, people, rows)
    assert cohort[0].values[-1, cohort.schema.index("creatinine")] == pytest.approx(1.0, rel=1e-3)


def test_units_that_cannot_be_converted_make_indicators_of_their_own(folder: Folder) -> None:
    people, rows = tables(4)
    rows += [f"M{i},2021-11-03,Marker Q,7,mmol/L," for i in range(4)]
    assert {"Marker Q", "Marker Q (mmol/L)"} < set(read(folder, people, rows)[0].schema.names)


def test_temperatures_and_hba1c_on_two_scales_are_one_indicator_each_with_its_limits(folder: Folder) -> None:
    people = [f"M{i},gout,Rest.,2021-12-01" for i in range(4)]
    rows = [f"M{i},2021-11-0{day},Temperature,{value},degF," for i in range(4) for day, value in ((1, 98.6), (2, 104))]
    rows += [f"M{i},2021-11-01,HbA1c,{value},mmol/mol," for i in range(4) for value in (53, 53)]
    cohort, report = read(folder, people, [*rows, "M3,2021-11-03,Temperature,36.0,Cel,", "M3,2021-11-03,HbA1c,6.0,%,"])
    found = by_name(cohort.schema)
    temperature, hba1c = found["temperature"], found["hba1c"]
    limits = (temperature.low, temperature.reference_low, temperature.reference_high, temperature.high)
    assert (temperature.unit, *limits) == ("degF", 68, 96.98, 100.4, 114.8)
    assert (hba1c.unit, hba1c.reference_high) == ("mmol/mol", pytest.approx(37.69, abs=0.01))
    columns = [cohort.schema.index(name) for name in ("temperature", "hba1c")]
    assert cohort[3].values[:, columns][-1] == pytest.approx([96.8, 42.06], abs=0.01)
    assert report.converted == {"temperature from Cel to degF": 1, "hba1c from % to mmol/mol": 1}


def test_a_wide_column_in_fahrenheit_is_converted_to_the_unit_of_the_schema(folder: Folder) -> None:
    path = folder(
        patients=text("patient_id,label,reference,split_date", ["M1,gout,Rest.,2021-12-01"]),
        checkups=text("patient_id,date,Temperature (degF)", ["M1,2021-11-01,98.6"]),
    )
    assert read_cohort(path, Schema((Indicator("temperature", "Cel"),)))[0][0].values.tolist() == [[37.0]]


def test_a_wide_table_states_units_in_its_header(folder: Folder) -> None:
    people, _ = tables(12)
    wide = [f"M{i},2021-11-01,{12 + i / 10},{1 + i / 100},{i}" for i in range(12)]
    path = folder(
        patients=text("patient_id,label,reference,split_date", people),
        checkups=text("patient_id,date,Hemoglobin (g/dL),Creatinine [mg/dL],ward days", wide),
    )
    cohort, _ = read_cohort(path)
    assert {each.name: each.unit for each in cohort.schema.indicators} == {
        "hgb": "g/dL", "creatinine": "mg/dL", "ward days": "",
    }  # fmt: skip
    assert cohort[3].values.tolist() == [[1.03, 12.3, 3]]


def test_a_code_goes_before_a_name(folder: Folder) -> None:
    people, _ = tables(4)
    rows = [f"M{i},2021-11-01,Glucose,{value},mg/dL,{code}" for i in range(4)
            for value, code in ((100, "2345-7"), (15, "5792-7"))]  # fmt: skip
    cohort, _ = read(folder, people, rows)
    assert set(cohort.schema.names) == {"glucose", "urine_glucose"}
    assert cohort[0].values[0, cohort.schema.index("urine_glucose")] == 15


def test_labels_in_everyday_words_that_mean_nothing_was_found_do_not_name_a_diagnosis(folder: Folder) -> None:
    people, rows = tables(4)
    people[0] = "M0,Healthy,Eat well.,2021-12-01"
    assert read(folder, people, rows)[0].schema.labels == (Label("Healthy", no_finding=True),)


def test_chinese_replies_make_a_chinese_schema(folder: Folder) -> None:
    people = [f"M{i},\u809a\u75bc,\u4f11\u606f\u4e00\u5468\u3002,2021-12-01" for i in range(4)]
    rows = [f"M{i},2021-11-01,\u8840\u7ea2\u86cb\u767d,126,g/L," for i in range(4)]
    schema = read(folder, people, rows)[0].schema
    assert (schema.language, schema.names) == ("zh", ("hgb",))


# The paper's patients


def test_the_papers_labels_and_indicators_are_its_schema(folder: Folder) -> None:
    people = [
        "W1,gestational diabetes,Walk.,2021-12-01",
        "W2,Thalassaemia,Rest.,2021-12-01",
        "W3,gout,Rest.,2021-12-01",
    ]
    rows = ["W1,2021-11-01,Hemoglobin,126,g/L,", "W2,2021-11-01,White Blood Cells,7.1,K/uL,"]
    assert read(folder, people, rows)[0].schema == SCHEMA


def test_the_papers_labels_with_another_indicator_keep_its_templates_and_aliases(folder: Folder) -> None:
    people = ["W1,gestational diabetes,Walk.,2021-12-01", "W2,thalassemia,Rest.,2021-12-01"]
    rows = [f"W{i},2021-11-01,{name},{value},," for i in (1, 2) for name, value in (("hgb", 126), ("HbA1c", 5.5))]
    schema = read(folder, people, rows)[0].schema
    assert schema.names == ("hba1c", "hgb")
    assert (schema.templates, schema.labels) == ("obstetric", SCHEMA.labels)
    assert by_name(schema)["hgb"].reference_low == SCHEMA.indicators[SCHEMA.index("hgb")].reference_low


def test_a_misspelled_indicator_of_the_paper_is_told_not_kept(folder: Folder) -> None:
    with pytest.raises(CohortError, match=r"'albumine' is not an indicator of the schema \(did you mean 'albumin'"):
        read(folder, ["W1,thalassemia,Rest.,2021-12-01"], ["W1,2021-11-01,albumine,40,g/L,"])


# What is left out


def test_what_is_left_out_is_counted_with_its_reason(folder: Folder) -> None:
    people, rows = tables(100)
    rows += [f"M{i},2021-11-03,Urine Color,yellow,," for i in range(100)]
    rows += ["M1,2021-11-03,Rare One,3,,", "M1,2021-11-04,Rare One,4,,", "X9,2021-11-03,Of Strangers,3,,"]
    cohort, report = read(folder, people, rows)
    said = str(report)
    assert "indicators without numbers, left out (1, 100 values): 'Urine Color'" in said
    assert "indicators measured in less than 2% of the patients, left out (1, 2 values): 'Rare One'" in said
    assert "indicators without a value, left out (1, 0 values): 'Of Strangers'" in said
    assert report.values == 2 * 100 * len(LAB)
    assert not {"Urine Color", "Rare One", "Of Strangers"} & set(cohort.schema.names)


def test_at_most_two_hundred_indicators_are_kept_those_of_most_patients(folder: Folder) -> None:
    people, _ = tables(10)
    rows = [f"M{i},2021-11-01,test {k:03},1,," for k in range(250) for i in range(10 if k < 240 else 5)]
    cohort, report = read(folder, people, rows)
    assert len(cohort.schema.names) == 200
    assert "indicators beyond the 200 that most patients have, left out (50, 450 values)" in str(report)


def test_tables_without_numbers_are_refused(folder: Folder) -> None:
    with pytest.raises(CohortError, match=r"no indicator has numbers of the patients.* such as yellow"):
        read(folder, ["M1,gout,Rest.,2021-12-01"], ["M1,2021-11-01,Urine Color,yellow,,"])


@pytest.mark.parametrize("name", ["patient_id", "x" * 201, "a\x1bb"])
def test_a_name_that_cannot_be_used_is_left_out(folder: Folder, name: str) -> None:
    people, rows = tables(2)
    cohort, report = read(folder, people, [*rows, f"M1,2021-11-01,{name},3,,"])
    assert "indicators without a usable name, left out (1, 1 values)" in str(report)
    assert name not in cohort.schema.names


# Units that nobody states


def test_hemoglobin_of_median_12_6_without_a_unit_is_refused_with_the_likely_unit(folder: Folder) -> None:
    people, rows = tables(20, (("Hemoglobin", "", "", 12.6, 0.5), ("Bilirubin", "", "", 0.6, 0.1)))
    with pytest.raises(CohortError) as caught:
        read(folder, people, rows)
    (said,) = str(caught.value).splitlines()
    assert said.startswith("labs.csv: the median of hgb is 12.5")
    assert (
        'but is in g/dL, and no unit is given: give it in a column unit, or in map.toml ([units] Hemoglobin = "g/dL"'
        in said
    )
    assert "likewise total_bilirubin (median 0.565, mg/dL?)" in said


def test_bilirubin_in_mg_per_dl_is_refused_by_the_papers_schema_too(folder: Folder) -> None:
    people = [f"W{i},thalassemia,Rest.,2021-12-01" for i in range(12)]
    wide = [f"W{i},2021-11-01,0.{5 + i % 3}" for i in range(12)]
    path = folder(
        patients=text("patient_id,label,reference,split_date", people),
        checkups=text("patient_id,date,total_bilirubin", wide),
    )
    for schema in (None, SCHEMA):
        with pytest.raises(CohortError, match=r"total_bilirubin is 0\.6, which is not usual in umol/L .*is in mg/dL"):
            read_cohort(path, schema)


def test_a_stated_unit_is_believed(folder: Folder) -> None:
    people, rows = tables(20, (("Hemoglobin", "", "g/L", 30.0, 1.0),))
    assert read(folder, people, rows)[0].schema.names == ("hgb",)


#: An indicator, a median as laboratories that use another unit find it, and that unit.
CONVENTIONAL = """\
hgb 14 g/dL|albumin 4.2 g/dL|total_protein 7.1 g/dL|mchc 34 g/dL|total_bilirubin 0.6 mg/dL|creatinine 0.9 mg/dL
urea_nitrogen 14 mg/dL|glucose 92 mg/dL|calcium 9.4 mg/dL|magnesium 2 mg/dL|phosphate 3.6 mg/dL|urate 5.2 mg/dL
fibrinogen 300 mg/dL|prealbumin 25 mg/dL|lactate 10 mg/dL|iron 95 ug/dL|vitamin_d 40 ng/mL
free_t4 1.2 ng/dL|total_t4 8 ug/dL|hct 0.42 1|neutrophil_ratio 0.6 1|wbc 7000 /uL|plt 250000 /uL|pco2 5.3 kPa
temperature 98.2 degF|hba1c 36 mmol/mol|hba1c 58 mmol/mol|hba1c 8.2 -
osmolality 0.285 -|sodium 140 -|potassium 4.1 -|alt 25 -|inr 1 -|pH 7.4 -|heart_rate 75 -"""


@pytest.mark.parametrize("entry", CONVENTIONAL.replace("\n", "|").split("|"))
def test_medians_in_conventional_units_are_doubted(entry: str) -> None:
    name, median, unit = entry.split()
    indicator = by_name(common().schema)[name]
    found = likely_unit(np.full(20, float(median)), indicator)
    assert found in {"-": [""], "ng/mL": ["ug/L", "ng/mL"]}.get(unit, [unit])


def test_a_median_in_celsius_is_doubted_where_fahrenheit_is_the_unit() -> None:
    fahrenheit = in_unit(by_name(common().schema)["temperature"], "degF")
    assert likely_unit(np.full(20, 36.8), fahrenheit) == "degC"
    assert likely_unit(np.full(20, 98.8), fahrenheit) == ""


@given(st.sampled_from(common().schema.indicators), st.floats(0.7, 1.4))
def test_medians_near_the_reference_range_are_not_doubted(indicator: Indicator, factor: float) -> None:
    for limit in (indicator.reference_low, indicator.reference_high):
        if limit is not None:
            assert likely_unit(np.full(20, limit * factor), indicator) == ""


@pytest.mark.parametrize(
    ("name", "median"),
    [("creatinine", 700), ("wbc", 60), ("plt", 20), ("albumin", 22), ("alt", 900), ("ferritin", 2000), ("hgb", 65),
     ("total_bilirubin", 200), ("glucose", 15), ("calcium", 1.6), ("lactate", 3), ("po2", 50), ("urate", 800)],
)  # fmt: skip
def test_medians_of_the_very_sick_are_not_doubted(name: str, median: float) -> None:
    assert likely_unit(np.full(20, float(median)), by_name(common().schema)[name]) == ""


def test_fewer_than_ten_values_say_nothing_about_their_unit() -> None:
    hgb = by_name(common().schema)["hgb"]
    assert likely_unit(np.full(9, 12.6), hgb) == ""
    assert likely_unit(np.full(10, 12.6), hgb) == "g/dL"


# Laws


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(folder: Folder, shuffled: random.Random) -> None:
    people, rows = tables(6)
    rows += ["M1,2021-11-05,marker q,4,AU/mL,", "M1,2021-11-05,Rare,4,,"]
    cohort, _ = read(folder, people, rows)
    shuffled.shuffle(rows)
    again, _ = read(folder, people, rows)
    assert again.schema == cohort.schema
    for one, other in zip(cohort, again, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-12)


def test_a_written_schema_reads_the_tables_as_the_inferred_one(folder: Folder, tmp_path: Path) -> None:
    people, rows = tables(100)
    cohort, report = read(folder, people, rows)
    (tmp_path / "schema.toml").write_text(schema_toml(cohort, report.notes), encoding="utf-8")
    schema = Schema.load(tmp_path / "schema.toml")
    assert schema == cohort.schema
    assert [each.codes for each in schema.indicators] == [each.codes for each in cohort.schema.indicators]
    again, _ = read_cohort(
        folder(
            patients=text("patient_id,label,reference,split_date", people),
            labs=text("patient_id,date,indicator,value,unit,code", rows),
        ),
        schema,
    )
    for one, other in zip(cohort, again, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_a_cohort_with_an_inferred_schema_is_written_and_read_back(folder: Folder, tmp_path: Path) -> None:
    cohort, _ = read(folder, *tables())
    write_cohort(cohort, tmp_path / "again")
    again, _ = read_cohort(tmp_path / "again")
    assert again.schema == cohort.schema
    np.testing.assert_array_equal(again[7].values, cohort[7].values)


def test_a_schema_of_ones_own_reads_names_that_the_catalogue_knows(folder: Folder) -> None:
    people, rows = tables(4, LAB[:2])
    path = folder(
        patients=text("patient_id,label,reference,split_date", people),
        labs=text("patient_id,date,indicator,value,unit,code", rows),
    )
    schema = Schema((Indicator("Hb", "g/L"), Indicator("crea", "umol/L", molar_mass=113.12)))
    cohort, _ = read_cohort(path, schema)
    assert np.nanmedian(cohort[0].values, axis=0) == pytest.approx([126, 97], rel=0.3)


@pytest.mark.parametrize(("name", "read"), [("Glucose (Urine)", True), ("Glucose", False)])
def test_a_code_goes_before_a_name_of_the_schema_unless_both_mean_the_same(
    name: str, read: bool, tmp_path: Path
) -> None:
    (tmp_path / "patients.csv").write_text(
        "patient_id,label,reference,split_date\nA,gout,Drink water.,2021-05-01\n", encoding="utf-8"
    )
    (tmp_path / "labs.csv").write_text(
        f"patient_id,date,indicator,value,unit,code\nA,2021-04-01,{name},15,mg/dL,5792-7\n", encoding="utf-8"
    )
    schema = Schema((Indicator(name, "mg/dL"),))
    if read:
        assert read_cohort(tmp_path, schema)[0][0].values.tolist() == [[15.0]]
    else:  # 5792-7 is glucose in urine
        with pytest.raises(CohortError, match=r"'Glucose \(urine_glucose\)' is not an indicator of the schema"):
            read_cohort(tmp_path, schema)
