from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from agents.problem import MeteredReward, Problem
from agents.search.base import EditablePrompt, Mask, Steps, run
from agents.search.genetic import genetic
from agents.search.greedy import greedy
from agents.search.hierarchical import hierarchical
from agents.search.oracle import search_prompts
from agents.search.searches import SEARCHES
from agents.search.tapruning import tapruning
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

pytestmark = pytest.mark.once

N, N_EDITS, BEST = 8, 3, 0.3
everywhere = pytest.mark.parametrize("name", SEARCHES)


def _problem(limit: int | None = None, decoys: bool = False, **options: Any) -> tuple[Problem, MarkedWordsReward]:
    episodes = make_episodes(N, n_words=12, n_marked=N_EDITS, decoys=decoys)
    reward = MarkedWordsReward(episodes, penalty=0.05)
    return Problem(episodes, HashEncoder(), MeteredReward(reward, limit), N_EDITS, **options), reward


def _prompt(
    text: str, n_edits: int = 3, budget: int = 100, legal: Sequence[bool] | None = None, roles: str = ""
) -> EditablePrompt:
    words = text.split()
    free = np.ones(len(words), dtype=bool) if legal is None else np.array(legal)
    return EditablePrompt(free, words, roles or "s" * len(words), n_edits, budget)


class Scores:
    """Adds up the worth of what is deleted, and keeps a record."""

    def __init__(self, worth: Sequence[float]) -> None:
        self.worth = np.array(worth)
        self.batches: list[list[tuple[int, ...]]] = []

    def __call__(self, places: Sequence[int], masks: Sequence[Mask]) -> npt.NDArray[np.float64]:
        self.batches.append([tuple(np.flatnonzero(~mask).tolist()) for mask in masks])
        return np.array([self.worth[~mask].sum() for mask in masks])

    @property
    def asked(self) -> list[tuple[int, ...]]:
        return [each for batch in self.batches for each in batch]


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@everywhere
def test_every_search_finds_the_marked_words(name: str) -> None:
    problem, _ = _problem()
    found = search_prompts(problem, range(N), SEARCHES[name], budget=60)
    assert np.mean([each.rescored for each in found]) > BEST / 2  # random deletions: -.04
    for index, each in enumerate(found):
        kept = problem.batch([index]).kept
        kept[0, list(each.deleted)] = False
        assert problem.judge([index], kept).delta[0] == pytest.approx(each.rescored)


@everywhere
@pytest.mark.parametrize("budget", [1, 2, 5, 23])
@pytest.mark.parametrize("per_prompt", [1, 2])
def test_no_prompt_takes_more_than_its_budget(name: str, budget: int, per_prompt: int) -> None:
    problem, _ = _problem()
    meter = MeteredReward(MarkedWordsReward(problem.episodes), N * budget, per_prompt)
    problem = Problem(problem.episodes, HashEncoder(), meter, N_EDITS)
    found = search_prompts(problem, range(N), SEARCHES[name], budget)
    assert max(each.calls for each in found) <= budget
    assert sum(each.calls for each in found) == meter.calls


@everywhere
def test_only_words_that_may_go_are_deleted_and_no_more_than_n_edits(name: str) -> None:
    problem, reward = _problem(decoys=True, protect=("peer", "instruction"))
    search_prompts(problem, range(N), SEARCHES[name], budget=40)
    asked = [prompt.split() for batch in reward.asked for prompt in batch]
    whole = {tuple(episode.words[6:]) for episode in problem.episodes}
    assert asked
    assert all(len(words) >= 12 - N_EDITS and tuple(words[-6:]) in whole for words in asked)


@everywhere
def test_what_is_found_depends_on_the_seed_but_not_on_the_other_prompts(name: str) -> None:
    problem, _ = _problem(max_words=15)
    all_of_them = search_prompts(problem, range(N), SEARCHES[name], budget=30, seed=5)
    (alone,) = search_prompts(problem, [3], SEARCHES[name], budget=30, seed=5)
    assert [c.deleted for c in alone.candidates] == [c.deleted for c in all_of_them[3].candidates]


@everywhere
@pytest.mark.parametrize("n_edits", [0, 1, 50])
def test_odd_edit_budgets_and_prompts_of_one_word_end_well(name: str, n_edits: int) -> None:
    for prompt in (_prompt("word", n_edits), _prompt("one two", n_edits, legal=[False, True])):
        (ranked,) = run(SEARCHES[name], [prompt], Scores([0.0, 1.0][-len(prompt.words) :]), [_rng()])
        assert len(ranked[0].deleted) == min(n_edits, 1)


@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_the_budget_is_shared_among_the_deletions_that_can_be_made(name: str) -> None:
    legal = [slot in (2, 5, 7, 9) for slot in range(12)]
    asked = []
    for n_edits in (4, 10):
        scores = Scores(np.arange(12))
        prompt = _prompt("a b c d e f g h i j k l", n_edits, 20, legal)
        (ranked,) = run(SEARCHES[name], [prompt], scores, [_rng()])
        assert ranked[0].deleted == (2, 5, 7, 9)
        asked.append(scores.asked)
    assert asked[0] == asked[1]
    assert len(asked[0]) >= 4 + 3 + 2 + 1  # the budget pays for all deletions of the greedy search


@pytest.mark.parametrize("name", ["greedy", "tapruning", "genetic"])
def test_searches_come_near_the_exact_optimum_of_pmlm_lite(name: str) -> None:
    episodes = lite_episodes({"train": 16})
    reward = LiteReward(episodes)
    problem = Problem(episodes, HashedEncoder(), MeteredReward(reward), 10)
    found = np.mean([each.rescored for each in search_prompts(problem, range(16), SEARCHES[name], budget=300)])
    assert found > 0.8 * np.mean([reward.best(i, 10).delta for i in range(16)])


def test_greedy_equals_brute_force_where_worth_adds_up() -> None:
    rng = _rng(1)
    for _ in range(20):
        scores, legal = Scores(rng.normal(size=8)), rng.random(8) < 0.8
        (ranked,) = run(greedy, [_prompt("a b c d e f g h", legal=legal.tolist())], scores, [rng])
        slots = np.flatnonzero(legal)
        best = max(scores.worth[list(gone)].sum() for n in range(4) for gone in combinations(slots, n))
        assert ranked[0].delta == pytest.approx(best)


def test_greedy_shares_a_small_budget_evenly_among_its_steps() -> None:
    scores = Scores([0.1] * 8)
    run(greedy, [_prompt("a b c d e f g h", budget=12)], scores, [_rng()])
    assert [len(batch) for batch in scores.batches] == [4, 4, 4]


def test_greedy_ends_when_every_deletion_harms() -> None:
    scores = Scores([-0.1, 0.2, -0.1, -0.1])
    run(greedy, [_prompt("a b c d")], scores, [_rng()])
    assert [sorted(batch) for batch in scores.batches] == [[(0,), (1,), (2,), (3,)], [(0, 1), (1, 2), (1, 3)]]


def test_the_genetic_algorithm_gives_words_back_where_no_more_may_go() -> None:
    scores = Scores([0.1] * 30)
    run(genetic, [_prompt(" ".join("abcdefghijklmnopqrstuvwxyzABCD"), n_edits=1)], scores, [_rng()])
    assert len(scores.batches[0]) < len(scores.asked) == 30


def test_tapruning_goes_from_left_to_right_and_keeps_what_makes_no_difference() -> None:
    scores = Scores([0.0, 0.2, -0.1, 0.3])
    (ranked,) = run(tapruning, [_prompt("a b c d", n_edits=2)], scores, [_rng()])
    assert scores.asked == [(0,), (1,), (1, 2), (1, 3)]
    assert ranked[0].deleted == (1, 3)


def test_hierarchical_search_deletes_a_phrase_at_once_where_that_helps() -> None:
    scores = Scores([-1.0, -1.0, 0.2, 0.2, -1.0])
    run(hierarchical, [_prompt("her tests, are so. fine", n_edits=2)], scores, [_rng()])
    assert (2, 3) in scores.asked
    assert not {(2,), (3,)} & set(scores.asked[:-5])  # single words are tried only after the search restarts with words


def test_phrases_end_with_punctuation_and_with_sections() -> None:
    prompt = _prompt("of peers, two had anaemia Write a note.", roles="ppppsiii")
    assert prompt.sections() == [[0, 1, 2, 3], [4], [5, 6, 7]]
    assert prompt.phrases() == [[0, 1], [2, 3], [4], [5, 6, 7]]


def test_a_mask_is_scored_once_and_what_is_beyond_the_budget_ends_the_search() -> None:
    sent: list[list[float]] = []

    def asks_again(prompt: EditablePrompt, rng: np.random.Generator) -> Steps:
        masks = [prompt.without(prompt.whole, slot) for slot in range(3)]
        sent.append((yield [masks[0], prompt.whole, masks[0]]))
        sent.append((yield [masks[0], masks[1]]))
        sent.append((yield masks))

    scores = Scores([0.1, 0.2, 0.3])
    (ranked,) = run(asks_again, [_prompt("a b c", budget=2)], scores, [_rng()])
    assert scores.asked == [(0,), (1,)]
    assert sent == [[0.1, 0.0, 0.1], [0.1, 0.2]]
    assert [candidate.deleted for candidate in ranked] == [(1,), (0,), ()]


def test_a_search_that_deletes_what_may_not_go_is_stopped() -> None:
    def careless(prompt: EditablePrompt, rng: np.random.Generator) -> Steps:
        yield [prompt.without(prompt.whole, 0)]

    with pytest.raises(ValueError, match=r"slots \[0\]: some of them may not go"):
        run(careless, [_prompt("a b", legal=[False, True])], Scores([1.0, 1.0]), [_rng()])


def test_each_round_scores_all_prompts_in_one_batch() -> None:
    problem, reward = _problem()
    search_prompts(problem, range(N), SEARCHES["best-of-n"], budget=20)
    assert [len(batch) for batch in reward.asked] == [N * 19]


class NoiseReward:
    """Whatever is deleted, the score is noise about the worth given."""

    def __init__(self, worth: float = 0.0) -> None:
        self.worth, self.rng, self.scored = worth, _rng(7), 0

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        n = len(indices)
        self.scored += n
        return Outcomes(self.worth + self.rng.normal(0, 0.1, n), np.zeros(n), np.zeros(n, dtype=np.int64))


@pytest.mark.parametrize("worth", [0.0, 0.05])
def test_under_noise_the_search_claims_too_much_and_the_fresh_score_does_not(worth: float) -> None:
    """The largest of 47 normal draws is 2.2 standard deviations above their mean; fresh initial scores vary, too."""
    episodes = make_episodes(200, n_words=30)
    reward, budget, sd = NoiseReward(worth), 60, 0.1
    problem = Problem(episodes, HashEncoder(), MeteredReward(reward), 10)

    def rescore(indices: Sequence[int], kept: Mask) -> npt.NDArray[np.float64]:
        initial = {index: reward.rng.normal(0, sd) for index in indices}
        reward.scored += len(initial)
        return reward(indices, ["" for _ in kept]).delta - [initial[index] for index in indices]

    found = search_prompts(problem, range(200), SEARCHES["best-of-n"], budget, rescore=rescore)
    claimed = np.array([each.claimed for each in found])
    rescored = np.array([each.rescored for each in found if each.deleted])
    assert claimed.mean() - worth == pytest.approx(0.22, abs=0.02)
    assert len(rescored) > 160  # the highest of ten draws is seldom the initial prompt's
    assert abs(rescored.mean() - worth) < 4 * np.sqrt(2) * sd / np.sqrt(len(rescored))
    assert all(each.calls == budget - 2 * (not each.deleted) for each in found)
    assert sum(each.calls for each in found) == reward.scored + 200


def test_the_whole_prompt_wins_where_no_finalist_does_good_afresh() -> None:
    problem, _ = _problem()
    found = search_prompts(
        problem, [0, 1], SEARCHES["greedy"], 40, rescore=lambda indices, kept: np.full(len(indices), -0.1)
    )
    assert [(each.deleted, each.rescored, each.claimed > 0) for each in found] == [((), 0.0, True)] * 2


class UnreliableReward(MarkedWordsReward):
    """Has no reply to a prompt that lacks its first word, which would otherwise be the best of all to delete."""

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        outcomes = super().__call__(indices, prompts)
        lost = [prompt.split()[0] != self.episodes[i].words[0] for i, prompt in zip(indices, prompts, strict=True)]
        errors = ["no reply" if each else "" for each in lost]
        return Outcomes(outcomes.score + np.array(lost), outcomes.initial_score, outcomes.llm_calls, None, errors)


@everywhere
def test_a_prompt_without_a_reply_is_never_the_best(name: str) -> None:
    episodes = make_episodes(N)
    problem = Problem(episodes, HashEncoder(), MeteredReward(UnreliableReward(episodes)), N_EDITS)
    found = search_prompts(problem, range(N), SEARCHES[name], budget=40)
    assert any(candidate.delta == -np.inf for each in found for candidate in each.candidates)
    assert all(each.claimed >= 0 for each in found)
    assert not any(0 in each.deleted for each in found)
