"""The words of a prompt that a simulated letter depends on."""

from __future__ import annotations

import re

import pytest

from pmlm_env.cohort.schema import Cohort, Patient
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.prompting import InitialPrompt, value_slots
from tests.schemas import INDICATOR_NAMES, INDICATORS


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(120, seed=4, personal=1)


def words_of(patient: Patient, template: str = "personal") -> tuple[str, ...]:
    filled = InitialPrompt(template).fill("normal", ["normal"] * 2, {"normal": 1.0}, patient, [0.9, 0.8])
    return tuple(filled.texts)


def test_the_words_state_each_value_of_the_letter_with_its_mark(cohort: Cohort) -> None:
    marks = {"low": " (low)", "high": " (high)", "low-normal": "", "high-normal": ""}
    seen = set()
    for patient in cohort:
        words = words_of(patient)
        values = re.findall(r"(?:is|are) ([\d.]+)( \S+)?, which is ([a-z-]+)\.", patient.reference)
        names = patient.extra["personal"].split("; ")
        assert len(values) == len(names) >= 2
        for name, (value, unit, level) in zip(names, values, strict=True):
            slots = value_slots(words, patient, cohort.schema, [name])
            title = INDICATORS[INDICATOR_NAMES.index(name)].title or name.replace("_", " ")
            stated = f"{title} {float(value):g}{unit.replace('x10', '10')}{marks[level]}"
            assert " ".join(words[slot] for slot in slots).rstrip(",.") == stated
            assert slots == tuple(range(slots[0], slots[0] + len(slots)))
            seen.add(level)
        together = value_slots(words, patient, cohort.schema, names)
        assert len(together) == sum(len(value_slots(words, patient, cohort.schema, [name])) for name in names)
        assert list(together) == sorted(together)
    assert seen == marks.keys()


def test_a_prompt_without_values_has_no_such_words(cohort: Cohort) -> None:
    patient = cohort[0]
    assert value_slots(words_of(patient, "default"), patient, cohort.schema, INDICATOR_NAMES) == ()


def test_all_indicators_have_the_words_of_the_list_of_values(cohort: Cohort) -> None:
    for patient in cohort:
        words = words_of(patient)
        first = words.index("values:") + 1
        slots = value_slots(words, patient, cohort.schema, INDICATOR_NAMES)
        assert slots == tuple(range(first, first + len(slots)))
        assert words[slots[-1]].endswith(".")
