from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from agents.base import Agent, Edits
from agents.baselines.config import SelfInformationConfig
from agents.baselines.controls import KeepAll, RandomN, RandomP
from agents.baselines.self_information import LeastSurprising
from agents.baselines.single_rule import SingleRule
from agents.baselines.task_search import TaskGenetic, TaskGrips
from agents.problem import MeteredReward, Problem, blind
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes
from tests.problems import slots_of
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes


def _bigram(config: None = None, seed: int = 0) -> LeastSurprising:
    return LeastSurprising(SelfInformationConfig("bigram"), seed)


AGENTS = (KeepAll, RandomN, RandomP, _bigram, SingleRule, TaskGrips, TaskGenetic)
TASK_AGENTS = (TaskGrips, TaskGenetic)


def _problem(episodes: EpisodeSet, limit: int | None = None, penalty: float = 0.05, **options: Any) -> Problem:
    meter = MeteredReward(MarkedWordsReward(episodes, penalty), limit, options.pop("per_prompt", 1))
    return Problem(episodes, HashEncoder(), meter, **{"n_edits": 3, **options})


def _unseen(episodes: EpisodeSet, **options: Any) -> Problem:
    return Problem(blind(episodes), HashEncoder(), None, **{"n_edits": 3, **options})


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("limit", [0, 1, 7, 50, 100])
@pytest.mark.parametrize("per_prompt", [1, 3])
def test_an_agent_keeps_within_its_budget_and_deletes_only_what_may_go(
    agent: type[Agent], limit: int, per_prompt: int
) -> None:
    problem = _problem(make_episodes(20), limit, per_prompt=per_prompt, protect=("peer",))
    fitted = agent(seed=1)
    fitted.fit(problem)
    assert problem.reward.calls <= limit
    unseen = _unseen(make_episodes(10, seed=9), protect=("peer",))
    edits = slots_of(fitted.refine(unseen))
    for slots, legal in zip(edits, unseen.batch(range(10)).legal, strict=True):
        assert len(set(slots)) == len(slots) <= 3
        assert legal[list(slots)].all()


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_refines_before_it_is_fitted_and_alike_when_asked_again(agent: type[Agent]) -> None:
    unseen = _unseen(make_episodes(10))
    fresh = agent(seed=3)
    assert fresh.refine(unseen) == fresh.refine(unseen) == agent(seed=3).refine(unseen)


def test_keep_all_deletes_nothing() -> None:
    assert KeepAll().refine(_unseen(make_episodes(4))) == [()] * 4


def test_random_n_draws_every_set_of_words_equally_often() -> None:
    n = 2800
    drawn = slots_of(RandomN().refine(_unseen(make_episodes(n, n_words=8), n_edits=2)))
    counts = Counter(tuple(sorted(slots)) for slots in drawn)
    assert stats.chisquare([counts[pair] for pair in combinations(range(8), 2)]).pvalue > 1e-3
    assert stats.chisquare(np.bincount([slots[0] for slots in drawn])).pvalue > 1e-3  # the order is random too


def test_random_p_keeps_words_with_its_probability_and_never_deletes_too_much() -> None:
    n, episodes = 500, make_episodes(500, n_words=12)
    agent = RandomP(RandomP.Config(keep=(0.75,)))
    deleted = [len(slots) for slots in agent.refine(_unseen(episodes, n_edits=12))]
    assert stats.binomtest(sum(deleted), n * 12, 0.25).pvalue > 1e-3
    capped = [len(slots) for slots in agent.refine(_unseen(episodes, n_edits=3))]
    assert capped == np.minimum(deleted, 3).tolist()


@pytest.mark.parametrize(("n_marked", "best"), [(12, 0.5), (0, 0.9)])
def test_random_p_finds_the_probability_that_pays(n_marked: int, best: float) -> None:
    problem = _problem(make_episodes(30, n_words=12, n_marked=n_marked), limit=240, n_edits=12)
    agent = RandomP(RandomP.Config(keep=(0.9, 0.5, 0.7)))
    agent.fit(problem)
    assert agent.keep == best
    assert problem.reward.calls >= 180  # all patients were asked, and each draw was paid for once


def test_random_p_takes_the_middle_one_where_the_budget_pays_for_too_few_patients() -> None:
    problem = _problem(make_episodes(30, n_marked=0), limit=8 * 4 - 1)
    agent = RandomP(RandomP.Config(keep=(0.9, 0.5, 0.7)))
    agent.fit(problem)
    assert (agent.keep, problem.reward.calls) == (0.7, 0)


def test_a_random_p_without_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match="give probabilities"):
        RandomP.Config(keep=(0.5, 1.5))


@pytest.mark.parametrize("agent", TASK_AGENTS)
def test_a_task_search_finds_the_words_that_are_marked_everywhere(agent: type[Agent]) -> None:
    fitted = agent()
    fitted.fit(_problem(make_episodes(40), 1000))
    unseen = make_episodes(20, seed=5)
    assert _value(fitted.refine(_unseen(unseen)), _problem(unseen)) > 0.05  # random: -.04, all marked words: .3


@pytest.mark.parametrize("agent", TASK_AGENTS)
def test_on_pmlm_lite_600_calls_of_task_search_beat_random_deletion(agent: type[Agent]) -> None:
    episodes = lite_episodes()
    train, test = episodes.of("train"), episodes.of("test")
    meter = MeteredReward(LiteReward(train), 600)
    judge = Problem(test, HashedEncoder(), MeteredReward(LiteReward(test)), 10)
    values = []
    for fitted in (agent(), RandomN()):
        fitted.fit(Problem(train, HashedEncoder(), meter, 10))
        values.append(_value(fitted.refine(Problem(blind(test), HashedEncoder(), None, 10)), judge))
    assert 500 < meter.calls <= 600
    assert values[0] > 0.05
    assert values[1] < 0


def test_of_a_task_s_words_the_first_in_a_prompt_go_up_to_the_edit_budget() -> None:
    agent = TaskGrips()
    episodes = make_episodes(4)
    agent.keys = frozenset(("peer", word) for word in episodes[0].words)
    peers = [slot for slot, role in enumerate(episodes[0].roles) if role == "peer"]
    assert slots_of(agent.refine(_unseen(episodes, n_edits=2)))[0] == tuple(peers[:2])


def test_where_no_set_of_words_does_good_a_task_search_deletes_nothing() -> None:
    agent = TaskGrips()
    agent.fit(_problem(make_episodes(20, n_marked=0), 600))
    assert agent.keys == frozenset()


def test_a_task_search_keeps_no_word_that_only_two_training_prompts_have() -> None:
    """Deleting it pays, as the search finds; but what is learned may be published."""
    episodes = list(make_episodes(40, n_marked=0))
    for i in range(40):
        words = list(episodes[i].words)
        words[0] = "often*"
        if i in (0, 1):
            words[1] = "Mrs.Doe*"
        episodes[i] = replace(episodes[i], words=tuple(words))
    keys = set()
    for seed in range(20):
        problem = _problem(EpisodeSet(episodes), 400)
        agent = TaskGrips(seed=seed)
        agent.fit(problem)
        keys |= {word for _, word in agent.keys}
    assert "often*" in keys
    assert "Mrs.Doe*" not in keys


def _value(edits: Edits, problem: Problem) -> float:
    index = list(range(len(edits)))
    kept = problem.batch(index).kept
    for row, slots in zip(kept, slots_of(edits), strict=True):
        row[list(slots)] = False
    return float(problem.judge(index, kept).delta.mean())
