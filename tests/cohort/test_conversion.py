"""Conversion between units: against published factors, exact, and the same both ways."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.cohort.indicator import Indicator
from pmlm_env.cohort.units import IDENTITY, Conversion, conversion

pytestmark = pytest.mark.once

#: "Conversion to SI units" of the AMA Manual of Style, 11th edition, table 17.5-1 (as JAMA prints it): conventional
#: unit, multiplied by the factor, gives the SI unit. Molar masses (g/mol) are of the molecules (PubChem).
PUBLISHED = """\
albumin | g/dL | 10 | g/L |
alanine aminotransferase | U/L | 0.0167 | ukat/L |
ammonia | ug/dL | 0.587 | umol/L | 17.031
bilirubin | mg/dL | 17.104 | umol/L | 584.66
calcium | mg/dL | 0.25 | mmol/L | 40.078
calcium | mEq/L | 0.5 | mmol/L | 40.078 2
carbon dioxide pressure | mmHg | 0.133 | kPa |
chloride | mEq/L | 1 | mmol/L | 35.45 1
cholesterol | mg/dL | 0.0259 | mmol/L | 386.65
cortisol | ug/dL | 27.588 | nmol/L | 362.46
creatinine | mg/dL | 88.4 | umol/L | 113.12
digoxin | ng/mL | 1.281 | nmol/L | 780.94
erythrocyte count | 10^6/uL | 1 | 10^12/L |
estradiol | pg/mL | 3.671 | pmol/L | 272.38
ferritin | ng/mL | 1 | ug/L |
fibrinogen | mg/dL | 0.01 | g/L |
folate | ng/mL | 2.266 | nmol/L | 441.4
glucose | mg/dL | 0.0555 | mmol/L | 180.156
hematocrit | % | 0.01 | 1 |
hemoglobin | g/dL | 10 | g/L |
iron | ug/dL | 0.179 | umol/L | 55.845
lactate | mg/dL | 0.111 | mmol/L | 90.08
lead | ug/dL | 0.0483 | umol/L | 207.2
lithium | mEq/L | 1 | mmol/L | 6.94 1
magnesium | mg/dL | 0.4114 | mmol/L | 24.305
magnesium | mEq/L | 0.5 | mmol/L | 24.305 2
mch | pg/cell | 1 | pg |
mcv | um^3 | 1 | fL |
phosphorus | mg/dL | 0.323 | mmol/L | 30.974
platelets | 10^3/uL | 1 | 10^9/L |
potassium | mEq/L | 1 | mmol/L | 39.098 1
prealbumin | mg/dL | 10 | mg/L |
progesterone | ng/mL | 3.18 | nmol/L | 314.46
protein | g/dL | 10 | g/L |
testosterone | ng/dL | 0.0347 | nmol/L | 288.42
theophylline | ug/mL | 5.55 | umol/L | 180.16
thyroxine | ug/dL | 12.871 | nmol/L | 776.87
free thyroxine | ng/dL | 12.871 | pmol/L | 776.87
triiodothyronine | ng/dL | 0.0154 | nmol/L | 650.97
transferrin | mg/dL | 0.01 | g/L |
triglycerides | mg/dL | 0.0113 | mmol/L | 885.4
urea nitrogen | mg/dL | 0.357 | mmol/L | 28.014
uric acid | mg/dL | 59.485 | umol/L | 168.11
vitamin B12 | pg/mL | 0.738 | pmol/L | 1355.37
25-hydroxyvitamin D | ng/mL | 2.496 | nmol/L | 400.64
leukocytes | /uL | 0.001 | 10^9/L |
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in PUBLISHED.splitlines()]


def indicator_of(unit: str, row: list[str]) -> Indicator:
    molar_mass, charge = ([float(cell) for cell in row[4].split()] + [None, None])[:2]
    return Indicator(row[0], unit, molar_mass=molar_mass, charge=None if charge is None else int(charge))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} in {row[1]}")
def test_factors_are_the_published_ones_and_convert_back_exactly(row: list[str]) -> None:
    _, conventional, published, si, _ = row
    there, back = conversion(conventional, indicator_of(si, row)), conversion(si, indicator_of(conventional, row))
    assert isinstance(there, Conversion)
    assert isinstance(back, Conversion)
    # To half a unit of the last digit printed, and 0.1 %: the published factors rest on other molar masses.
    digits = len(published.partition(".")[2])
    assert there.of(1.0) == pytest.approx(float(published), abs=0.51 * 10**-digits, rel=1e-3)
    assert there.inverse() == back


@pytest.mark.parametrize(
    ("text", "unit", "factor"),
    [
        ("mm Hg", "kPa", "0.133322"),
        ("cm[H2O]", "mmHg", Fraction("98.0665") / Fraction("133.322")),
        ("[lb_av]", "kg", "0.45359237"),
        ("in", "cm", "2.54"),
        ("[in_i]", "cm", "2.54"),
        ("{beats}/min", "/min", 1),
        ("bpm", "/min", 1),
        ("breaths/min", "/min", 1),
        ("1/min", "/min", 1),
        ("mL/min/{1.73_m2}", "mL/min/1.73m2", 1),
        ("mL/min/1.73 m\u00b2", "mL/min", 1),
        ("mL/s", "mL/min", 60),
        ("mmol/24h", "mmol/d", 1),
        ("mg/d", "g/24 h", "0.001"),
        ("mm/hr", "mm/h", 1),
        ("ug/mg", "mg/g", 1),
        ("kg/m2", "kg/m\u00b2", 1),
        ("mOsm/kg", "mosmol/kg", 1),
        ("degC", "Cel", 1),
        ("\u00b0C", "degC", 1),
        ("\u2103", "Cel", 1),
        ("ng/mL FEU", "mg/L", "0.001"),
        ("sec", "s", 1),
        ("cells/hpf", "/HPF", 1),
        ("copies/mL", "10^3/L", 1),
        ("meq/L", "mEq/L", 1),
        ("G/L", "10^9/L", 1),
    ],
)
def test_units_of_vital_signs_clearances_and_urine(text: str, unit: str, factor: Fraction | str | int) -> None:
    assert conversion(text, Indicator("indicator", unit)) == Conversion(Fraction(factor))


def test_mass_below_the_line_is_converted_too() -> None:
    per_gram = Indicator("albumin to creatinine", "mg/g", molar_mass=113.12)
    found = conversion("mg/mmol", per_gram)
    assert isinstance(found, Conversion)
    assert found.of(1.0) == pytest.approx(8.84, rel=1e-3)  # KDIGO 2024, table of units


@pytest.mark.parametrize(
    ("text", "indicator", "clause"),
    [
        ("mmol/L", Indicator("urate", "mg/dL"), "give the indicator its molar_mass in the schema"),
        ("mEq/L", Indicator("calcium", "mmol/L", molar_mass=40.078), "give the indicator its charge in the schema"),
        ("degF", Indicator("length", "cm"), "it does not measure the same quantity as cm"),
        ("mmol/mol", Indicator("A1c", "%"), 'if this is HbA1c, give the indicator scale = "hba1c" in the schema'),
        ("% (IFCC)", Indicator("A1c", "%", scale="hba1c"), "it is neither % (NGSP) nor mmol/mol (IFCC)"),
        ("%{Mono-S}", Indicator("A1c", "mmol/mol", scale="hba1c"), "it is neither % (NGSP) nor mmol/mol (IFCC)"),
        ("mmol/L", Indicator("A1c", "%", scale="hba1c"), "it does not measure the same quantity as %"),
        ("mil/L", Indicator("cells", "10^5/L"), "it has several meanings"),
        ("mmHg", Indicator("length", "cm"), "it does not measure the same quantity as cm"),
        *[
            (unit, Indicator("d_dimer", "mg/L"), "one of it and mg/L is in D-dimer units (DDU), the other not")
            for unit in ("ug/mL DDU", "ng/mL (DDU)", "ng{DDU}/mL", "ng/mL{DDU}", "mg/L D-DU", "ng/mL [D-dimer units]")
        ],
        ("ng/mL FEU", Indicator("d_dimer", "ng/mL{DDU}"), "is in D-dimer units (DDU), the other not"),
        ("g/L", Indicator("score", "points"), "write points, or"),
        ("g/0L", Indicator("hemoglobin", "g/L"), "it is an unknown unit"),
        ("10^99999999/L", Indicator("wbc", "10^9/L"), "it is an unknown unit"),
    ],
)
def test_what_cannot_be_converted_is_explained(text: str, indicator: Indicator, clause: str) -> None:
    found = conversion(text, indicator)
    assert isinstance(found, str)
    assert clause in found


def test_a_blank_unit_an_equal_one_and_any_unit_of_an_indicator_without_one_leave_the_values_as_they_are() -> None:
    for text, unit in (("", "g/L"), (" ", "points"), ("POINTS", "points"), ("blood gas", ""), ("%", "%")):
        assert conversion(text, Indicator("indicator", unit)) == IDENTITY


#: Fixed points of the scales (NIST SP 811, appendix B) and clinical temperatures.
@pytest.mark.parametrize(
    ("fahrenheit", "celsius"), [(32, 0), (212, 100), (-40, -40), (98.6, 37), (100.4, 38), (95, 35), (104, 40)]
)
@pytest.mark.parametrize("name", ["degF", "[degF]", "\u00b0F", "F", "\u2109", "Deg. F", "Fahrenheit"])
def test_temperatures_are_converted_both_ways(fahrenheit: float, celsius: float, name: str) -> None:
    there = conversion(name, Indicator("temperature", "\u00b0C"))
    back = conversion("Cel", Indicator("temperature", "degF"))
    assert isinstance(there, Conversion)
    assert isinstance(back, Conversion)
    assert (there.of(fahrenheit), back.of(celsius)) == (celsius, fahrenheit)
    assert there.inverse() == back


@given(st.floats(-200, 500))
def test_temperatures_are_those_of_scipy(value: float) -> None:
    from scipy.constants import convert_temperature

    there = conversion("[degF]", Indicator("temperature", "Cel"))
    assert isinstance(there, Conversion)
    assert there.of(value) == pytest.approx(convert_temperature(value, "F", "C"), abs=1e-9)


#: HbA1c in % (NGSP, as in the DCCT) and mmol/mol (IFCC): Barth et al., Ann Clin Biochem 2008;45:343.
HBA1C = {4: 20, 5: 31, 6: 42, 6.5: 48, 7: 53, 8: 64, 9: 75, 10: 86, 11: 97, 12: 108, 13: 119, 14: 130, 15: 140}


@pytest.mark.parametrize(("percent", "ifcc"), HBA1C.items())
def test_hba1c_is_converted_by_the_master_equation(percent: float, ifcc: int) -> None:
    there = conversion("mmol/mol Hb", Indicator("A1c", "%", scale="hba1c"))
    back = conversion("% (NGSP)", Indicator("A1c", "mmol/mol", scale="hba1c"))
    assert isinstance(there, Conversion)
    assert isinstance(back, Conversion)
    assert round(back.of(percent)) == ifcc
    assert there.of(ifcc) == pytest.approx(percent, abs=0.05)
    assert there.inverse() == back
    assert there == (Fraction("0.09148"), Fraction("2.152"))  # ngsp.org/ifcc.asp
    fraction = conversion("1", Indicator("A1c", "mmol/mol", scale="hba1c"))
    assert isinstance(fraction, Conversion)
    assert fraction.of(percent / 100) == pytest.approx(back.of(percent))


UNITS = ("g/L", "mg/dL", "ug/mL", "mmol/L", "umol/L", "nmol/mL", "mol/m3", "mg%", "mEq/L", "g/100 mL")


@given(st.permutations(UNITS), st.floats(1, 1e6), st.integers(1, 3))
def test_a_way_round_through_any_units_ends_where_it_began(units: list[str], molar_mass: float, charge: int) -> None:
    value = Fraction(7)
    for text, unit in zip(units, [*units[1:], units[0]], strict=True):
        found = conversion(text, Indicator("any", unit, molar_mass=molar_mass, charge=charge))
        assert isinstance(found, Conversion)
        value = found.factor * value + found.offset
    assert value == 7


@given(st.text(max_size=120), st.sampled_from([*UNITS, "%", "mmHg", "/min", "", "points", "degF"]))
def test_any_text_has_a_factor_above_zero_or_an_explanation(text: str, unit: str) -> None:
    found = conversion(text, Indicator("any", unit, molar_mass=100.0, charge=1))
    assert found if isinstance(found, str) else found.factor > 0


@given(
    st.sampled_from(UNITS),
    st.lists(st.sampled_from(["upper", "lower", "title", "space", "width", "bracket", "note"]), max_size=3),
)
def test_spelling_does_not_matter(unit: str, changes: list[str]) -> None:
    text = unit
    for change in changes:
        match change:
            case "space":
                text = f" {text.replace('/', ' / ')} "
            case "width":
                text = text.translate({code: code + 0xFEE0 for code in range(ord("a"), ord("z") + 1)})
            case "bracket":
                text = f"[{text}]" if "[" not in text else text
            case "note":
                text = f"{text} (calculated)"
            case _:
                text = getattr(text, change)()
    assert conversion(text, Indicator("any", unit)) == IDENTITY
