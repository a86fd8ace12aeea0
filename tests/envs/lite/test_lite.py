"""PMLMLite-v0 against independent accounts of its rules: ROUGE, brute force, plain text."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from pmlm_env import EpisodeSet, PMLMLiteEnv
from pmlm_env.core.edits import EditRules, Prompts
from pmlm_env.core.episodes import Episode
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes, lite_task

EPISODES = lite_episodes({"train": 40})


def _small(*prompts: str, reference: str = "Discharge diagnosis: Thalassemia. Test the partner.") -> EpisodeSet:
    def make(i: int, prompt: str) -> Episode:
        words = tuple(prompt.split())
        roles: Any = ("instruction",) * len(words)
        return Episode(f"P{i}", "train", words, roles, np.zeros(128, np.float32), reference, "", "", ())

    return EpisodeSet(make(i, prompt) for i, prompt in enumerate(prompts))


def _random_masks(n: int, seed: int = 0) -> tuple[list[int], np.ndarray]:
    rng = np.random.default_rng(seed)
    indices = rng.integers(len(EPISODES), size=n).tolist()
    kept = rng.random((n, EPISODES.max_words)) < rng.random((n, 1))
    return indices, kept & (np.arange(EPISODES.max_words) < EPISODES.lengths[indices][:, None])


def test_its_score_is_rouge_1_of_the_texts() -> None:
    indices, kept = _random_masks(200)
    outcomes = LiteReward(EPISODES, texts=True)(indices, Prompts(EPISODES, indices, kept))
    scorer = RougeScorer(["rouge1"], use_stemmer=False)
    assert outcomes.texts is not None
    rows = zip(outcomes.texts.reply, outcomes.texts.initial_reply, outcomes.texts.reference, strict=True)
    for (reply, initial, reference), score, initial_score in zip(
        rows, outcomes.score, outcomes.initial_score, strict=True
    ):
        assert score == pytest.approx(scorer.score(reference, reply)["rouge1"].fmeasure, abs=1e-6)
        assert initial_score == pytest.approx(scorer.score(reference, initial)["rouge1"].fmeasure, abs=1e-6)


def test_masks_and_plain_texts_of_prompts_are_judged_alike() -> None:
    indices, kept = _random_masks(100, seed=1)
    prompts = Prompts(EPISODES, indices, kept)
    reward = LiteReward(EPISODES)
    np.testing.assert_allclose(reward(indices, prompts).score, reward(indices, list(prompts)).score)


def test_the_reply_is_what_the_rules_say() -> None:
    episodes = _small(
        "State the diagnosis of thalassemia, and medical advice in one sentence",
        "similar thalassemia",
        "nothing of note",
    )
    env = PMLMLiteEnv(task=lite_task(episodes, EditRules(n_edits=0), texts=True))
    replies = []
    for i in range(3):
        env.reset(options={"episode": i})
        replies.append(env.step(np.int64(0))[-1]["reply"])
    assert replies == [
        "Discharge diagnosis: Thalassemia. Test the partner and seek genetic counselling. "
        "Return to the obstetric clinic in one week.",
        "Thalassemia. Every woman is different, so please ask whoever knows more. This information does not replace "
        "a doctor, and laboratory values depend on method, time and food.",
        "Nothing certain can be said. This information does not replace a doctor, and laboratory values depend on "
        "method, time and food.",
    ]


@pytest.mark.parametrize("n_edits", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("protect", [(), ("digits",)])
def test_the_best_deletions_are_those_of_a_brute_force(n_edits: int, protect: tuple[str, ...]) -> None:
    episodes = _small(
        "cord cord similar thalassemia diagnosis sentence 3 of 10",
        "thalassemia scar scar scar rupture advice",
        "similar 1 cord",
        "thalassemia",
    )
    reward = LiteReward(episodes)
    for i, episode in enumerate(episodes):
        free = [s for s, word in enumerate(episode.words) if not (protect and word.isdigit())]
        budget = min(n_edits, len(free))
        deltas = []
        for slots in combinations(free, budget):
            left = " ".join(word for slot, word in enumerate(episode.words) if slot not in slots)
            deltas.append(reward([i], [left]).delta[0])
        best = reward.best(i, n_edits, protect)
        assert best.delta == pytest.approx(max(deltas))
        assert len(best.slots) == len(set(best.slots)) == budget
        left = " ".join(word for slot, word in enumerate(episode.words) if slot not in best.slots)
        assert reward([i], [left]).delta[0] == pytest.approx(best.delta)


def test_played_in_the_env_the_best_deletions_bring_what_they_promise() -> None:
    env = PMLMLiteEnv(task=lite_task(EPISODES))
    reward = LiteReward(EPISODES)
    for i in range(10):
        best = reward.best(i, 10)
        env.reset(options={"episode": i})
        for slot in best.slots:
            _, delta, terminated, _, info = env.step(np.int64(slot))
            assert not info["invalid_action"]
        assert terminated
        assert delta == pytest.approx(best.delta)


def test_good_bad_and_idle_deletions_all_exist() -> None:
    reward = LiteReward(EPISODES)
    signs = set()
    for i in range(5):
        words = EPISODES[i].words
        left = [" ".join(words[:s] + words[s + 1 :]) for s in range(len(words))]
        signs |= set(np.sign(np.round(reward([i] * len(left), left).delta, 9)).tolist())
    assert signs == {-1.0, 0.0, 1.0}


def test_the_docstrings_figures_are_true() -> None:
    train = lite_episodes().of("train")
    reward = LiteReward(train)
    rng = np.random.default_rng(0)
    everybody = list(range(len(train)))
    kept = np.arange(train.max_words) < train.lengths[:, None]
    deltas = []
    for _ in range(20):
        mask = kept.copy()
        for row in everybody:
            mask[row, rng.permutation(train.lengths[row])[:10]] = False
        deltas.append(reward(everybody, Prompts(train, everybody, mask)).delta)
    initial = reward(everybody, Prompts(train, everybody, kept)).initial_score
    best = [reward.best(i, 10).delta for i in everybody]
    assert [round(float(np.mean(x)), 2) for x in (initial, deltas, best)] == [0.54, -0.04, 0.46]


def test_the_patient_vector_tells_her_condition() -> None:
    everybody = lite_episodes()
    train, test = everybody.of("train"), everybody.of("test")
    labels = sorted({episode.label for episode in train})
    centres = np.stack([np.mean([e.vector for e in train if e.label == label], axis=0) for label in labels])
    right = sum(labels[int((centres @ episode.vector).argmax())] == episode.label for episode in test)
    assert right / len(test) > 0.9
    assert sum(episode.predicted == episode.label for episode in test) / len(test) < 0.9


def test_the_same_seed_makes_the_same_patients_and_another_seed_others() -> None:
    one, same, other = (lite_episodes({"train": 5}, seed=seed) for seed in (1, 1, 2))
    assert [e.words for e in one] == [e.words for e in same]
    np.testing.assert_array_equal(one.vectors, same.vectors)
    assert [e.words for e in one] != [e.words for e in other]


def test_a_word_has_one_embedding_wherever_and_however_it_is_written() -> None:
    encoder = HashedEncoder()
    prompts = [("Diabetes,", "no", "diabetes"), ("no",)]
    kept = np.array([[True, True, True, False], [True, False, False, False]])
    out = encoder.encode(prompts, kept)
    assert out.shape == (2, 4, encoder.hidden_size)
    assert out[0, 0].tolist() == out[0, 2].tolist()
    assert out[0, 1].tolist() == out[1, 0].tolist()
    assert not out[0, 3].any()
    assert not out[1, 1:].any()
    np.testing.assert_array_equal(HashedEncoder().encode(prompts[1:], kept[1:]), out[1:])
    assert out[0, 0].tolist() != out[0, 1].tolist()


def test_lists_of_words_may_change_between_calls() -> None:
    encoder, words, kept = HashedEncoder(), ["one"], np.array([[True]])
    before = encoder.encode([words], kept)
    words[0] = "two"
    assert encoder.encode([words], kept).tolist() != before.tolist()
    words[0] = "one"
    assert encoder.encode([words], kept).tolist() == before.tolist()


@pytest.mark.parametrize("name", ["llm", "scorer", "encoder", "reward", "cache", "n_samples", "device", "nonsense"])
def test_an_argument_that_has_no_effect_is_refused_by_name(name: str) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=f"PMLMLite-v0 has no argument {name}: .* Leave it out, or use PMLM-v0"):
            make("PMLMLite-v0", **{name: "openai:gpt-4o-mini"})


def test_episodes_of_ones_own_come_in_a_task() -> None:
    episodes = lite_episodes({"train": 2, "test": 2})
    for make in (gym.make, gym.make_vec):
        assert make("PMLMLite-v0", task=lite_task(episodes)).unwrapped.task.episodes is episodes
        with pytest.raises(
            ValueError, match="split has no effect together with task, which already defines it: leave it out"
        ):
            make("PMLMLite-v0", task=lite_task(episodes), split="test")


def test_an_encoder_keeps_no_more_prompts_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmlm_env.encoders.hashed._MOST_PROMPTS", 3)
    encoder = HashedEncoder()
    for n in range(10):
        prompt = ("the", f"word{n}")
        out = encoder.encode([prompt], np.array([[True, True]]))
        np.testing.assert_array_equal(out, HashedEncoder().encode([prompt], np.array([[True, True]])))
        assert len(encoder._prompts) <= 3
