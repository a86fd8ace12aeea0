"""What a text says of a condition: asserted, possible, denied, or other (not about this patient now).

Each sentence mentions gestational diabetes, unless it is in the last table; anemia, fever and infection are no labels.
"""

from __future__ import annotations

import pytest

from pmlm_env.cohort import mentioned_labels, named_labels
from tests.schemas import LABELS

POSSIBLE = """
    Possible gestational diabetes.
    Possible early gestational diabetes.
    A possible diagnosis of gestational diabetes.
    It is possible that she has gestational diabetes.
    Possibly gestational diabetes.
    The possibility of gestational diabetes was discussed.
    Probable gestational diabetes.
    This is probably gestational diabetes.
    Probable anemia and gestational diabetes.
    Suspected gestational diabetes.
    We suspect gestational diabetes.
    Suspicion of gestational diabetes.
    The glucose is suspicious for gestational diabetes.
    Likely gestational diabetes.
    The most likely diagnosis is gestational diabetes.
    Presumed gestational diabetes.
    Perhaps: gestational diabetes.
    Consider gestational diabetes.
    Also consider anemia or gestational diabetes.
    Concern for gestational diabetes.
    Her laboratory tests suggest gestational diabetes.
    The curve is suggestive of gestational diabetes.
    Provisional diagnosis: gestational diabetes.
    She may have gestational diabetes.
    You might have gestational diabetes.
    She may have anemia or gestational diabetes.
    This could be gestational diabetes.
    It may well be a case of gestational diabetes.
    She seems to have gestational diabetes.
    We cannot rule out gestational diabetes.
    Unable to exclude gestational diabetes.
    It is too early to rule out gestational diabetes.
    It is not unlikely that this is gestational diabetes.
    It is not certain whether she has gestational diabetes.
    It is unclear if this is gestational diabetes.
    Rule out gestational diabetes.
    Plan: rule out gestational diabetes.
    Please exclude gestational diabetes.
    r/o gestational diabetes
    High glucose, r/o gestational diabetes
    High glucose r/o gestational diabetes.
    High glucose, rule out gestational diabetes.
    c/f gestational diabetes
    I doubt that she has gestational diabetes.
    We must rule out gestational diabetes.
    Differential diagnosis: anemia, infection, gestational diabetes.
    The differential diagnosis includes infection and gestational diabetes.
    DDx: infection, gestational diabetes
    Suspected diagnoses: infection, gestational diabetes
    ? gestational diabetes
    Diagnosis: ?gestational diabetes
    Query gestational diabetes.
    Infection vs. gestational diabetes.
    Gestational diabetes vs infection.
    Gestational diabetes?
    Gestational diabetes (?)
    Gestational diabetes or infection?
    Gestational diabetes (suspected)
    Gestational diabetes: likely.
    Gestational diabetes, possible.
    Gestational diabetes suspected
    Gestational diabetes is possible.
    Gestational diabetes is very likely.
    Gestational diabetes was suspected on her glucose.
    Gestational diabetes remains a possibility.
    Gestational diabetes is the most likely diagnosis.
    Gestational diabetes may be present.
    Gestational diabetes is in the differential.
    Gestational diabetes should be considered.
    Gestational diabetes must still be ruled out.
    Gestational diabetes cannot be ruled out.
    Gestational diabetes can't be safely excluded.
    Gestational diabetes has not been ruled out.
    Gestational diabetes and infection cannot be excluded.
    Gestational diabetes is not yet confirmed.
    Gestational diabetes is not unlikely.
"""

ASSERTED = """
    The patient had no fever and was diagnosed with gestational diabetes.
    Your baby was not harmed and you recovered from gestational diabetes.
    She is a 28-year-old with no past medical history admitted with gestational diabetes.
    There are no deficits after gestational diabetes.
    The mother had gestational diabetes.
    Mother: gestational diabetes.
    She has gestational diabetes.
    Gestational diabetes: yes
    Gestational diabetes? Yes.
    The findings are consistent with gestational diabetes.
    She has a history of gestational diabetes.
    The leaflet lists possible complications of gestational diabetes.
    Possible worsening of gestational diabetes.
    There may be effects of gestational diabetes on the baby.
    The likely cause is her gestational diabetes.
    It is possible to treat gestational diabetes by diet.
    Return as soon as possible; gestational diabetes needs care.
    Come as soon as possible with gestational diabetes.
    Where possible gestational diabetes is treated by diet.
    She may be discharged with gestational diabetes.
    She may be discharged today, gestational diabetes is controlled.
    She may eat fruit despite gestational diabetes.
    She may have a diet for gestational diabetes.
    In May gestational diabetes was found.
    We suggest a diet for gestational diabetes.
    Consider insulin for gestational diabetes.
    Considering her gestational diabetes, labor went well.
    Suspected gestational diabetes was confirmed.
    Suspected gestational diabetes, confirmed by the tolerance test.
    Gestational diabetes was suspected and then confirmed.
    Gestational diabetes, possible anemia.
    Gestational diabetes and possible anemia.
    Gestational diabetes is a possible cause of the large fetus.
    Gestational diabetes is likely to resolve after birth.
    Gestational diabetes is considered mild.
    Gestational diabetes may be controlled by diet.
    Gestational diabetes; infection cannot be excluded.
    Gestational diabetes is treated, and infection cannot be excluded.
    Possible infection and gestational diabetes is well controlled.
    Possible infection and confirmed gestational diabetes.
    She is not free of gestational diabetes.
    No doubt this is gestational diabetes.
    Her course was complicated by the development of gestational diabetes.
    The weight led to the development of gestational diabetes.
    Autoantibody-negative gestational diabetes.
    HER2 negative gestational diabetes.
    Never smoker with gestational diabetes.
    She is not on anticoagulation for gestational diabetes.
    She has not responded to therapy for gestational diabetes.
    Family history: none. Gestational diabetes.
    Family history: noncontributory, gestational diabetes.
    A family history of anemia, diagnosed with gestational diabetes.
    Family history of anemia, and she has gestational diabetes.
"""

DENIED = """
    She is well, w/o gestational diabetes.
    There is a low likelihood of gestational diabetes.
    The results are inconsistent with gestational diabetes.
    No fever, infection and no gestational diabetes.
    No sign of gestational diabetes.
    No suspicion of gestational diabetes.
    There is no possible gestational diabetes.
    Gestational diabetes is unlikely.
    Gestational diabetes was suspected but ruled out.
    Gestational diabetes is no longer suspected.
    Suspected gestational diabetes was not confirmed.
    Gestational diabetes can safely be ruled out.
    Gestational diabetes has resolved.
    Infection rather than gestational diabetes.
    Gestational diabetes \u2013 ruled out.
    Gestational diabetes \u2014 unlikely
    Gestational diabetes\u2014not confirmed
    There isn\u02bct any gestational diabetes.
    Glucose test neg for gestational diabetes.
    History of gestational diabetes: neg
    Nil gestational diabetes.
    Gestational diabetes is felt to be unlikely.
    Gestational diabetes could not be found.
    Gestational diabetes r/o'd.
    We r/o'd gestational diabetes.
"""

OTHER = """
    Family history: gestational diabetes in the sister.
    Family history significant for gestational diabetes.
    FHx of gestational diabetes.
    Sister: gestational diabetes.
    Her mother also had gestational diabetes.
    Her mother and sister had gestational diabetes.
    Your daughter has gestational diabetes.
    Both parents are carriers of gestational diabetes.
    She is at risk of gestational diabetes.
    A diet prevents the development of gestational diabetes.
    It may be complicated by development of gestational diabetes.
    If you develop gestational diabetes, come back.
    Watch for gestational diabetes.
    A glucose test to rule out gestational diabetes.
    Screening for gestational diabetes is planned.
    Her sister has gestational diabetes.
    Her sisters have gestational diabetes.
    Her son and daughter have gestational diabetes.
    Siblings: gestational diabetes.
    Family history: anemia, fever, gestational diabetes.
    FHx: father with anemia, mother with gestational diabetes.
    Family history of anemia, fever and gestational diabetes.
    Fam hx: gestational diabetes
    Do you have gestational diabetes?
"""


def _sentences(table: str) -> list[str]:
    return [line.strip() for line in table.strip().splitlines()]


@pytest.mark.parametrize(
    ("text", "status"),
    [(text, "possible") for text in _sentences(POSSIBLE)]
    + [(text, "asserted") for text in _sentences(ASSERTED)]
    + [(text, "denied") for text in _sentences(DENIED)]
    + [(text, "other") for text in _sentences(OTHER)],
)
def test_the_status_of_a_mention_is_what_its_sentence_says(text: str, status: str) -> None:
    assert mentioned_labels(text, LABELS) == {"gestational diabetes": status}


@pytest.mark.parametrize("text", _sentences(POSSIBLE))
def test_a_possible_condition_counts_as_named(text: str) -> None:
    assert named_labels(text, LABELS) == {"gestational diabetes"}


@pytest.mark.parametrize(
    ("text", "thalassemia", "diabetes"),
    [
        ("A risk of anemia or thalassemia, and gestational diabetes.", "other", "other"),
        ("If you develop anemia or thalassemia and gestational diabetes, come back.", "other", "other"),
        ("No thalassemia, and gestational diabetes.", "denied", "asserted"),
        ("Screened for thalassemia, and gestational diabetes was found.", "other", "asserted"),
        ("Possible thalassemia, gestational diabetes confirmed.", "possible", "asserted"),
        ("Possible thalassemia or gestational diabetes.", "possible", "possible"),
        ("Thalassemia or gestational diabetes?", "possible", "possible"),
        ("Thalassemia versus gestational diabetes", "possible", "possible"),
        ("Thalassemia and gestational diabetes are suspected.", "possible", "possible"),
        ("Thalassemia and gestational diabetes cannot be excluded.", "possible", "possible"),
        ("Differential: thalassemia, gestational diabetes.", "possible", "possible"),
        ("She has thalassemia and possible gestational diabetes.", "asserted", "possible"),
        ("No thalassemia, possible gestational diabetes.", "denied", "possible"),
        ("The patient does not have thalassemia and has gestational diabetes.", "denied", "asserted"),
        ("Thalassemia is unlikely; gestational diabetes is likely.", "denied", "possible"),
        ("The risk of thalassemia or gestational diabetes is low.", "other", "other"),
        ("We cannot rule out thalassemia, but gestational diabetes was excluded.", "possible", "denied"),
    ],
)
def test_each_condition_has_its_own_status(text: str, thalassemia: str, diabetes: str) -> None:
    assert mentioned_labels(text, LABELS) == {"thalassemia": thalassemia, "gestational diabetes": diabetes}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("A risk of uterine rupture, thalassemia and gestational diabetes.", "other"),
        ("If you develop uterine rupture, thalassemia, and gestational diabetes, come back.", "other"),
        ("No uterine rupture, thalassemia and gestational diabetes.", "denied"),
        ("Uterine rupture, thalassemia and gestational diabetes.", "asserted"),
    ],
)
def test_the_last_of_a_list_has_the_status_of_the_others(text: str, status: str) -> None:
    assert mentioned_labels(text, LABELS) == dict.fromkeys(
        ("uterine rupture", "thalassemia", "gestational diabetes"), status
    )


@pytest.mark.parametrize("marker", ["- ", "* ", "\u2022 ", "2. ", "  3) "])
@pytest.mark.parametrize(
    ("heading", "status"),
    [
        ("Diagnoses:", "asserted"),
        ("The patient has:", "asserted"),
        ("Complications, none of which was treated.", "asserted"),
        ("Differential diagnosis:", "possible"),
        ("Rule out:", "possible"),
        ("**Ruled out:**", "denied"),
        ("No evidence of:\n", "denied"),
        ("The patient does not have:", "denied"),
        ("The following were excluded:", "denied"),
        ("Family history:", "other"),
        ("Come back if you have any of the following signs:", "other"),
        ("# Watch for:", "other"),
    ],
)
def test_a_heading_holds_for_all_items_of_its_list(heading: str, status: str, marker: str) -> None:
    text = f"{heading}\n{marker}anemia\n{marker}Gestational diabetes\n\nPlan:\n{marker}treat thalassemia"
    assert mentioned_labels(text, LABELS) == {"gestational diabetes": status, "thalassemia": "asserted"}
    windows = text.replace("\n", "\r\n")
    assert mentioned_labels(windows, LABELS) == mentioned_labels(text, LABELS)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Ruled out:\n- anemia\nShe has gestational diabetes.", "asserted"),
        ("Ruled out:\nAnemia was.\n- gestational diabetes", "asserted"),
        ("1. Suspected infection:\n  - fever\n2. Gestational diabetes", "asserted"),
        ("1. Present:\n  - fever\n2. Ruled out:\n  - gestational diabetes", "denied"),
        ("Possible causes:\n- gestational diabetes: confirmed", "asserted"),
        ("Diagnoses:\n- gestational diabetes (ruled out)", "denied"),
    ],
)
def test_a_heading_holds_for_its_own_list_only_and_an_item_may_say_more(text: str, status: str) -> None:
    assert mentioned_labels(text, LABELS) == {"gestational diabetes": status}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Gestational diabetes? We found gestational diabetes.", "asserted"),
        ("No gestational diabetes at first, later suspected gestational diabetes.", "possible"),
        ("Watch for gestational diabetes. There is no gestational diabetes now.", "denied"),
    ],
)
def test_of_several_mentions_the_strongest_counts(text: str, status: str) -> None:
    assert mentioned_labels(text, LABELS)["gestational diabetes"] == status


def test_a_label_without_a_finding_is_left_out_beside_a_possible_diagnosis_and_stays_beside_a_denied_one() -> None:
    assert mentioned_labels("No abnormality; possible thalassemia.", LABELS) == {"thalassemia": "possible"}
    expected = {"thalassemia": "denied", "normal": "asserted"}
    assert mentioned_labels("Thalassemia was excluded, no abnormality.", LABELS) == expected


def test_a_text_that_mentions_no_label_has_no_status() -> None:
    assert mentioned_labels("Rest well.", LABELS) == {}
