"""Patients as a data source of one's own makes them: what is converted, and what is refused."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, Patient
from tests.schemas import SCHEMA

N = len(SCHEMA.indicators)
DAYS = np.array(["2021-01-03", "2021-02-01"], dtype="datetime64[D]")


def _patient(**given: Any) -> Patient:
    values = np.full((2, N), 3.5)
    usual = {"patient_id": "P1", "label": "a", "reference": "", "split_date": DAYS[-1], "dates": DAYS, "values": values}
    return Patient(**usual | given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": None}, 'patient P1: label is of type NoneType: use text, "" if there is none'),
        ({"label": float("nan")}, 'patient P1: label is of type float: use text, "" if there is none'),
        ({"reference": None}, 'patient P1: reference is of type NoneType: use text, "" if there is none'),
        ({"patient_id": 7}, "patient 7: patient_id is of type int: use text"),
        ({"person_id": 7}, 'patient P1: person_id is of type int: use text, "" if there is none'),
        ({"extra": {"age": 30}}, "patient P1: extra['age'] is of type int: use text, \"\" if there is none"),
        ({"dates": DAYS[::-1]}, "patient P1: dates are not days in ascending order: sort the check-ups by their day"),
        ({"dates": [DAYS[0], "NaT"]}, "patient P1: dates are not days in ascending order: sort the check-ups by their"),
        ({"dates": ["soon", "later"]}, "patient P1: dates are not days: use an array of datetime64[D]"),
        (
            {"values": [["much"] * N] * 2},
            "patient P1: values are no numbers: use float64, a row for each check-up, NaN",
        ),
        ({"values": np.full((2, N), np.inf)}, "patient P1: values have one that is infinite: use NaN for what was not"),
        ({"values": np.zeros((1, N))}, f"patient P1: values have shape (1, {N}), expected (2, number of indicators)"),
    ],
)
def test_what_is_no_patient_is_refused_with_the_patients_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        _patient(**given)


@pytest.mark.parametrize("dates", [DAYS.astype("datetime64[ns]"), [date(2021, 1, 3), date(2021, 2, 1)], DAYS.tolist()])
@pytest.mark.parametrize("values", [[[3.5] * N] * 2, np.full((2, N), 3.5, np.float32), np.full((2, N), 3.5, object)])
def test_days_and_numbers_of_other_types_are_converted(dates: Any, values: Any) -> None:
    patient = _patient(dates=dates, values=values)
    assert patient.dates.dtype == DAYS.dtype
    assert patient.dates.tolist() == DAYS.tolist()
    assert patient.values.dtype == np.float64
    assert (patient.values == 3.5).all()
    assert not patient.values.flags.writeable


def test_patients_of_a_generator_are_all_there() -> None:
    assert len(Cohort((each for each in [_patient()]), SCHEMA)) == 1  # type: ignore[arg-type]


def test_a_value_that_is_none_was_not_measured() -> None:
    assert np.isnan(_patient(values=[[None] * N] * 2).values).all()
