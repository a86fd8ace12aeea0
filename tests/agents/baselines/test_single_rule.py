"""SingleRule, on patients for whom the best single rule is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from agents.baselines.deletions import kept_after
from agents.baselines.single_rule import RolePlace, SingleRule, role_places
from agents.problem import BudgetSpentError, MeteredReward, Problem, blind
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes
from tests.problems import slots_of
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

PENALTY = 0.05


def _planted(places: Sequence[RolePlace], n: int = 30, seed: int = 0) -> EpisodeSet:
    """Prompts that all have marked words at the same places and nowhere else."""
    episodes = []
    for episode in make_episodes(n, n_marked=0, seed=seed):
        where = role_places(episode.roles)
        words = tuple(f"mark{slot}*" if where[slot] in places else word for slot, word in enumerate(episode.words))
        episodes.append(replace(episode, words=words))
    return EpisodeSet(episodes)


def _problem(
    episodes: EpisodeSet, limit: int, per_prompt: int = 1, protect: Sequence[str] = (), n_edits: int = 3
) -> Problem:
    meter = MeteredReward(MarkedWordsReward(episodes, PENALTY), limit, per_prompt)
    return Problem(episodes, HashEncoder(), meter, n_edits, protect=protect)


def _fitted(problem: Problem, seed: int = 0) -> SingleRule:
    rule = SingleRule(seed=seed)
    rule.fit(problem)
    return rule


def test_words_are_named_by_role_and_place_within_it() -> None:
    roles = ("background", "self", "self", "peer", "self", "background")
    places = [("background", 0), ("self", 0), ("self", 1), ("peer", 0), ("self", 2), ("background", 1)]
    assert role_places(roles) == places


@pytest.mark.parametrize(
    "places",
    [{("peer", 1)}, {("background", 0), ("peer", 2), ("instruction", 1)}],
    ids=lambda places: f"{len(places)} places",
)
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_places_that_are_best_for_everybody(places: set[RolePlace], seed: int) -> None:
    rule = _fitted(_problem(_planted(places, seed=seed), 300), seed)
    assert set(rule.rule) == places
    unseen = _planted(places, 10, seed=9)
    for episode, slots in zip(
        unseen, slots_of(rule.refine(Problem(blind(unseen), HashEncoder(), None, 3))), strict=True
    ):
        assert {slot for slot, word in enumerate(episode.words) if "*" in word} == set(slots)


def test_it_is_the_rule_of_brute_force_where_patients_differ() -> None:
    """Two patients of three have a word worth deleting in one place, one of three in another."""
    common, rare = ("self", 1), ("instruction", 0)
    mixed = EpisodeSet([(_planted([rare]) if i % 3 == 0 else _planted([common]))[i] for i in range(30)])
    assert _fitted(_problem(mixed, 600)).rule == (common,)  # 2/3 * .1 - 1/3 * .05 > 0 = 1/3 * .1 - 2/3 * .05


@pytest.mark.parametrize("limit", [0, 1, 2, 5, 30, 300])
@pytest.mark.parametrize("per_prompt", [1, 3])
def test_a_limit_is_never_overshot_and_never_run_into(limit: int, per_prompt: int) -> None:
    problem = _problem(_planted([("peer", 1)]), limit, per_prompt)
    try:
        _fitted(problem)
    except BudgetSpentError:
        pytest.fail("it asked for more than there was")
    assert problem.reward.calls <= limit
    assert limit < 30 or problem.reward.calls > 0.8 * limit


def test_where_every_deletion_harms_nothing_is_deleted() -> None:
    problem = _problem(make_episodes(30, n_marked=0), 300)
    rule = _fitted(problem)
    assert rule.rule == ()
    assert rule.refine(problem) == [()] * 30
    assert problem.reward.calls > 200  # it did search


def test_before_it_is_fitted_nothing_is_deleted() -> None:
    assert SingleRule().refine(_problem(make_episodes(4), 0)) == [()] * 4


def test_the_same_seed_finds_the_same_rule_and_fitting_anew_forgets() -> None:
    episodes = make_episodes(30)  # random places: the rule depends on the patients sampled
    first, second = (_fitted(_problem(episodes, 120), seed=4) for _ in range(2))
    assert first.rule == second.rule
    second.fit(_problem(make_episodes(30, n_marked=0), 120))
    assert second.rule == ()
    assert len({_fitted(_problem(episodes, 120), seed).rule for seed in range(6)}) > 1


def test_a_protected_word_never_goes() -> None:
    places = {("peer", 1), ("self", 0)}
    problem = _problem(_planted(places), 300, protect=("peer",))
    rule = _fitted(problem)
    assert set(rule.rule) == {("self", 0)}
    rule.rule = (("peer", 1), ("self", 0))  # as if found when the role was not protected
    assert slots_of(rule.refine(problem)) == [(3,)] * 30


def test_a_prompt_without_the_place_loses_nothing_and_none_loses_more_than_the_edit_budget() -> None:
    short = replace(make_episodes(1)[0], words=("a", "b", "c"), roles=("background", "self", "instruction"))
    episodes = EpisodeSet([make_episodes(1)[0], short])
    rule = SingleRule()
    rule.rule = (("peer", 2),)
    assert slots_of(rule.refine(Problem(episodes, HashEncoder(), None, 3))) == [(8,), ()]
    rule.rule = (("peer", 2), ("self", 0), ("instruction", 0))
    assert slots_of(rule.refine(Problem(episodes, HashEncoder(), None, 2))) == [(8, 3), (1, 2)]


def test_on_lite_it_is_better_than_nothing_and_the_same_for_everybody_who_has_the_places() -> None:
    episodes = lite_episodes()
    train, test = episodes.of("train"), episodes.of("test")
    rule = _fitted(Problem(train, HashedEncoder(), MeteredReward(LiteReward(train), 600), 10))
    judge = Problem(test, HashedEncoder(), MeteredReward(LiteReward(test)), 10)
    slots = slots_of(rule.refine(Problem(blind(test), HashedEncoder(), None, 10)))
    everyone = np.arange(len(test))
    assert judge.judge(everyone.tolist(), kept_after(judge, everyone, slots)).delta.mean() > 0
    for episode, own in zip(test, slots, strict=True):
        places = role_places(episode.roles)
        assert {places[slot] for slot in own} == set(places) & set(rule.rule)


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"judged": 1.0}, {"judged": 0.0}, {"penalty": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more, judged between 0 and 1"):
        SingleRule.Config(**wrong)
