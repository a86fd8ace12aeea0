"""Three patients as CSV texts, and what is measured of a cohort."""

from __future__ import annotations

import math

import numpy as np

from pmlm_env.cohort import Cohort, Patient
from tests.schemas import INDICATOR_NAMES

PATIENTS = """\
patient_id,label,reference,split_date,age
007,thalassemia,"Rest, and come back.",2021-05-01,31
B2,normal,Nothing to do.,2022-03-04,28
C3,gestational diabetes,Mind the sugar.,2022-09-09,40
"""
LABS = """\
patient_id,date,indicator,value,unit
B2,2022-02-02 08:00:00,hgb,120,g/L
007,2021-04-02,hgb,88,g/L
007,2021-04-01,plt,210,10^9/L
007,2021-04-01,hgb,90.5,g/L
C3,2022-09-01,pH,7.4,blood gas
"""
CHECKUPS = """\
patient_id,date,hgb,plt,pH
B2,2022-02-02,120,,
007,2021-04-02,88,,
007,2021-04-01,90.5,210,
C3,2022-09-01,,,7.4
"""


def values_of(patient: Patient) -> dict[tuple[str, str], float]:
    """Return (day, indicator) -> value of what was measured."""
    return {
        (str(day), name): value
        for day, row in zip(patient.dates, patient.values.tolist(), strict=True)
        for name, value in zip(INDICATOR_NAMES, row, strict=True)
        if not math.isnan(value)
    }


def assert_same(left: Cohort, right: Cohort) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        texts = ("patient_id", "label", "reference", "extra", "split_date")
        assert [getattr(a, name) for name in texts] == [getattr(b, name) for name in texts]
        assert a.dates.tolist() == b.dates.tolist()
        np.testing.assert_array_equal(a.values, b.values)


def line_of(text: str, start: str) -> int:
    """Return the number of the only line that starts so, as an editor shows it."""
    (found,) = [number for number, line in enumerate(text.split("\n"), start=1) if line.startswith(start)]
    return found
