from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env.cohort import Cohort, CohortError, Patient
from pmlm_env.cohort.schema import Schema
from pmlm_env.cohort.sections import headings_of, keep_sections, with_sections
from pmlm_env.cohort.sources.mimic_iv import HEADINGS, INSTRUCTIONS
from tests.cohort.sources.hospital import hospital

_DIAGNOSIS, _ADVICE = "\u51fa\u9662\u8bca\u65ad", "\u51fa\u9662\u533b\u5631"
_ANEMIA, _REST = "\u8d2b\u8840", "\u4f11\u606f"


@pytest.mark.parametrize(
    ("letter", "name", "section"),
    [
        ("Diagnosis: Anemia.\nPlan: Iron.\nSee you.", "Diagnosis", "Anemia."),
        ("Diagnosis: Anemia.\nPlan: Iron.\nSee you.", "plan", "Iron.\nSee you."),
        ("DIAGNOSIS\nAnemia\n\nPLAN\nIron: daily\n", "Plan", "Iron: daily"),
        ("Discharge Diagnosis:\nAnemia\nDischarge Instructions:\nRest\n", "Discharge Diagnosis", "Anemia"),
        ("# Letter\n## Plan\nIron\n### Doses\nTwice\n## Follow-up\nMay\n", "Plan", "Iron\n### Doses\nTwice"),
        ("**Plan:** Iron\n**Follow-up:** May", "Plan", "Iron"),
        ("**Plan**\nIron\n**Follow-up**\nMay", "Plan", "Iron"),
        ("1. Diagnosis:\nAnemia\n2. Plan:\nIron", "Diagnosis", "Anemia"),
        ("1) DIAGNOSIS: Anemia\n2) PLAN: Iron", "Diagnosis", "Anemia"),
        ("[Plan] Iron\n[Follow-up] May", "Plan", "Iron"),
        (f"\u3010{_DIAGNOSIS}\u3011{_ANEMIA}\n\u3010{_ADVICE}\u3011{_REST}", _ADVICE, _REST),
        (f"{_DIAGNOSIS}\uff1a{_ANEMIA}\n{_ADVICE}\uff1a{_REST}", _DIAGNOSIS, _ANEMIA),
        (f"\u4e00\u3001{_DIAGNOSIS}\uff1a\n{_ANEMIA}\n\u4e8c\u3001{_ADVICE}\uff1a\n{_REST}", _DIAGNOSIS, _ANEMIA),
        ("Plan: A\nOther: B\nPlan: C", "Plan", "A\n\nC"),
        ("The plan: rest.\nPlan to rest.", "Plan", ""),
        ("Plan:\n\nDiagnosis:\nAnemia", "Plan", ""),
        ("", "Plan", ""),
    ],
)  # fmt: skip
def test_a_section_ends_at_the_next_heading_in_the_same_form(letter: str, name: str, section: str) -> None:
    assert keep_sections(letter, [name]) == section


def test_a_heading_of_another_form_belongs_to_the_section() -> None:
    letter = "DISCHARGE INSTRUCTIONS:\nRest.\nWarning signs:\n- fever\nActivity: as tolerated\nFOLLOW-UP:\nMay"
    assert keep_sections(letter, ["Discharge instructions"]).endswith("Activity: as tolerated")


def test_sections_stand_in_the_letters_order_whatever_the_order_of_the_names() -> None:
    letter = "Diagnosis: Anemia.\nHistory: long\nPlan: Iron."
    assert keep_sections(letter, ["Plan", "Diagnosis"]) == keep_sections(letter, ["Diagnosis", "Plan"])


def test_known_headings_alone_end_a_section() -> None:
    letter = "Discharge Instructions:\nDear Ms. ___,\n\nMedication Changes:\n- none\n \nFollowup Instructions:\n___"
    assert keep_sections(letter, INSTRUCTIONS, HEADINGS) == "Dear Ms. ___,\n\nMedication Changes:\n- none"


def test_the_instructions_of_a_discharge_summary_are_found_whole() -> None:
    for person in hospital(5):
        for stay in person.stays:
            assert keep_sections(stay.summary(person.sex), INSTRUCTIONS, HEADINGS) == stay.instructions


@given(st.text(alphabet="aA:\n #*[]\u3010\u3011.1", max_size=200))
def test_sections_are_parts_of_any_letter(letter: str) -> None:
    kept = keep_sections(letter, ["a", "A a"])
    assert all(word in letter for word in kept.split())
    assert len(headings_of(letter)) == len(set(headings_of(letter)))


def _cohort(*letters: str) -> Cohort:
    schema = Schema.load("obstetric")
    values = np.full((1, len(schema.indicators)), 1.0)
    day = np.array(["2021-01-01"], dtype="datetime64[D]")
    return Cohort(
        tuple(Patient(str(k), "normal", letter, day[0], day, values) for k, letter in enumerate(letters)), schema
    )


def test_references_are_cut_and_those_without_the_section_counted() -> None:
    cohort, line = with_sections(_cohort("Diagnosis: A\nPlan: B", "Plan: C", "Nothing.", ""), ["Plan"])
    assert [patient.reference for patient in cohort] == ["B", "C", "", ""]
    assert "2; without these sections, and now empty: 1" in line


def test_a_section_that_no_letter_has_is_refused_with_the_headings_there_are() -> None:
    with pytest.raises(CohortError, match=r"no reference has a section 'Plan' .*Diagnosis, Therapy"):
        with_sections(_cohort("Diagnosis: A\nTherapy: B", "Diagnosis: A"), ["Plan"])
