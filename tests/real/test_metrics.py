"""Margin and copy by the bundled BERTScore, against bert-score itself."""

from __future__ import annotations

import numpy as np
import pytest
from bert_score import BERTScorer

from agents.evaluation.metrics import ReplyMetrics
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.rewards.components import contrast_letters
from pmlm_env.weights import resolve

pytestmark = pytest.mark.real


def test_margin_and_copy_are_those_of_bert_score() -> None:
    episodes = lite_episodes({"train": 30, "test": 3})
    test, training = episodes.of("test"), episodes.of("train")
    replies, prompts = [e.prompt for e in test], [e.prompt for e in test]
    replies[0], prompts[2] = "Thalassemia. Rest.", test[2].prompt[20:]
    values = ReplyMetrics(test, training, BertScorer(device="cpu"))(replies, prompts)
    theirs = BERTScorer(model_type=resolve("minilm"), num_layers=5, device="cpu")

    def f1(texts: list[str], references: list[str]) -> np.ndarray:
        return theirs.score(texts, references)[2].double().numpy()

    own = f1(replies, [e.reference for e in test])
    for i, episode in enumerate(test):
        letters = list(contrast_letters(episode, training))
        assert len(letters) == 8
        assert values["margin"][i] == pytest.approx(own[i] - f1([replies[i]] * 8, letters).mean(), abs=1e-5)
    assert values["bertscore_f1"] == pytest.approx(own, abs=1e-5)
    assert values["copy"] == pytest.approx(f1(replies, prompts), abs=1e-5)
    assert values["copy"][1] == pytest.approx(1.0, abs=1e-5)  # an echo
    assert values["copy"].argmin() == 0
