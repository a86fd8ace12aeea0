"""Scores of replies against what sacreBLEU and rouge-score say, called apart, and against sums done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from agents.evaluation.metrics import diagnosis_named, text_scores, wrong_diagnosis_named

REFERENCES = [
    "Discharge diagnosis: gestational diabetes. Follow a diabetic diet and monitor fasting glucose.",
    "Normal pregnancy. Continue routine antenatal visits.",
    "Thalassemia. Recheck haemoglobin every month.",
]
REPLIES = [
    "The diagnosis is gestational diabetes. Please follow a diabetic diet.",
    "Take care.",
    "Thalassemia. Recheck haemoglobin each month, and rest.",
]


def test_bleu_is_that_of_sacrebleu() -> None:
    alone = [sacrebleu.sentence_bleu(reply, [ref]).score / 100 for reply, ref in zip(REPLIES, REFERENCES, strict=True)]
    np.testing.assert_allclose(text_scores(REPLIES, REFERENCES).bleu4, alone)


def test_bleu_of_a_worked_example() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples; no brevity penalty, nothing to smooth.
    scores = text_scores(["the cat sat on a mat"], ["the cat sat on the mat"])
    assert scores.bleu4[0] == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_bleu_punishes_brevity() -> None:
    scores = text_scores(["the cat sat on"], ["the cat sat on the mat"])
    assert scores.bleu4[0] == pytest.approx(math.exp(1 - 6 / 4))


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_that_of_rouge_score(name: str) -> None:
    scorer = rouge_scorer.RougeScorer([name], use_stemmer=True)
    alone = [scorer.score(ref, reply)[name].fmeasure for reply, ref in zip(REPLIES, REFERENCES, strict=True)]
    np.testing.assert_allclose(getattr(text_scores(REPLIES, REFERENCES), name), alone)


def test_rouge_of_a_worked_example_with_stems() -> None:
    scores = text_scores(["resting women walk daily"], ["rest and women walked"])
    # rest, women, walk are shared by two texts of four words; of pairs only "women walk".
    assert scores.rouge1[0] == pytest.approx(3 / 4)
    assert scores.rouge2[0] == pytest.approx(1 / 3)
    assert scores.rougeL[0] == pytest.approx(3 / 4)


def test_rouge_l_minds_the_order() -> None:
    scores = text_scores(["diet walk"], ["walk diet"])
    assert (scores.rouge1[0], scores.rougeL[0]) == (1.0, 0.5)


def test_a_perfect_reply_scores_exactly_one_and_an_empty_one_zero() -> None:
    scores = text_scores([REFERENCES[0], ""], REFERENCES[:2])
    for values in (scores.bleu4, scores.rouge1, scores.rouge2, scores.rougeL):
        assert values.tolist() == [1.0, 0.0]


def test_means_are_over_replies() -> None:
    scores = text_scores(REPLIES, REFERENCES)
    assert scores.means() == {
        name: pytest.approx(sum(getattr(scores, name).tolist()) / 3) for name in ("bleu4", "rouge1", "rouge2", "rougeL")
    }


def test_a_reply_scores_the_same_in_any_company() -> None:
    together = text_scores(REPLIES, REFERENCES)
    alone = text_scores(REPLIES[2:], REFERENCES[2:])
    assert (together.bleu4[2], together.rougeL[2]) == (alone.bleu4[0], alone.rougeL[0])


@pytest.mark.parametrize(("replies", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_lists_that_do_not_match_are_refused(replies: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match=rf"{len(replies)} replies against {len(references)} references"):
        text_scores(replies, references)


def test_a_blank_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="2 references are blank, the first at index 1"):
        text_scores(["a", "b", "c"], ["a", " ", ""])


def test_the_right_diagnosis_is_named_by_alias_too() -> None:
    assert diagnosis_named("Diagnosis: GDM.", "gestational diabetes")
    assert not wrong_diagnosis_named("Diagnosis: GDM.", "gestational diabetes")


def test_a_wrong_diagnosis_is_named_besides_the_right_one() -> None:
    reply = "GDM, perhaps also preeclampsia."
    assert diagnosis_named(reply, "gestational diabetes")
    assert wrong_diagnosis_named(reply, "gestational diabetes")


def test_a_label_within_the_true_one_is_not_a_wrong_diagnosis() -> None:
    labels = ["diabetes", "gestational diabetes"]
    assert not wrong_diagnosis_named("Gestational diabetes.", "gestational diabetes", labels)
    assert diagnosis_named("Gestational diabetes.", "gestational diabetes", labels)


def test_a_longer_label_is_a_wrong_diagnosis_and_does_not_name_the_true_one() -> None:
    labels = ["diabetes", "gestational diabetes"]
    assert wrong_diagnosis_named("Gestational diabetes.", "diabetes", labels)
    assert not diagnosis_named("Gestational diabetes.", "diabetes", labels)


def test_a_healthy_patients_reply_that_rules_conditions_out_names_none() -> None:
    reply = "Normal pregnancy, no evidence of thalassemia or gestational diabetes."
    assert diagnosis_named(reply, "normal")
    assert not wrong_diagnosis_named(reply, "normal")


def test_a_healthy_patients_reply_that_names_a_condition_is_wrong() -> None:
    assert wrong_diagnosis_named("This may be thalassemia.", "normal")


def test_telling_a_patient_that_she_is_well_is_wrong() -> None:
    assert wrong_diagnosis_named("No abnormal findings.", "uterine scar")


def test_labels_of_ones_own_need_not_include_the_true_one() -> None:
    assert diagnosis_named("Anaemia.", "anaemia", ["gout"])
    assert not diagnosis_named("", "anaemia", ["gout"])
