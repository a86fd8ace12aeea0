from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from agents.baselines.surrogate import Surrogate
from agents.policies.distributions import MaskedSparsemax
from agents.policies.lexicon import N_FORMS, Lexicon
from agents.policies.rollout import play
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.problem import BudgetSpentError
from tests.problems import N_EDITS, N_WORDS, make_problem
from tests.standins import HashEncoder, make_episodes


def test_a_word_is_known_by_role_and_text_by_role_and_letters_and_by_role() -> None:
    episodes = make_episodes(4)
    lexicon = Lexicon.of(episodes, at_least=1)
    ids = lexicon.ids(episodes, 15)
    assert ids.shape == (4, 15, N_FORMS)
    assert (ids[:, 12:] == 0).all()
    assert (ids[:, :12] > 0).all()
    for row, episode in enumerate(episodes):
        for slot, (word, role) in enumerate(zip(episode.words, episode.roles, strict=True)):
            names = [lexicon.forms[number - 1] for number in ids[row, slot]]
            assert names == [(role, word), (role, " " + word.rstrip("*")), (role, "")]


def test_words_of_too_few_prompts_have_no_number_but_their_roles() -> None:
    episodes = make_episodes(3)
    rare = make_episodes(1, seed=99)[0].words
    lexicon = Lexicon.of(episodes, at_least=3)
    texts = [form for form in lexicon.forms if form[1] and form[1][0] != " "]
    prompts = [set(zip(e.roles, e.words, strict=True)) for e in episodes]
    assert all(all(form in prompt for prompt in prompts) for form in texts)
    assert {(role, "") for role in ("background", "self", "peer", "instruction")} <= set(lexicon.forms)
    assert not {word for _, word in lexicon.forms} & (set(rare) - {w for e in episodes for w in e.words})


@pytest.mark.parametrize("n", [1, 2])
def test_of_one_or_two_patients_no_word_is_kept_and_it_is_said(n: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "agents"):
        assert Lexicon.of(make_episodes(n)).forms == ()
    assert [record.getMessage().split(" knows")[0] for record in caplog.records] == [
        f"A lexicon of {n} training patients"
    ]
    assert Lexicon.of(make_episodes(3)).forms


def test_a_surrogate_that_knows_no_word_can_still_be_fitted_and_refine() -> None:
    agent = Surrogate()
    with suppress(BudgetSpentError):
        agent.fit(make_problem(limit=400, n=2))
    assert [len(own) for own in agent.refine(make_problem(n=6, judged=False))] == [N_EDITS] * 6
    assert not agent.coefficients.any()


def test_numbers_are_those_of_the_episodes_asked_about_and_of_the_width() -> None:
    some, others = make_episodes(4), make_episodes(4, seed=7)
    lexicon = Lexicon.of(some, at_least=1)
    first = lexicon.ids(some, 12).copy()
    assert not np.array_equal(first, lexicon.ids(others, 12))
    assert np.array_equal(first, lexicon.ids(some, 12))
    assert lexicon.ids(some, 14).shape[1] == 14


@pytest.mark.parametrize("copied", [lambda each: pickle.loads(pickle.dumps(each)), copy.deepcopy])
def test_a_copy_of_a_policy_has_no_prompts_and_letters_of_patients(copied: Callable[[Any], Any]) -> None:
    problem = make_problem()
    policy = WordPolicy(PolicyConfig(HashEncoder.hidden_size), Lexicon.of(problem.episodes, at_least=1))
    play(problem.env(6), policy, range(6), None)
    other = copied(policy)
    assert b"She is well." not in pickle.dumps(policy)
    assert not other.lexicon._tables
    np.testing.assert_array_equal(
        other.lexicon.ids(problem.episodes, N_WORDS), policy.lexicon.ids(problem.episodes, N_WORDS)
    )


def test_a_words_weight_is_added_to_its_logit() -> None:
    problem = make_problem()
    lexicon = Lexicon.of(problem.episodes, at_least=1)
    policy = WordPolicy(PolicyConfig(HashEncoder.hidden_size), lexicon).eval()
    seen = play(problem.env(6), policy, range(6), None).steps[0].observation
    before = policy.scores(seen).detach()
    number = int(seen["words"][0, 0, 0])
    with torch.no_grad():
        policy.table.weight[number] = 2.5
    change = policy.scores(seen).detach() - before
    assert torch.allclose(change, 2.5 * (seen["words"] == number).any(dim=-1).float(), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_sparsemax_is_the_nearest_point_of_the_simplex_over_legal_words(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores, legal = torch.randn(3, 7, generator=generator), torch.rand(3, 7, generator=generator) < 0.7
    legal[:, 0] = True
    probs = MaskedSparsemax(scores, legal).probs
    assert torch.allclose(probs.sum(dim=-1), torch.ones(3), atol=1e-5)
    assert (probs[~legal] == 0).all()
    # KKT conditions: where probability > 0, score - probability is a constant; elsewhere scores do not exceed it.
    for row in range(3):
        inside = probs[row] > 0
        level = (scores[row] - probs[row])[inside]
        assert torch.allclose(level, level[0].expand_as(level), atol=1e-5)
        assert (scores[row][legal[row] & ~inside] <= level[0] + 1e-5).all()
