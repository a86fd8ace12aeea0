"""Units as laboratories write them: taken as they stand, or refused with the factor that is right."""

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
    ("indicator", "unit", "advice"),
    [
        ("hgb", "g/dL", "multiply the values by 10 and write g/L"),
        ("hgb", "gm%", "multiply the values by 10 and write g/L"),
        ("hgb", "g/100 mL", "multiply the values by 10 and write g/L"),
        ("hgb", "mmol/L", "your laboratory's factor"),
        ("prealbumin", "mg/dL", "multiply the values by 10 and write mg/L"),
        ("prealbumin", "g/L", "multiply the values by 1,000 and write mg/L"),
        ("total_bilirubin", "mg/dL", "your laboratory's factor"),
        ("total_bilirubin", "mmol/L", "multiply the values by 1,000 and write umol/L"),
        ("alt", "\u00b5kat/L", "multiply the values by 60 and write U/L"),
        ("alt", "nkat/L", "multiply the values by 0.06 and write U/L"),
        ("hct", "L/L", "multiply the values by 100 and write %"),
        ("neutrophil_ratio", "{ratio}", "multiply the values by 100 and write %"),
        ("neutrophil_ratio", "ratio", "multiply the values by 100 and write %"),
        ("wbc", "cells/uL", r"divide the values by 1,000 and write 10\^9/L"),
        ("wbc", "/mm3", r"divide the values by 1,000 and write 10\^9/L"),
        ("plt", "lakh/cumm", r"multiply the values by 100 and write 10\^9/L"),
        ("rbc", "10^9/L", r"divide the values by 1,000 and write 10\^12/L"),
        ("wbc", "%", "does not measure the same quantity"),
        ("wbc", "10^9/L x100", "unknown unit; if it means"),
        ("hct", "% per L", "unknown unit; if it means"),
        ("alt", "furlong", "unknown unit; if it means U/L, write U/L"),
    ],
)
def test_another_unit_is_refused_with_the_factor_if_it_is_exact(
    folder: Folder, indicator: str, unit: str, advice: str
) -> None:
    row = f'B2,2022-02-03,{indicator},1,"{unit}"\n'
    with pytest.raises(
        CohortError, match=rf"1 problem .*\n.*line 7, column unit: .* the unit of {indicator}.*{advice}"
    ):
        read_cohort(folder(patients=PATIENTS, labs=LABS + row))


def test_the_documented_indicators_are_those_of_the_schema() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "cohort-format.md").read_text(encoding="utf-8")
    for indicator in INDICATORS:
        bounds = f"{indicator.low:g} to {indicator.high:g}"
        assert f"| `{indicator.name}` | {indicator.unit or 'none'} | {bounds} |" in page
