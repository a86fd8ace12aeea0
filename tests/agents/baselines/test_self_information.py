from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from agents.baselines.config import SelfInformationConfig
from agents.baselines.self_information import Bigram, LeastSurprising, LocalLM, MostSurprising, SelfInformation
from agents.problem import MeteredReward, Problem
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.weights import ModelError
from tests.problems import slots_of
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

CPU = torch.device("cpu")


def _episodes(*prompts: str) -> EpisodeSet:
    vector = np.zeros(128, dtype=np.float32)
    return EpisodeSet(
        [
            Episode("P", "train", tuple(text.split()), ("self",) * len(text.split()), vector, "r", "a", "a", ("a",))
            for text in prompts
        ]
    )


def _problem(episodes: EpisodeSet, n_edits: int = 2) -> Problem:
    return Problem(episodes, HashEncoder(), MeteredReward(MarkedWordsReward(episodes), 0), n_edits)


def _bigram(kind: type[SelfInformation] = LeastSurprising) -> SelfInformation:
    return kind(SelfInformationConfig("bigram"))


def test_a_bigram_s_self_information_is_as_counted_by_hand() -> None:
    bigram = Bigram()
    bigram.learn(3 * [["she", "is", "well"], ["she", "is", "ill"], ["is", "she"]])  # 4 known words, so V = 5
    (values,) = bigram([["she", "is", "well", "again"]], CPU)
    expected = [7 / (9 + 5), 7 / (6 + 5), 4 / (9 + 5), 1 / (0 + 5)]  # "she" has six successors, "well" has none
    np.testing.assert_allclose(values, -np.log(expected))
    successors = bigram([["she", word] for word in ("she", "is", "well", "ill", "unknown")], CPU)
    assert sum(np.exp(-value[1]) for value in successors) == pytest.approx(1)


def test_pairs_of_words_that_only_two_training_prompts_have_are_neither_counted_nor_saved() -> None:
    common, rare = ["a", "b"], ["a", "b", "Mrs.Doe", "Mrs.Doe", "Mrs.Doe", "Mrs.Doe"]
    bigram, without = Bigram(), Bigram()
    bigram.learn([common, rare, rare])
    without.learn([common, common, common])
    assert bigram.rows() == [("", "a", 3), ("a", "b", 3)]
    np.testing.assert_array_equal(bigram([rare], CPU), without([rare], CPU))


@pytest.mark.parametrize(("kind", "slots"), [(LeastSurprising, (0, 1)), (MostSurprising, (2, 3))])
def test_the_least_surprising_words_are_deleted_first_or_the_most(
    kind: type[SelfInformation], slots: tuple[int, ...]
) -> None:
    agent = _bigram(kind)
    agent.fit(_problem(_episodes("a b c x", "a b c y", "a b d z", "a b c z")))
    assert slots_of(agent.refine(_problem(_episodes("a b d y"))))[0] == slots


def test_of_two_patients_no_word_is_kept_and_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    agent = _bigram()
    with caplog.at_level("WARNING", "agents"):
        agent.fit(_problem(make_episodes(2)))
    assert agent.learned()[0] == {"pairs": []}
    assert "knows no word: take 3 or more" in caplog.text


def test_no_completion_is_asked_for() -> None:
    agent, problem = _bigram(), _problem(make_episodes(4))
    agent.fit(problem)
    assert [len(slots) for slots in agent.refine(problem)] == [2] * 4
    assert problem.reward.calls == 0


def test_a_language_model_that_is_not_there_is_missed_when_the_agent_is_fitted() -> None:
    agent = LeastSurprising(SelfInformationConfig("/no/such/model"))
    with pytest.raises(ModelError, match="no such model directory: /no/such/model"):
        agent.fit(_problem(make_episodes(4)))


@pytest.fixture(scope="module")
def lm() -> LocalLM:
    return LocalLM("smollm2-135m", batch_size=2)


def _surprise_of_text(model: Any, tokenizer: Any, text: str) -> float:
    """Total -log p of a text, by transformers' own loss, which is the mean over tokens."""
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]])
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)


@pytest.mark.real
def test_a_language_model_s_self_information_adds_up_to_that_of_each_beginning_of_the_prompt(lm: LocalLM) -> None:
    model, tokenizer = lm._model, lm._tokenizer
    assert model.dtype == torch.float32
    words = "Her haemoglobin is 10.5 g/dL, \u8840\u7ea2\u86cb\u767d low.".split()
    totals = [_surprise_of_text(model, tokenizer, " ".join(words[:n])) for n in range(1, len(words) + 1)]
    others: list[Sequence[str]] = [words[:3], words * 2, ["well"]]  # other lengths, so that there is padding
    values = lm([*others, words], CPU)[-1]
    np.testing.assert_allclose(values, np.diff([0.0, *totals]), atol=2e-3)


@pytest.mark.real
def test_the_agent_deletes_what_the_language_model_foresees(lm: LocalLM) -> None:
    prompt = "The capital of France is Paris and the capital of Germany is zebra"
    deleted = []
    for kind in (LeastSurprising, MostSurprising):
        agent = kind()
        agent.surprise = lm
        deleted += slots_of(agent.refine(_problem(_episodes(prompt), n_edits=3)))
    assert prompt.split().index("zebra") not in deleted[0]
    assert prompt.split().index("zebra") in deleted[1]
