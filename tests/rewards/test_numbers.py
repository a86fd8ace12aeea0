"""The share of a reply's numbers that stand in its prompt."""

from __future__ import annotations

import math

import pytest

from pmlm_env.rewards.numbers import numbers_right

PROMPT = "Hemoglobin 98 g/L (low), glucose 5.10 mmol/L, platelets 1,200 x10^9/L, pressure 121/79, on 2024-03-15. z -2.1"


@pytest.mark.parametrize(
    ("reply", "share"),
    [
        ("Hemoglobin is 98 g/L.", 1),
        ("Hemoglobin is 98.", 1),
        ("Hemoglobin is 98.0 g/L.", 1),
        ("Hemoglobin is 98g/L.", 1),
        ("Hemoglobin:98g/L", 1),
        ("**98** 121", 1),
        ("**10** 98", 1 / 2),
        ("Hemoglobin is 98.4 g/L.", 0),
        ("Hemoglobin is 89 g/L.", 0),
        ("Hemoglobin is 980 g/L.", 0),
        ("Glucose is 5.1 mmol/L and hemoglobin 98 g/L.", 1),
        ("Glucose is 5.2 mmol/L and hemoglobin 98 g/L.", 1 / 2),
        ("Glucose is 5.1, 5.1, 5.1 and 6.", 3 / 4),
        ("Glucose is 5,1.", 0),  # two numbers, 5 and 1
        ("Platelets are 1200 x10^9/L.", 1),
        ("Platelets are 1,200 \u00d7 10^9/L.", 1),
        ("Platelets are 1\u202f200 x 10\u2079/L.", 1),
        ("Platelets are 1200x10*9/L.", 1),
        ("Platelets are 1 200.", 0),  # two numbers, 1 and 200
        ("Platelets are 1,200.5.", 0),
        ("Platelets are 1,2000.", 0),
        ("Blood pressure was 121/79 mmHg.", 1),
        ("Blood pressure was 121/80 mmHg.", 1 / 2),
        ("Glucose between 5.1-98.", 1),
        ("The score is -2.1.", 1),
        ("The score is \u22122.1.", 1),
        ("The score is 2.1.", 0),
        ("Seen on 15 March 2024.", 1),
        ("Seen on 15.03.2024.", 1),
        ("Seen on 3/15/2024.", 1),
        ("Seen on 2024-03-16.", 2 / 3),
        ("At .5 mg.", 0),
        ("At 50%, 5.1.", 1 / 2),
        ("血红蛋白98g/L，血糖5.2mmol/L", 1 / 2),
        ("建议：1、休息；2、复查血红蛋白98", 1),
        ("（1）休息；（2）血红蛋白为98", 1),
        ("1.休息。2.血压121/79mmHg，血小板1200×10^9/L", 1),
    ],
)
def test_a_number_is_right_if_its_value_stands_in_the_prompt(reply: str, share: float) -> None:
    assert numbers_right(reply, PROMPT) == share


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Rest well.",
        "Take two tablets.",
        "The blood gas has pH7.35, HbA1c7.2 % and v1.2.",
        "1.休息 2.补铁\n3.复查",
        "T3, HbA1c and vitamin B12 after COVID-19, per m2, SpO2, G2P1",
        "In the 3rd trimester, the 2nd visit",
        "1. Take iron. 2. Rest. 3. Return.",
        "Advice: 1. take iron; 2. rest.",
        "(1) take iron; (2) rest",
        "1) Take iron\n2) Rest",
        "  1. Take iron\n  2. Rest",
        "x10^9/L, 10^9/L, \u00d710\u2079/L",
    ],
)
def test_names_lists_ordinals_and_powers_of_ten_are_no_numbers(reply: str) -> None:
    assert math.isnan(numbers_right(reply, PROMPT))


def test_a_number_at_the_end_of_a_sentence_is_no_marker_of_a_list() -> None:
    assert numbers_right("Results: 98. The glucose is 5.1. It was low.", PROMPT) == 1
    assert numbers_right("1. Hemoglobin: 98. 2. Glucose: 5.1. 3. Rest", PROMPT) == 1


def test_without_numbers_in_the_prompt_every_number_is_wrong() -> None:
    assert numbers_right("Hemoglobin 98 g/L", "Write her note.") == 0


def test_a_long_text_is_read_in_linear_time() -> None:
    assert numbers_right("9" * 100_000 + ".1" * 100_000 + " 98", PROMPT) < 1
