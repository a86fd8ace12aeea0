"""Whether a text says that the patient has what it mentions, sentence by sentence.

Each sentence mentions gestational diabetes or thalassemia; anemia, hypertension and fever are no labels.
"""

from __future__ import annotations

import pytest

from pmlm_env.cohort.naming.labels import named_labels
from tests.schemas import LABELS

#: What the text denies, or does not say of this patient now.
NOT_NAMED = {
    "after a colon": """
        Gestational diabetes: no.
        Gestational diabetes: No
        Gestational diabetes: negative
        Gestational diabetes: none
        Gestational diabetes: denied
        Gestational diabetes: not detected
        Gestational diabetes: no evidence found
        Gestational diabetes: ruled out
        Gestational diabetes: not applicable
        **Gestational diabetes:** No
        Gestational diabetes = neg
        Thalassemia: excluded by electrophoresis
        Thalassemia: Negative (electrophoresis normal)
    """,
    "after another mark": """
        Gestational diabetes - no
        Gestational diabetes (negative)
        Gestational diabetes (ruled out)
        Gestational diabetes (-)
        Gestational diabetes -ve
        | Gestational diabetes | No |
        Gestational diabetes....no
        Gestational diabetes? No.
    """,
    "of a test": """
        Gestational diabetes screening: negative
        Screening for gestational diabetes: negative
        Screening for gestational diabetes was negative.
        The screening for gestational diabetes came back negative.
        Negative screening for gestational diabetes.
        Negative glucose tolerance test for gestational diabetes.
        Negative gestational diabetes screen.
        She tested negative for gestational diabetes.
        Thalassemia trait: negative
        Thalassemia screening result: negative
    """,
    "before it": """
        She is free from gestational diabetes.
        She is free of gestational diabetes.
        She remains clear of gestational diabetes.
        Absence of gestational diabetes.
        There is a lack of signs of gestational diabetes.
        She lacks any sign of gestational diabetes.
        She denies gestational diabetes.
        Delivered without gestational diabetes.
        No evidence of gestational diabetes.
        There is no further evidence of gestational diabetes.
        There is no reason to suspect gestational diabetes.
        There is nothing to suggest gestational diabetes.
        She does not have gestational diabetes.
        She doesn't have gestational diabetes.
        She never had gestational diabetes.
        She no longer has gestational diabetes.
        This is not gestational diabetes.
        She is not affected by gestational diabetes.
        The values do not meet the criteria for gestational diabetes.
        The findings are not consistent with gestational diabetes.
        The results argue against gestational diabetes.
        She is unlikely to have gestational diabetes.
        The normal glucose test excludes gestational diabetes.
        The results were normal, ruling out gestational diabetes.
        A glucose test to rule out gestational diabetes.
        no h/o thalassemia
        NO THALASSEMIA
    """,
    "in a list": """
        No anemia, gestational diabetes or hypertension.
        No anemia, hypertension or gestational diabetes.
        No anemia, hypertension, or gestational diabetes.
        No anemia, thalassemia or diabetes
        No hypertension/gestational diabetes
        Without anemia, hypertension, or gestational diabetes.
        Neither anemia nor gestational diabetes was found.
        Neither fever, anemia, nor gestational diabetes
        She has no fever, no cough and no gestational diabetes.
        There was no sign of anemia or of gestational diabetes.
        She denies headache, fever, gestational diabetes.
        Ruled out: gestational diabetes.
        Excluded: anemia, gestational diabetes.
        Negative for: anemia, gestational diabetes
        Gestational diabetes and hypertension were ruled out.
        No thalassemia, uterine scar, or gestational diabetes.
        Denies thalassemia, gestational diabetes, uterine rupture.
        Thalassemia and gestational diabetes were ruled out.
        Thalassemia or gestational diabetes was not found.
        Thalassemia, uterine rupture and gestational diabetes were excluded.
        Free from thalassemia and gestational diabetes.
    """,
    "behind it": """
        Gestational diabetes was ruled out.
        Gestational diabetes (GDM) was ruled out.
        Gestational diabetes has been definitively excluded.
        Gestational diabetes can safely be ruled out.
        Gestational diabetes is unlikely.
        Gestational diabetes seems very unlikely.
        Gestational diabetes is less likely.
        Gestational diabetes was not confirmed.
        Gestational diabetes wasn't confirmed.
        Gestational diabetes has not been diagnosed.
        Gestational diabetes did not develop.
        Gestational diabetes is no longer present.
        Gestational diabetes was considered but ruled out.
        Gestational diabetes was suspected, but has been excluded.
        The diagnosis of gestational diabetes was excluded.
    """,
    "something else instead": """
        This is anemia rather than gestational diabetes.
        It is anemia, not gestational diabetes.
        Anemia instead of gestational diabetes.
        Anemia is more likely than gestational diabetes.
    """,
    "over": """
        Gestational diabetes has resolved.
        Her gestational diabetes resolved.
        Resolved gestational diabetes.
    """,
    "what may come": """
        She is at increased risk of gestational diabetes.
        Obesity raises the risk of anemia or gestational diabetes.
        The risk of thalassemia, uterine rupture or gestational diabetes is low.
        If you develop gestational diabetes, come back.
        Should you develop gestational diabetes, call us.
        If gestational diabetes is found, see a specialist.
        In case of gestational diabetes, a diet is advised.
        Eat well to prevent gestational diabetes.
        Watch for gestational diabetes.
        Screening for gestational diabetes is planned at 24 weeks.
    """,
    "a question": """
        Do you have gestational diabetes?
        Is this gestational diabetes?
        What is gestational diabetes?
    """,
    "somebody else": """
        Family history of gestational diabetes.
        Her mother had gestational diabetes.
    """,
}

#: What the text says, be it as a possibility.
NAMED = {
    "a denial denied before it": """
        We cannot rule out gestational diabetes.
        We can't safely rule out gestational diabetes.
        We could not exclude gestational diabetes.
        We have not ruled out gestational diabetes.
        Unable to exclude gestational diabetes.
        It is too early to rule out gestational diabetes.
        The absence of symptoms does not rule out gestational diabetes.
        There is no evidence to rule out gestational diabetes.
        Failed to rule out gestational diabetes.
        It is not unlikely that this is gestational diabetes.
        She does not deny gestational diabetes.
        She is not free of gestational diabetes.
        The test was not negative for gestational diabetes.
    """,
    "a denial denied behind it": """
        Gestational diabetes cannot be ruled out.
        Gestational diabetes can't be excluded.
        Gestational diabetes can hardly be ruled out.
        Gestational diabetes has not been ruled out.
        Gestational diabetes: not excluded
        Gestational diabetes is not unlikely.
        Gestational diabetes has not resolved.
    """,
    "what only looks like a denial": """
        Not only anemia but also gestational diabetes.
        Not just anemia: gestational diabetes.
        No increase in gestational diabetes.
        No change in her gestational diabetes.
        No doubt this is gestational diabetes.
        Without doubt gestational diabetes.
        There is no need to treat gestational diabetes.
        No treatment is needed for gestational diabetes.
        She does not need treatment for gestational diabetes.
        Do not ignore gestational diabetes.
        Do not stop the diet for gestational diabetes.
        She has no complications of gestational diabetes.
        No. 1: gestational diabetes
        It is not certain whether she has gestational diabetes.
    """,
    "a denial of something else": """
        Gestational diabetes: no complications.
        Gestational diabetes: no insulin needed.
        Gestational diabetes: negative impact on the baby is possible.
        Gestational diabetes without complications.
        Gestational diabetes is not controlled.
        Gestational diabetes, no hypertension.
        Gestational diabetes but no anemia.
        No fever, gestational diabetes confirmed.
        No fever but gestational diabetes.
        No complications except gestational diabetes.
        No problems other than gestational diabetes.
        No pain because of gestational diabetes.
        No proteinuria and gestational diabetes is well controlled.
        Rh negative mother with gestational diabetes.
        HIV: negative, gestational diabetes: positive
        Anemia: no, gestational diabetes: yes
        Anemia was ruled out; gestational diabetes was confirmed.
        Without treatment, gestational diabetes harms the child.
        Gestational diabetes rather than anemia.
    """,
    "said outright": """
        Gestational diabetes: yes
        Gestational diabetes (+)
        Screening for gestational diabetes was positive.
        She tested positive for gestational diabetes.
        Discharge diagnosis: gestational diabetes
    """,
    "a possibility": """
        Possible gestational diabetes
        Gestational diabetes?
        Signs of gestational diabetes.
        Consider gestational diabetes.
    """,
    "in her own history": """
        She has a history of gestational diabetes.
        If your gestational diabetes worsens, come back.
        The risk of preterm birth due to gestational diabetes.
    """,
}


def _sentences(kinds: dict[str, str]) -> list[str]:
    return [line.strip() for text in kinds.values() for line in text.strip().splitlines()]


@pytest.mark.parametrize("text", _sentences(NOT_NAMED))
def test_what_is_not_said_of_the_patient_is_not_named(text: str) -> None:
    assert named_labels(text, LABELS) == set()


@pytest.mark.parametrize("text", _sentences(NAMED))
def test_what_is_said_is_named_though_it_be_a_possibility(text: str) -> None:
    assert named_labels(text, LABELS) == {"gestational diabetes"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Thalassemia: no, gestational diabetes: yes", {"gestational diabetes"}),
        ("She has thalassemia, and gestational diabetes was ruled out.", {"thalassemia"}),
        ("Thalassemia rather than gestational diabetes.", {"thalassemia"}),
        ("Not thalassemia but gestational diabetes.", {"gestational diabetes"}),
        ("No thalassemia, gestational diabetes confirmed.", {"gestational diabetes"}),
        ("Not only thalassemia, but also gestational diabetes.", {"thalassemia", "gestational diabetes"}),
        ("We cannot rule out thalassemia or gestational diabetes.", {"thalassemia", "gestational diabetes"}),
        ("Thalassemia is unlikely; gestational diabetes is likely.", {"gestational diabetes"}),
        ("We cannot rule out uterine rupture.", {"uterine rupture"}),
        ("History of previous cesarean section.", {"uterine scar"}),
        ("Gestational diabetes was excluded, no abnormality.", {"normal"}),
    ],
)
def test_each_condition_has_its_own_answer(text: str, named: set[str]) -> None:
    assert named_labels(text, LABELS) == named


@pytest.mark.parametrize("they", ["she", "he", "they", "the patient"])
def test_a_condition_that_the_patient_may_get_is_not_named_whoever_the_patient_is(they: str) -> None:
    assert named_labels(f"Come back should {they} develop thalassemia.", LABELS) == set()


@pytest.mark.parametrize("their", ["her", "his", "their", "your"])
def test_a_condition_is_the_patients_own_or_a_relatives_whoever_the_patient_is(their: str) -> None:
    assert named_labels(f"There is no change in {their} thalassemia.", LABELS) == {"thalassemia"}
    assert named_labels(f"This does not affect {their} thalassemia.", LABELS) == {"thalassemia"}
    assert named_labels(f"Watch for changes if {their} thalassemia worsens.", LABELS) == {"thalassemia"}
    for relative in ("mother", "father", "wife", "grandfather", "parents"):
        assert named_labels(f"{their.title()} {relative} had thalassemia.", LABELS) == set()


def test_kinds_of_dash_and_apostrophe_are_of_no_account() -> None:
    assert named_labels("Gestational diabetes \u2013 absent", LABELS) == set()
    assert named_labels("She doesn\u2019t have gestational diabetes.", LABELS) == set()


def test_a_line_broken_within_a_phrase_is_read_as_one() -> None:
    assert named_labels("There is no evidence of\ngestational diabetes.", LABELS) == set()
    assert named_labels("Gestational diabetes\nwas ruled out.", LABELS) == set()
    assert named_labels("There is no fever\nGestational diabetes", LABELS) == {"gestational diabetes"}


def test_a_long_text_without_a_full_stop_is_read_too() -> None:
    text = "no " + "fever, " * 20_000 + "thalassemia" + " is" * 20_000  # rules that backtrack would take for ever
    assert named_labels(text, LABELS) == {"thalassemia"}
