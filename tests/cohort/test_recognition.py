"""Recognizing indicators by code, name and unit, as MIMIC, eICU, OMOP and FHIR write them."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.cohort import OBSTETRIC, Schema
from pmlm_env.cohort.sources.recognition import Catalogue, common, split_name
from pmlm_env.cohort.units import IDENTITY, conversion, is_unit

#: Labels of MIMIC-IV's d_labitems, names of eICU's lab table, LOINC's long common names (as OMOP and FHIR have them).
NAMES = """\
White Blood Cells | wbc
WBC x 1000 | wbc
Leukocytes [#/volume] in Blood by Automated count | wbc
Hgb | hgb
Hemoglobin [Mass/volume] in Blood | hgb
HAEMOGLOBIN | hgb
% Hemoglobin A1c | hba1c
Hemoglobin A1c/Hemoglobin.total in Blood | hba1c
Red Blood Cells | rbc
Erythrocytes [#/volume] in Blood by Automated count | rbc
Erythrocyte distribution width [Ratio] by Automated count | rdw_cv
RDW | rdw_cv
Platelets [#/volume] in Blood by Automated count | plt
platelets x 1000 | plt
Alanine Aminotransferase (ALT) | alt
ALT (SGPT) | alt
Asparate Aminotransferase (AST) | ast
AST (SGOT) | ast
alkaline phos. | alkaline_phosphatase
Bilirubin, Total | total_bilirubin
Bilirubin.total [Mass/volume] in Serum or Plasma | total_bilirubin
Bilirubin, Direct | direct_bilirubin
Urea Nitrogen | urea_nitrogen
BUN | urea_nitrogen
Calcium, Total | calcium
Free Calcium | ionized_calcium
Potassium, Whole Blood | potassium
Potassium [Moles/volume] in Serum or Plasma | potassium
Chloride [Moles/volume] in Blood | chloride
HCO3 | bicarbonate
Calculated Total CO2 | total_co2
Anion gap in Serum or Plasma | anion_gap
bedside glucose | glucose
Glucose [Mass/volume] in Urine by Test strip | urine_glucose
Glucose (Urine) | urine_glucose
Creatinine, Urine | urine_creatinine
pH (Urine) | urine_ph
pH of Arterial blood | pH
paCO2 | pco2
Carbon dioxide [Partial pressure] in Arterial blood | pco2
Oxygen [Partial pressure] in Blood | po2
Base Excess | base_excess
Base excess in Arterial blood by calculation | base_excess
Oxygen saturation in Arterial blood by Pulse oximetry | oxygen_saturation
INR(PT) | inr
PT - INR | inr
PTT | aptt
NTproBNP | nt_probnp
Troponin T.cardiac [Mass/volume] in Serum or Plasma | troponin_t
C-Reactive Protein | crp
Cholesterol in LDL [Mass/volume] in Serum or Plasma by Direct assay | ldl_cholesterol
Low Density Lipoprotein Cholesterol | ldl_cholesterol
Thyrotropin [Units/volume] in Serum or Plasma | tsh
Thyroxine (T4) free [Mass/volume] in Serum or Plasma | free_t4
25-hydroxyvitamin D3 [Mass/volume] in Serum or Plasma | vitamin_d
Iron Binding Capacity, Total | iron_binding_capacity
Microalbumin Creatinine Ratio | urine_albumin_creatinine_ratio
Systolic blood pressure--sitting | systolic_blood_pressure
Heart rate | heart_rate
Respiratory rate | respiratory_rate
Body temperature | temperature
Body Weight | weight
Body mass index (BMI) [Ratio] | bmi
Pain severity - 0-10 verbal numeric rating [Score] - Reported | pain_score
\u8840\u7ea2\u86cb\u767d | hgb
\u808c\u9150 | creatinine
Glucose, CSF | -
Glucose (Pleural) | -
Sodium (Stool) | -
Oxygen [Partial pressure] in Venous blood | -
Nitrite [Presence] in Urine by Test strip | -
Leukocytes [Presence] in Urine | -
Blood | -
Hold Blue Top | -
"""


@pytest.mark.parametrize("line", NAMES.splitlines())
def test_names_as_hospitals_and_standards_write_them(line: str) -> None:
    name, _, wanted = line.rpartition(" | ")
    found = common().find(name)
    assert (found.name if found else "-") == wanted


@pytest.mark.parametrize(
    ("name", "unit", "wanted"),
    [
        ("Neutrophils", "%", "neutrophil_ratio"),
        ("Neutrophils", "K/uL", "neutrophil_count"),
        ("-lymphs", "%", "lymphocyte_ratio"),
        ("Absolute Lymphocyte Count", "K/uL", "lymphocyte_count"),
        ("Reticulocyte Count, Automated", "%", "reticulocyte_ratio"),
        ("Reticulocyte Count, Absolute", "m/uL", "reticulocyte_count"),
        ("Temperature", "\u00b0C", "temperature"),
        ("Hemoglobin", "fL", None),
        ("Temperature", "\u00b0F", "temperature"),
        ("Temperature", "kPa", None),
    ],
)
def test_the_unit_tells_indicators_of_one_name_apart(name: str, unit: str, wanted: str | None) -> None:
    found = common().find(name, unit)
    assert (found.name if found else None) == wanted


def test_the_code_goes_before_the_name() -> None:
    assert getattr(common().find("Glucose", "mg/dL", "5792-7"), "name", "") == "urine_glucose"
    assert getattr(common().find("GLU*", "mg/dL", " 2345-7 "), "name", "") == "glucose"
    assert common().find("Glucose", "fL", "2345-7") is None
    assert getattr(common().find("Glucose", "mg/dL", "L-4711"), "name", "") == "glucose"


def test_no_two_indicators_of_the_catalogue_have_the_same_words_or_codes() -> None:
    owners = defaultdict(set)
    for indicator in common().schema.indicators:
        for code in indicator.codes:
            owners[code].add(indicator.name)
        for name in (indicator.name, *indicator.synonyms):
            assert common().find(name) is indicator, name
    assert [code for code, names in owners.items() if len(names) > 1] == []


def test_codes_have_loincs_check_digits() -> None:
    """LOINC Users' Guide, appendix on check digits (Mod 10): catches mistyped codes."""
    for code in common().by_code:
        digits, check = code.split("-")
        odd, even = digits[::-1][0::2], digits[::-1][1::2]
        total = sum(map(int, str(int(odd) * 2) + even))
        assert (10 - total % 10) % 10 == int(check), code


def test_the_catalogue_has_the_papers_indicators_with_their_names_units_and_bounds() -> None:
    by_name = {each.name: each for each in common().schema.indicators}
    for each in Schema.load(OBSTETRIC).indicators:
        same = by_name[each.name]
        assert (same.unit, same.low, same.high) == (each.unit, each.low, each.high)
        assert {name.casefold() for name in each.synonyms} <= {name.casefold() for name in same.synonyms}


def test_every_unit_of_the_catalogue_can_be_parsed() -> None:
    for each in common().schema.indicators:
        assert not each.unit or is_unit(each.unit), each
        assert conversion(each.unit, each) == IDENTITY


def test_molar_masses_are_those_of_the_molecules() -> None:
    """IUPAC atomic weights (2021), by formula."""
    weights = {"H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999, "I": 126.904}
    formulas = {
        "glucose": "C6 H12 O6", "creatinine": "C4 H7 N3 O1", "total_bilirubin": "C33 H36 N4 O6",
        "urate": "C5 H4 N4 O3", "urea": "C1 H4 N2 O1", "urea_nitrogen": "N2", "total_cholesterol": "C27 H46 O1",
        "cortisol": "C21 H30 O5", "free_t4": "C15 H11 I4 N1 O4", "total_t3": "C15 H12 I3 N1 O4", "lactate": "C3 H6 O3",
        "ammonia": "N1 H3", "folate": "C19 H19 N7 O6", "vitamin_d": "C27 H44 O2", "digoxin": "C41 H64 O14",
    }  # fmt: skip
    by_name = {each.name: each for each in common().schema.indicators}
    for name, formula in formulas.items():
        mass = sum(weights[part.rstrip("0123456789")] * int(part.lstrip("CHNOI")) for part in formula.split())
        assert by_name[name].molar_mass == pytest.approx(mass, rel=1e-4), name


@pytest.mark.parametrize(
    ("text", "name", "unit"),
    [
        ("hemoglobin (g/dL)", "hemoglobin", "g/dL"),
        ("WBC [10^9/L]", "WBC", "10^9/L"),
        ("Alanine Aminotransferase (ALT)", "Alanine Aminotransferase (ALT)", ""),
        ("(g/dL)", "(g/dL)", ""),
        ("hgb", "hgb", ""),
    ],
)
def test_a_unit_in_brackets_is_no_part_of_a_name(text: str, name: str, unit: str) -> None:
    assert split_name(text) == (name, unit)


@given(st.text(max_size=300), st.text(max_size=30), st.text(max_size=20))
def test_any_text_is_read_without_an_error(name: str, unit: str, code: str) -> None:
    found = common().find(name, unit, code)
    assert found is None or found in common().schema.indicators
    split_name(name)


def test_a_schema_of_ones_own_is_a_catalogue_too() -> None:
    catalogue = Catalogue(Schema.load(OBSTETRIC))
    assert getattr(catalogue.find("Hemoglobin [Mass/volume] in Blood", "g/dL"), "name", "") == "hgb"
    assert catalogue.find("Ferritin") is None
