"""Whether the bundled LLM can score Chinese letters and embed Chinese words, which no bundled BERT can."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pmlm_env.cohort.simulator import simulate, simulate_cohort
from pmlm_env.core.words import split
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.weights import CHINESE_MODEL, describe, state

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.large]

N_PAIRS = 50


@pytest.fixture(scope="module", autouse=True)
def _there() -> None:
    if state(CHINESE_MODEL) == "missing":
        pytest.skip(f"{CHINESE_MODEL} scores Chinese: {describe(CHINESE_MODEL)}")


@pytest.fixture(scope="module")
def scorer() -> BertScorer:
    return BertScorer(CHINESE_MODEL, device="cpu")


@pytest.fixture
def triples(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """For each of 50 women: her letter, another letter with the same facts, and a letter about another condition."""
    write, others = simulate.write_reply, []

    def write_twice(facts, rng):  # type: ignore[no-untyped-def]
        others.append(write(facts, np.random.default_rng(len(others))).text("zh"))
        return write(facts, rng)

    monkeypatch.setattr(simulate, "write_reply", write_twice)
    cohort = simulate_cohort(200, language="zh")
    rng = np.random.default_rng(0)
    found = []
    for patient, other in zip(cohort, others, strict=True):
        if other != patient.reference:
            elsewhere = rng.choice([each.reference for each in cohort if each.label != patient.label])
            found.append((patient.reference, other, str(elsewhere)))
    return found[:N_PAIRS]


def test_a_letter_scores_100_against_itself_and_more_against_its_paraphrase_than_against_another_condition(
    scorer: BertScorer, triples: list[tuple[str, str, str]]
) -> None:
    letters, paraphrases, others = zip(*triples, strict=True)
    assert len(triples) == N_PAIRS
    assert scorer.f1(letters, letters) == pytest.approx(np.ones(N_PAIRS), abs=1e-5)
    same, other = scorer.f1(paraphrases, letters), scorer.f1(others, letters)
    assert (same > other).mean() >= 0.98
    assert same.mean() > other.mean() + 0.1


def test_the_states_are_those_of_the_layer_before_any_final_normalization(scorer: BertScorer) -> None:
    from transformers import AutoModel

    text = "出院诊断：妊娠期糖尿病。"
    model = AutoModel.from_pretrained(scorer._path, dtype=torch.float32)
    ids = torch.tensor([scorer._tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        expected = model(ids, output_hidden_states=True).hidden_states[scorer.num_layers][0]
    ours = scorer._embed([text])[0].vectors
    torch.testing.assert_close(ours, torch.nn.functional.normalize(expected, dim=-1), atol=1e-4, rtol=1e-4)


def test_every_word_of_a_prompt_has_an_embedding_that_depends_on_the_words_before_it() -> None:
    encoder = WordEncoder(CHINESE_MODEL, "cpu")
    words = [word.text for word in split("一名孕妇今日出院。其化验结果提示妊娠期糖尿病（GDM）。", "zh")]
    kept = np.ones((2, len(words)), dtype=np.bool_)
    kept[1, 1] = False
    both = encoder.encode([words, words], kept)
    assert both.shape == (2, len(words), encoder.hidden_size)
    assert both[0].any(dim=1).all()
    torch.testing.assert_close(both[1, 0], both[0, 0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[1, 2], both[0, 2], atol=1e-2)
