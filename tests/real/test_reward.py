from __future__ import annotations

import numpy as np
import pytest
from bert_score import BERTScorer

from pmlm_env.models import resolve
from pmlm_env.reward import BertScorer

pytestmark = pytest.mark.real

REPLIES = [
    "The discharge diagnosis is gestational diabetes.",
    "She is well.",
    "x",
    "Take iron; come back in two weeks. " * 80,  # beyond 512 pieces: cut, as bert-score does
    "  The discharge diagnosis is gestational diabetes.  ",
    "妊娠 diabetes, naïve café №5 😀",
]
REFERENCES = [
    "Discharge diagnosis: gestational diabetes. Advice: watch the diet.",
    "Discharge diagnosis: gestational diabetes. Advice: watch the diet.",
    "Thalassemia.",
    "Discharge diagnosis: anemia. Take iron.",
    "y",
    "Gestational diabetes.",
]


def test_it_is_bert_scores_own_number() -> None:
    ours = BertScorer("minilm", device="cpu").score(REPLIES, REFERENCES)
    theirs = BERTScorer(model_type=resolve("minilm"), num_layers=5, device="cpu").score(REPLIES, REFERENCES)
    for a, b in zip((ours.precision, ours.recall, ours.f1), theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


def test_a_reference_already_seen_gives_the_same_score() -> None:
    scorer = BertScorer("minilm", device="cpu")
    first = scorer.score(REPLIES[:2], REFERENCES[:2]).f1
    again = scorer.score(REPLIES[1:2], REFERENCES[1:2]).f1
    np.testing.assert_allclose(again.numpy(), first[1:].numpy(), atol=1e-6)


def test_an_empty_reply_scores_nothing_and_the_reply_itself_everything() -> None:
    f1 = BertScorer("minilm", device="cpu").score(["", REFERENCES[0]], [REFERENCES[0]] * 2).f1
    assert f1[0] == 0.0
    assert f1[1].item() == pytest.approx(1.0, abs=1e-6)


def test_a_layer_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="layers 1 to 6"):
        BertScorer("minilm", num_layers=7, device="cpu").score(["a"], ["b"])
