"""Codes that tell no indicator, and missing-value markers in the columns of a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, CohortError, Indicator, Schema, read_cohort
from pmlm_env.cohort.schema_toml import schema_toml

Folder = Callable[..., Path]

#: Name and value, in umol/L, of what each man has.
_TESTS = (("urate", 400), ("creatinine", 80))


def men(folder: Folder, code: str = "", unit: str = "umol/L", rows: tuple[str, ...] = ()) -> Path:
    """Write the tables of four men, all of whose results have the same code and unit."""
    patients = "".join(f"M{i},{'gout' if i % 2 else 'no finding'},Rest.,2021-12-01\n" for i in range(4))
    results = [f"M{i},2021-11-01,{name},{value},{unit},{code}" for i in range(4) for name, value in _TESTS]
    return folder(
        patients=f"patient_id,label,reference,split_date\n{patients}",
        labs="\n".join(["patient_id,date,indicator,value,unit,code", *results, *rows]) + "\n",
    )


def values(cohort: Cohort) -> dict[str, float]:
    """Return the first man's values by indicator."""
    return dict(zip(cohort.schema.names, cohort[0].values[0].tolist(), strict=True))


# Codes


@pytest.mark.parametrize("code", ["BMP", "NA", "NULL"])
def test_a_code_that_several_indicators_have_is_not_in_the_schema(code: str, folder: Folder) -> None:
    schema = read_cohort(men(folder, code))[0].schema
    assert [each.codes for each in schema.indicators] == [(), ()]


def test_a_code_that_something_left_out_has_too_is_not_in_the_schema(folder: Folder) -> None:
    path = men(folder, rows=("M0,2021-11-01,Urine Color,yellow,,P7", "M0,2021-11-02,urate,400,umol/L,P7"))
    schema = read_cohort(path)[0].schema
    assert {each.name: each.codes for each in schema.indicators} == {"creatinine": (), "urate": ()}


def test_a_code_of_one_indicator_is_in_the_schema_whatever_names_it_has(folder: Folder) -> None:
    path = men(folder, rows=("M0,2021-11-01,Uric Acid,400,umol/L,U1", "M1,2021-11-02,urate,400,umol/L,U1"))
    schema = read_cohort(path)[0].schema
    assert schema.indicators[schema.index("urate")].codes == ("U1",)


@pytest.mark.parametrize("code", ["BMP", "NA"])
def test_a_schema_in_which_indicators_share_a_code_tells_them_by_name(code: str, folder: Folder) -> None:
    shared = Schema(tuple(Indicator(name, "umol/L", codes=(code,)) for name, _ in _TESTS))
    cohort, _ = read_cohort(men(folder, code), shared)
    assert values(cohort) == {"urate": 400, "creatinine": 80}


def test_a_missing_code_is_not_the_name_of_an_indicator(folder: Folder) -> None:
    schema = Schema((Indicator("urate"), Indicator("creatinine"), Indicator("sodium", synonyms=("Na",))))
    with pytest.raises(CohortError, match="'Marker' is not an indicator of the schema"):
        read_cohort(men(folder, rows=("M0,2021-11-01,Marker,140,,NA",)), schema)


def test_the_written_schema_of_tables_with_a_panels_code_reads_them_alike(folder: Folder, tmp_path: Path) -> None:
    cohort, report = read_cohort(men(folder, "BMP"))
    (tmp_path / "schema.toml").write_text(schema_toml(cohort, report.notes), encoding="utf-8")
    again, _ = read_cohort(tmp_path)
    assert again.schema == cohort.schema
    np.testing.assert_array_equal(again[0].values, cohort[0].values)


# Units


@pytest.mark.parametrize("unit", ["NA", "NULL", "n/a"])
def test_a_missing_unit_is_no_unit(unit: str, folder: Folder) -> None:
    schema = read_cohort(men(folder, unit=unit))[0].schema
    assert {each.name: each.unit for each in schema.indicators} == {"urate": "umol/L", "creatinine": "umol/L"}


def test_a_missing_unit_does_not_split_an_indicator(folder: Folder) -> None:
    cohort, _ = read_cohort(men(folder, rows=("M0,2021-11-01,urate,500,NA,", "M1,2021-11-01,urate,500,,")))
    assert values(cohort) == {"urate": 450, "creatinine": 80}


def test_a_missing_unit_is_no_unit_to_a_schema_either(folder: Folder) -> None:
    schema = Schema(tuple(Indicator(name, "umol/L") for name, _ in _TESTS))
    assert values(read_cohort(men(folder, unit="NA"), schema)[0]) == {"urate": 400, "creatinine": 80}


def test_values_in_an_unknown_unit_that_are_left_out_are_named_with_it(folder: Folder) -> None:
    people = "".join(f"P{i},gout,Rest.,2021-12-01\n" for i in range(100))
    rows = "".join(f"P{i},2021-11-01,urate,400,{'umol/L' if i else 'foo'}\n" for i in range(100))
    path = folder(
        patients=f"patient_id,label,reference,split_date\n{people}",
        labs=f"patient_id,date,indicator,value,unit\n{rows}",
    )
    _, report = read_cohort(path)
    assert "measured in less than 2% of the patients, left out (1, 1 values): 'urate (foo)'" in str(report)
