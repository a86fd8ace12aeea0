"""Units as laboratories write them: taken as they stand, converted by an exact factor, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pmlm_env.cohort import CohortError, read_cohort
from tests.cohort.three_patients import LABS, PATIENTS, values_of
from tests.schemas import INDICATORS

Folder = Callable[..., Path]

THOUSANDS = (
    "10^9/L|K/uL|k/ul|K/\u00b5L|K/\u03bcL|K/mcL|K/mm3|K/mm\u00b3|K/cumm|10*3/uL|10^3/uL|x10^9/L|x10E9/L|10E9/L|"
    "10e3/uL|x10E3/uL|10\u2079/L|\u00d710\u2079/L|10**9/L|10*9/L|10 9/L|109/L|x 10^9/L|10^9 / L|G/L|g/l|Giga/L|"
    "Gpt/l|thou/uL|Thousand/uL|Tsd./\u00b5l|th/uL|/nL|#/nl|10^6/mL|E9/L|bil/L|mil/mm3|x10(9)/L|1000/uL|x1,000/uL|"
    "10^9 cells/L|cells x10^9/L|10*3{cells}/uL|10^9.L-1|10\u2079\u00b7L\u207b\u00b9|10^9 per L|10^9/litre|X10E3/UL|"
    "\uff2b/\uff55\uff2c|10^9/L derived|10^9/L (calculated)"
)
MILLIONS = (
    "10^12/L|M/uL|10*6/uL|x10E6/uL|x10^12/L|10\u00b9\u00b2/L|1012/L|T/L|Tpt/l|mil/uL|million/uL|Mio./\u00b5l|"
    "10^6/mm3|/pL"
)
UNITS = {
    "wbc": THOUSANDS,
    "rbc": MILLIONS,
    "hgb": "g/L|g/l|G/L|gm/L|grams/liter|mg/mL|g / l|g.L-1|g\u00b7L\u207b\u00b9|g L-1|g/dm3|g per litre",
    "prealbumin": "mg/L|mg/l|MG/L|ug/mL|\u00b5g/mL|mcg/mL",
    "total_bilirubin": "umol/L|\u00b5mol/L|\u03bcmol/L|umol/l|mcmol/L|micromol/L|UMOL/L|nmol/mL|uM|umol / L|"
    "mmol/m3|\u00b5mol\u00b7L\u207b\u00b9",
    "alt": "U/L|U/l|u/l|IU/L|[IU]/L|[iU]/L|UI/L|E/L|mU/mL|m[IU]/mL|Units/L|U/L 37C|U/l 37\u00b0C",
    "hct": "%|percent|per cent|pct|\uff05|vol%|cL/L|mL/dL|%{packed}",
    "basophil_ratio": "%|/100 WBC|/100{WBCs}",
    "mcv": "fL|fl|FL|um3|\u00b5m3|\u00b5m^3|\u00b5m\u00b3|femtoliter",
    "mch": "pg|PG|pg/cell|pg per cell|picograms",
}
VALUES = {"wbc": 6.5, "rbc": 4.5, "hgb": 120, "prealbumin": 250, "total_bilirubin": 9, "alt": 25, "hct": 36,
          "basophil_ratio": 1, "mcv": 90, "mch": 30}  # fmt: skip


@pytest.mark.parametrize(
    ("indicator", "unit"), [(name, unit) for name, units in UNITS.items() for unit in units.split("|")]
)
def test_another_way_to_write_the_unit_leaves_the_value_as_it_is(folder: Folder, indicator: str, unit: str) -> None:
    row = f'B2,2022-02-03,{indicator},{VALUES[indicator]},"{unit}"\n'
    cohort, _ = read_cohort(folder(patients=PATIENTS, labs=LABS + row))
    assert values_of(cohort[1])["2022-02-03", indicator] == VALUES[indicator]


@pytest.mark.parametrize(
    ("indicator", "unit", "value", "read"),
    [
        ("hgb", "g/dL", "12.6", 126),
        ("hgb", "gm%", "12.6", 126),
        ("hgb", "g/100 mL", "12.6", 126),
        ("hgb", "mmol/L", "7.5", 120.9),
        ("prealbumin", "mg/dL", "25", 250),
        ("total_bilirubin", "mg/dL", "0.5", 8.55),
        ("total_bilirubin", "mmol/L", "0.0085", 8.5),
        ("alt", "\u00b5kat/L", "0.5", 30),
        ("hct", "L/L", "0.36", 36),
        ("neutrophil_ratio", "{ratio}", "0.7", 70),
        ("wbc", "cells/uL", "6500", 6.5),
        ("plt", "lakh/cumm", "2.1", 210),
        ("rbc", "10^9/L", "4500", 4.5),
    ],
)
def test_a_value_in_another_unit_is_converted_and_counted(
    folder: Folder, indicator: str, unit: str, value: str, read: float
) -> None:
    cohort, report = read_cohort(folder(patients=PATIENTS, labs=f'{LABS}B2,2022-02-03,{indicator},{value},"{unit}"\n'))
    assert values_of(cohort[1])["2022-02-03", indicator] == pytest.approx(read, rel=1e-3)
    assert f"{indicator} from {unit} to " in str(report)


@pytest.mark.parametrize(
    ("indicator", "unit", "advice"),
    [
        ("prealbumin", "mmol/L", "give the indicator its molar_mass in the schema"),
        ("wbc", "%", "does not measure the same quantity"),
        ("wbc", "10^9/L x100", "unknown unit; if it means"),
        ("hct", "% per L", "unknown unit; if it means"),
        ("alt", "furlong", "unknown unit; if it means U/L, write U/L"),
    ],
)
def test_a_unit_that_cannot_be_converted_is_refused_with_what_to_do(
    folder: Folder, indicator: str, unit: str, advice: str
) -> None:
    row = f'B2,2022-02-03,{indicator},1,"{unit}"\n'
    with pytest.raises(
        CohortError, match=rf"1 problem .*\n.*line 7, column unit: .* the unit of {indicator}.*{advice}"
    ):
        read_cohort(folder(patients=PATIENTS, labs=LABS + row))


def test_the_documented_indicators_are_those_of_the_schema() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "schema.md").read_text(encoding="utf-8")
    for indicator in INDICATORS:
        bounds = f"{indicator.low:g} to {indicator.high:g}"
        assert f"| `{indicator.name}` | {indicator.unit or 'none'} | {bounds} |" in page
