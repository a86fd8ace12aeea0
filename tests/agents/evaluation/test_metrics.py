"""Scores of replies, compared with direct calls of sacreBLEU and rouge-score, and with manual calculations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from agents.evaluation.metrics import METRICS, ReplyMetrics, text_scores
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.envs.lite.reward import word_f1
from pmlm_env.rewards.base import ScoredReply
from pmlm_env.rewards.components import Components, contrast_letters
from tests.schemas import LABELS
from tests.standins import WordScorer

pytestmark = pytest.mark.usefixtures("hashed_sentences")

DIABETES = (Label("diabetes"), Label("gestational diabetes"))
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
    # Matches: 5 of 6 unigrams, 3 of 5 bigrams, 2 of 4 trigrams, 1 of 3 4-grams; no brevity penalty or smoothing.
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
    # The two texts of four words share the stems rest, women, walk, and one bigram, "women walk".
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


def test_chinese_counts_characters() -> None:
    scores = text_scores(["血糖5.1，休息"], ["休息，血糖 5.1"], "zh-CN")
    # Six tokens each, of which three in a row have the same order: 血, 糖, 5.1 beside the comma, 休, 息.
    assert (scores.rouge1[0], scores.rougeL[0]) == (1.0, 0.5)
    assert scores.rouge2[0] == pytest.approx(3 / 5)
    assert 0 < scores.bleu4[0] < 1


def test_a_perfect_chinese_reply_scores_one_and_one_without_a_common_character_zero() -> None:
    letter = "出院诊断：妊娠期糖尿病。建议：休息。"
    scores = text_scores([letter, "好", ""], [letter] * 3, "zh")
    for values in (scores.bleu4, scores.rouge1, scores.rouge2, scores.rougeL):
        assert values.tolist() == [1.0, 0.0, 0.0]


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


def _named(reply: str, label: str, labels: Sequence[Label]) -> tuple[bool, bool]:
    """Whether a reply names the patient's condition, and whether it names another one."""
    episode = replace(lite_episodes({"train": 1})[0], label=label)
    names = ("diagnosis_named", "wrong_diagnosis_named")
    components = Components(names, WordScorer(), conditions=labels)  # type: ignore[arg-type]
    right, wrong = components([ScoredReply(reply, episode, episode.prompt, False, reply)]).values()
    return bool(right[0]), bool(wrong[0])


@pytest.mark.parametrize(
    ("reply", "label", "labels", "right", "wrong"),
    [
        ("Diagnosis: GDM.", "gestational diabetes", LABELS, True, False),  # an alias
        ("GDM, perhaps also preeclampsia.", "gestational diabetes", LABELS, True, True),
        ("Gestational diabetes.", "gestational diabetes", DIABETES, True, False),  # another label is within it
        ("Gestational diabetes.", "diabetes", DIABETES, False, True),
        ("Normal pregnancy, no evidence of thalassemia or gestational diabetes.", "normal", LABELS, True, False),
        ("This may be thalassemia.", "normal", LABELS, False, True),
        ("No abnormal findings.", "uterine scar", LABELS, False, True),
        ("Anaemia.", "anaemia", (Label("gout"),), True, False),  # not one of the labels
        ("", "anaemia", (Label("gout"),), False, False),
    ],
)
def test_the_right_and_any_wrong_condition_are_found_by_name_and_alias(
    reply: str, label: str, labels: Sequence[Label], right: bool, wrong: bool
) -> None:
    assert _named(reply, label, labels) == (right, wrong)


def _patients(n: int = 30) -> tuple[EpisodeSet, EpisodeSet]:
    """Test and training patients, whose letters all differ."""
    everybody = lite_episodes({"train": n, "test": 6})
    everyone = EpisodeSet([replace(e, reference=f"{e.reference} Yours, {e.patient_id}.") for e in everybody])
    return everyone.of("test"), everyone.of("train")


def _measured(test: EpisodeSet, training: EpisodeSet, replies: Sequence[str]) -> dict[str, np.ndarray]:
    return ReplyMetrics(test, training, WordScorer())(replies, [e.prompt for e in test])  # type: ignore[arg-type]


def test_every_metric_has_a_value_a_patient() -> None:
    test, training = _patients()
    values = _measured(test, training, [e.prompt for e in test])
    assert tuple(values) == METRICS
    assert {column.shape for column in values.values()} == {(6,)}
    assert {column.dtype for column in values.values()} == {np.dtype(np.float64)}


def test_the_margin_is_the_own_letters_f1_minus_the_mean_of_the_others() -> None:
    test, training = _patients()
    replies = [f"{e.predicted}. Rest, and come again. {e.prompt}" for e in test]
    margin = _measured(test, training, replies)["margin"]
    for episode, reply, value in zip(test, replies, margin, strict=True):
        others = [word_f1(reply, letter) for letter in contrast_letters(episode, training)]
        assert len(others) == 8
        assert value == pytest.approx(word_f1(reply, episode.reference) - sum(others) / 8, abs=1e-6)


def test_the_margin_of_one_letter_for_everybody_is_not_that_of_the_right_letter() -> None:
    test, training = _patients(200)
    own = _measured(test, training, [e.reference for e in test])["margin"]
    stock = _measured(test, training, [training[0].reference] * 6)["margin"]
    assert own.min() > 0.1
    assert stock.mean() < own.mean() / 2


def test_letters_to_compare_with_hang_on_the_patient_alone() -> None:
    test, training = _patients()
    letters = [contrast_letters(episode, training) for episode in test]
    assert len({frozenset(some) for some in letters}) == 6  # a different draw for each patient
    replies = [e.prompt for e in test]
    whole = _measured(test, training, replies)["margin"]
    for i, episode in enumerate(test):
        assert contrast_letters(replace(episode, words=("Else.",), roles=("self",)), training) == letters[i]
        assert _measured(EpisodeSet([episode]), training, [replies[i]])["margin"] == pytest.approx(whole[i])


def test_letters_to_compare_with_are_eight_different_patients_of_other_labels() -> None:
    test, training = _patients()
    label_of = {e.reference: e.label for e in training}
    for episode in [*test, *training]:  # a training patient's own letter has their label too
        letters = contrast_letters(episode, training)
        assert len(set(letters)) == 8
        assert episode.label not in {label_of[letter] for letter in letters}


def test_where_there_are_fewer_letters_all_are_taken_and_without_any_there_is_no_margin() -> None:
    test, training = _patients()
    others = [e for e in training if e.label != test[0].label]
    few = EpisodeSet([*others[:3], replace(others[4], reference=" "), replace(others[5], label=test[0].label)])
    assert sorted(contrast_letters(test[0], few)) == sorted(e.reference for e in others[:3])
    alike = EpisodeSet([replace(e, label=test[0].label) for e in training])
    assert contrast_letters(test[0], alike) == ()
    patients = EpisodeSet([test[0], replace(test[1], label="another"), test[0]])
    margin = _measured(patients, alike, ["Rest."] * 3)["margin"]
    assert np.isnan(margin).tolist() == [True, False, True]


def test_a_copy_is_measured_against_the_prompt_that_was_asked() -> None:
    test, training = _patients()
    prompts = [f"Other words {i}" for i in range(6)]
    metrics = ReplyMetrics(test, training, WordScorer())  # type: ignore[arg-type]
    assert metrics(prompts, prompts)["copy"].tolist() == [1.0] * 6
    assert metrics(["Nothing"] * 6, prompts)["copy"].tolist() == [0.0] * 6


def test_words_and_cut_replies_are_counted() -> None:
    test, training = _patients()
    metrics = ReplyMetrics(test, training, WordScorer())  # type: ignore[arg-type]
    replies = ["one", "one two", "", "one\n two  three", "a-b", "a , b"]
    assert metrics(replies, replies)["words"].tolist() == [1, 2, 0, 3, 1, 3]
    assert metrics(replies, replies)["cut"].tolist() == [0] * 6
    assert metrics(replies, replies, [True, False] * 3)["cut"].tolist() == [1, 0] * 3


def test_a_condition_is_named_or_not_patient_by_patient() -> None:
    test, training = _patients()
    right = _measured(test, training, [f"It is {e.label}." for e in test])
    a, b = sorted({*test.labels} - {"normal"})[:2]
    both = EpisodeSet([replace(test[0], label=a), replace(test[1], label=b)])
    values = _measured(both, training, [f"It is {a}.", f"It is {a}."])
    assert values["diagnosis_named"].tolist() == [1, 0]
    assert values["wrong_diagnosis_named"].tolist() == [0, 1]
    assert right["wrong_diagnosis_named"].tolist() == [0] * 6


def test_a_condition_is_named_by_the_aliases_that_the_set_knows() -> None:
    test, training = _patients()
    a, b = sorted({*test.labels} - {"normal"})[:2]
    both = [replace(test[0], label=a), replace(test[1], label=b)]
    known = EpisodeSet(both, [Label(b, ("the other one",)), Label("unheard of", ("an alias",))])
    replies = ["It is the other one, and has an alias."] * 2
    values = _measured(known, training, replies)
    assert values["diagnosis_named"].tolist() == [0, 1]
    assert values["wrong_diagnosis_named"].tolist() == [1, 0]
    unknown = _measured(EpisodeSet(both), training, replies)
    assert unknown["diagnosis_named"].tolist() == unknown["wrong_diagnosis_named"].tolist() == [0, 0]
