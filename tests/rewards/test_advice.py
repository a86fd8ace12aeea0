"""The advice of letters, and which of it replies give."""

from __future__ import annotations

import csv
import math
import re

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks.advice import PAIRS, best_threshold, calibrate
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.encoders.sentences import SentenceEncoder
from pmlm_env.rewards.advice import THRESHOLD, Advice, advice_of, pieces_of
from pmlm_env.weights import resolve
from tests.standins import HashedSentences


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Rest well. Take iron; come back.", ("Rest well.", "Take iron", "come back.")),
        ("Hemoglobin is 9.8 g/L. Take 1.5 tablets.", ("Hemoglobin is 9.8 g/L.", "Take 1.5 tablets.")),
        ("See Dr. Lee, e.g. on Monday. Rest.", ("See Dr. Lee, e.g. on Monday.", "Rest.")),
        ("Is it sore? Call us!", ("Is it sore?", "Call us!")),
        ("1. Take iron.\n2. Rest.\n- Walk\n\u2022 Drink", ("Take iron.", "Rest.", "Walk", "Drink")),
        ("**Rest** well.\n\n# Diet\neat fruit", ("Rest well.", "Diet", "eat fruit")),
        (  # the first line break is due to the length of the line
            "The patient should come back to the clinic at once as soon as\nthe fever returns\nor the pain",
            ("The patient should come back to the clinic at once as soon as the fever returns", "or the pain"),
        ),
        ("", ()),
        ("... 12; - \n", ()),
    ],
)
def test_a_text_is_split_into_sentences_items_and_parts_between_semicolons(text: str, pieces: tuple[str, ...]) -> None:
    assert pieces_of(text) == pieces


@pytest.mark.parametrize(
    "piece",
    [
        "Take iron daily.",
        "take iron daily",
        "Please take iron.",
        "Do not lift heavy loads.",
        "Don't drive.",
        "Don\u2019t drive.",
        "You shouldn't drive.",
        "You mustn\u2019t drive.",
        "No driving for a month.",
        "Never stop it at once.",
        "Avoid alcohol.",
        "Follow-up in two weeks.",
        "Return if the wound is red.",
        "If the fever returns, call us.",
        "Diet: limit salt.",
        "Repeat the blood count in one week.",
        "You should rest.",
        "The patient must avoid salt.",
        "Smoking cessation is strongly recommended.",
        "The patient is advised to rest.",
        "We recommend a low-salt diet.",
        "The obstetrician would advise rest.",
        "Iron is to be continued.",
    ],
)
def test_imperatives_and_modals_of_advice_are_advice(piece: str) -> None:
    assert advice_of(f"Diagnosis: anemia.\n{piece}") == (piece,)


@pytest.mark.parametrize(
    "piece",
    [
        "Hemoglobin is low at 89 g/L.",
        "The wound is clean and dry.",
        "Repeat blood count was normal.",
        "Rest of the examination showed nothing.",
        "No fever.",
        "No bleeding was seen.",
        "You do not need to rest.",
        "She doesn\u2019t need to take iron.",
        "There is no need to test again.",
        "The tests suggest anemia.",
        "The loss must have been large.",
        "Complete blood count: 98.",
        "Diagnosis: complete rupture, repaired.",
    ],
)
def test_findings_are_no_advice(piece: str) -> None:
    assert advice_of(piece) == ()


@pytest.mark.parametrize(
    "heading",
    ["Advice:", "Recommendations:", "Discharge instructions:", "Plan:", "Follow-up:", "**Advice:**", "ADVICE :"],
)
def test_all_that_stands_under_a_heading_of_advice_is_advice(heading: str) -> None:
    letter = f"Diagnosis: anemia. {heading} iron daily; a visit in two weeks."
    assert advice_of(letter) == ("iron daily", "a visit in two weeks.")


def test_an_empty_line_or_another_heading_ends_the_advice() -> None:
    assert advice_of("Advice:\n\n- iron daily\n- rest\n\nDr. Lee") == ("iron daily", "rest")
    assert advice_of("Plan:\niron daily\nFindings: low iron\nTake care.") == ("iron daily", "Take care.")
    assert advice_of("Rest well. Advice: iron daily.\n\nCall us.") == ("Rest well.", "iron daily.", "Call us.")


def test_a_letter_without_advice_has_none() -> None:
    assert advice_of("Discharge diagnosis: anemia. Hemoglobin was 89 g/L.") == ()
    assert advice_of("") == ()


def test_the_advice_of_a_simulated_letter_is_all_that_follows_advice() -> None:
    for patient in simulate_cohort(200, seed=3):
        _, _, written = patient.reference.partition(" Advice: ")
        assert advice_of(patient.reference) == tuple(written.split("; "))


@pytest.mark.real
def test_embeddings_follow_the_models_own_recipe() -> None:
    texts = ["Take iron.", "Keep the wound clean and dry, and come back in two weeks.", "iron " * 400, ""]
    tokenizer, model = AutoTokenizer.from_pretrained(resolve("minilm")), AutoModel.from_pretrained(resolve("minilm"))
    batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    inside = batch["attention_mask"][..., None]
    theirs = torch.nn.functional.normalize((states * inside).sum(dim=1) / inside.sum(dim=1), dim=-1).numpy()
    np.testing.assert_allclose(SentenceEncoder("cpu").encode(texts), theirs, atol=1e-5)


@pytest.mark.parametrize(("kept", "n_encoded"), [(100, 4), (2, 11)])
def test_a_piece_is_encoded_once_while_it_is_kept_and_no_more_are_kept_than_allowed(
    kept: int, n_encoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmlm_env.rewards.advice.SentenceEncoder", HashedSentences)
    monkeypatch.setattr("pmlm_env.rewards.advice._KEPT", kept)
    advice, encoded = Advice("cpu"), []
    encode = advice._encoder.encode
    monkeypatch.setattr(advice._encoder, "encode", lambda texts: encoded.extend(texts) or encode(texts))
    for _ in range(2):
        for told in ("Take iron daily.", "Rest well. Call us."):
            found = advice.likeness(["Rest well.", "Take iron daily.", "Drink milk."], told)
            assert found.argmax() == (told == "Take iron daily.")
            assert found.max() == pytest.approx(1)
            assert len(advice._vectors) <= kept
    assert len(set(encoded)) == 4
    assert len(encoded) == n_encoded


@pytest.mark.real
def test_the_threshold_and_its_error_are_those_that_are_stated() -> None:
    result = calibrate()
    assert result.threshold == THRESHOLD
    shares = (result.accuracy, 1 - result.missed, result.false, result.left_out_error, result.check_error)
    stated = re.findall(r"(\d+) %", Advice.__doc__ or "")
    assert stated == [f"{100 * share:.0f}" for share in shares]


def test_the_best_threshold_has_the_fewest_errors() -> None:
    values, same = np.array([0.1, 0.3, 0.4, 0.6, 0.9]), np.array([False, False, True, False, True])
    threshold = best_threshold(values, same)
    errors = [int(((values >= t / 100) != same).sum()) for t in range(1, 101)]
    assert int(((values >= threshold) != same).sum()) == min(errors) == 1


LETTER = "Discharge diagnosis: anemia. Advice: take iron every day; do not drink alcohol; come back in two weeks."


@pytest.mark.real
@pytest.mark.parametrize(
    ("reply", "share"),
    [
        (LETTER, 1),
        ("Take iron tablets daily. Avoid alcohol. Return in two weeks.", 1),
        ("Advice: take iron tablets daily; return in two weeks.", 2 / 3),
        ("The patient takes iron every day and drinks no alcohol.", 0),  # a finding
        ("Drink alcohol. Do not take iron every day.", 0),  # the opposite
        ("You shouldn't drink alcohol. You mustn\u2019t take iron every day.", 1 / 3),
        ("Anemia.", 0),
        ("", 0),
    ],
)
def test_the_share_is_that_of_the_letters_advice_which_the_reply_gives(reply: str, share: float) -> None:
    assert Advice("cpu").found([reply], [LETTER]).tolist() == [share]


@pytest.mark.real
def test_each_reply_has_its_own_letter_and_one_without_advice_has_no_share() -> None:
    found = Advice("cpu").found(["Take iron daily.", "Rest.", ""], [LETTER, "Anemia.", ""])
    assert found.dtype == np.float64
    assert found[0] == pytest.approx(1 / 3)
    assert all(map(math.isnan, found[1:]))
    assert Advice("cpu").found([], []).shape == (0,)


@pytest.mark.real
def test_a_share_is_the_same_alone_and_among_others_to_the_last_digit() -> None:
    replies = ["Take iron.", "Take iron tablets daily; return soon.", "Avoid wine and beer. Rest."]
    advice = advice_of(LETTER)
    together = Advice("cpu")
    assert [together.likeness(advice, reply).tolist() for reply in replies] == [
        Advice("cpu").likeness(advice, reply).tolist() for reply in replies
    ]


@pytest.mark.real
def test_what_is_alike_but_below_the_threshold_is_not_found() -> None:
    with PAIRS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if advice_of(f"Advice: {row['advice']}") == (row["advice"],)]
    advice = Advice("cpu")
    alike = np.array([advice.likeness([row["advice"]], row["reply"])[0] for row in rows])
    near = (alike > THRESHOLD - 0.15) & (alike < THRESHOLD + 0.15)
    found = advice.found([row["reply"] for row in rows], [f"Advice: {row['advice']}" for row in rows])
    assert found[near].tolist() == (alike[near] >= THRESHOLD).tolist()
    assert set(found[near].tolist()) == {0.0, 1.0}
