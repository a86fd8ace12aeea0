"""A patient's rows of one day are one check-up; nothing of them is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import ReadReport, read_cohort
from tests.schemas import INDICATOR_NAMES

Folder = Callable[..., Path]
PATIENTS = "patient_id,label,reference,split_date\nP1,normal,Rest.,2022-02-02\n"


def read(folder: Folder, **table: str) -> tuple[dict[str, float], ReadReport]:
    """Return the values of the only check-up, and the report."""
    cohort, report = read_cohort(folder(patients=PATIENTS, **table))
    (row,) = cohort[0].values
    return {n: value for n, value in zip(INDICATOR_NAMES, row.tolist(), strict=True) if not np.isnan(value)}, report


def test_two_times_of_a_day_in_a_wide_table_are_one_check_up(folder: Folder) -> None:
    rows = "P1,2022-01-01 08:00,121,\nP1,2022-01-01 14:00,,25\n"
    values, report = read(folder, checkups="patient_id,date,hgb,alt\n" + rows)
    assert values == {"hgb": 121, "alt": 25}
    assert (report.checkups, report.values, report.averaged) == (1, 2, 0)


@pytest.mark.parametrize(
    "dates",
    [("2022-01-01", "2022-01-01"), ("2022-01-01 08:00:01", "2022-01-01T08:00:01"), ("2022-01-01", "2022-01-01 23:59")],
)
@pytest.mark.parametrize("form", ["labs", "checkups"])
def test_the_mean_of_a_day_is_taken_and_said(folder: Folder, form: str, dates: tuple[str, str]) -> None:
    if form == "labs":
        table = (
            "patient_id,date,indicator,value\n" + f"P1,{dates[0]},hgb,120\nP1,{dates[1]},hgb,100\nP1,{dates[1]},alt,9\n"
        )
    else:
        table = f"patient_id,date,hgb,alt\nP1,{dates[0]},120,\nP1,{dates[1]},100,9\n"
    values, report = read(folder, **{form: table})
    assert values == {"hgb": 110, "alt": 9}
    assert report.averaged == 2
    assert "values averaged with others of the same day: 2" in str(report)


def test_a_row_that_is_there_twice_counts_twice_and_is_said(folder: Folder) -> None:
    rows = "P1,2022-01-01,hgb,120\nP1,2022-01-01,hgb,120\nP1,2022-01-01,hgb,90\n"
    values, report = read(folder, labs="patient_id,date,indicator,value\n" + rows)
    assert values == {"hgb": 110}
    assert (report.averaged, report.repeated_rows) == (3, 1)
    assert "rows that repeat an earlier row cell by cell: 1" in str(report)


def test_a_bad_value_of_a_day_does_not_cost_the_others(folder: Folder) -> None:
    (folder(patients=PATIENTS) / "checkups.csv").write_text(
        "patient_id,date,hgb,alt\nP1,2022-01-01,120,\nP1,2022-01-01,1x,9\n"
    )
    cohort, report = read_cohort(folder(), drop_bad_rows=True)
    assert np.nanmax(cohort[0].values) == 120
    assert np.nanmin(cohort[0].values) == 9
    assert report.dropped == {"unparsable value": 1}
