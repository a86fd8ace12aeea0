"""TreeSurrogate, where the best deletions are known, and the arrays that its trees are kept in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from agents.base import Agent
from agents.baselines.config import TreeSurrogateConfig
from agents.baselines.forest import Forest
from agents.baselines.surrogate import Surrogate
from agents.baselines.tree_surrogate import TreeSurrogate, prompt_facts
from agents.benchmark.patients import LitePatients
from agents.policies.lexicon import Lexicon
from agents.problem import BudgetSpentError, MeteredReward, Problem
from agents.registry import load
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.outcomes import Outcomes
from tests.problems import make_problem, slots_of
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

#: The change of the score, of an episode and the words that are left.
Delta: TypeAlias = Callable[[Episode, set[str]], float]

SMALL = {"members": 3, "trees": 40, "depth": 3}


class Reward:
    """A delta that is a function of an episode and of which of its words are left; some patients get no reply."""

    def __init__(self, episodes: EpisodeSet, delta: Delta, failing: Sequence[int] = ()) -> None:
        self.episodes, self.delta, self.failing = episodes, delta, failing
        self.asked: list[tuple[int, str]] = []

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        self.asked += zip(indices, prompts, strict=True)
        deltas = [self.delta(self.episodes[i], set(p.split())) for i, p in zip(indices, prompts, strict=True)]
        errors = ["no reply" if i in self.failing else "" for i in indices]
        return Outcomes(np.array(deltas), np.zeros(len(deltas)), np.zeros(len(deltas), dtype=np.int64), errors=errors)


def _episodes(n: int = 40) -> EpisodeSet:
    """Prompts of two kinds of patients, in which a pair of words stands in the same place among four others."""
    episodes = []
    for i, episode in enumerate(make_episodes(n, 6, n_marked=0)):
        words = ("first", *(f"other{slot}" for slot in range(4)), "second")
        label = "gout" if i % 2 else "anemia"
        episodes.append(replace(episode, words=words, predicted=label, peers=(label,) * 3))
    return EpisodeSet(episodes)


def _others_gone(left: set[str]) -> float:
    """What the deletion of other words than the pair costs."""
    return 0.02 * (4 - len(left - {"first", "second"}))


def _fitted(episodes: EpisodeSet, delta: Delta, limit: int = 400, n_edits: int = 2, **settings: Any) -> TreeSurrogate:
    agent = TreeSurrogate(TreeSurrogateConfig(**{**SMALL, **settings}))
    agent.fit(Problem(episodes, HashEncoder(), MeteredReward(Reward(episodes, delta), limit), n_edits))
    return agent


def _deleted(agent: Agent, episodes: EpisodeSet, n_edits: int = 2) -> list[set[str]]:
    problem = Problem(episodes, HashEncoder(), None, n_edits)
    slots = slots_of(agent.refine(problem))
    return [{episode.words[slot] for slot in own} for episode, own in zip(episodes, slots, strict=True)]


@pytest.mark.parametrize(("depth", "room"), [(3, 3), (2, 4)])
def test_the_arrays_predict_what_the_model_of_scikit_learn_predicts(depth: int, room: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, size=(5000, 6)).astype(np.float32)
    target = rows[:, 0] * rows[:, 1] - 3 * (rows[:, 2] > 1) + rng.normal(size=len(rows)) + 7
    model = GradientBoostingRegressor(n_estimators=30, max_depth=depth, min_samples_leaf=200, random_state=0)
    model.fit(rows[:2000], target[:2000])
    forest = Forest.of(model, room)
    assert forest.value.shape == (30, 2**room)
    np.testing.assert_allclose(forest(rows), model.predict(rows), rtol=1e-5)


def test_trees_that_were_not_fitted_predict_nothing_and_the_agent_keeps_all_words() -> None:
    assert not Forest.empty(3, 2)(np.full((4, 5), 9, dtype=np.float32)).any()
    assert _deleted(TreeSurrogate(), _episodes(6)) == [set()] * 6


def test_it_deletes_two_words_that_help_only_together() -> None:
    def delta(_: Episode, left: set[str]) -> float:
        together = not {"first", "second"} & left
        return 0.3 * together - _others_gone(left)

    episodes = _episodes()
    agent = _fitted(episodes, delta, caution=0.0)
    assert _deleted(agent, episodes) == [{"first", "second"}] * len(episodes)


def test_it_deletes_a_word_only_for_the_patients_whom_it_helps() -> None:
    def delta(episode: Episode, left: set[str]) -> float:
        gain = 0.2 if episode.predicted == "gout" else -0.2
        return (0.0 if "first" in left else gain) - _others_gone(left)

    episodes = _episodes()
    agent = _fitted(episodes, delta, n_edits=1)
    wanted = [{"first"} if episode.predicted == "gout" else set() for episode in episodes]
    assert _deleted(agent, episodes, 1) == wanted
    linear = Surrogate()
    with suppress(BudgetSpentError):
        linear.fit(Problem(episodes, HashEncoder(), MeteredReward(Reward(episodes, delta), 400), 1))
    assert _deleted(linear, episodes, 1) != wanted


def test_a_deletion_that_the_models_disagree_on_is_left_out_by_caution() -> None:
    episodes = _episodes(4)
    for caution, wanted in ((0.0, {"first"}), (0.4, {"first"}), (0.6, set())):
        agent = TreeSurrogate(TreeSurrogateConfig(members=2, trees=1, depth=1, refits=1, caution=caution))
        agent.lexicon = Lexicon.of(episodes)
        agent.labels = ("anemia", "gout")
        (column,) = {*agent.lexicon.ids(episodes, 6)[:, 0, 0].tolist()}
        agent.forests = [
            Forest(np.full((1, 1), column), np.full((1, 1), 0.5, dtype=np.float32), np.array([[0, gain]], np.float32))
            for gain in (3, -1)  # 1 on average, with a standard deviation of 2
        ]
        assert _deleted(agent, episodes, 1) == [wanted] * 4


def test_what_helps_a_few_is_tried_for_the_others() -> None:
    episodes = _episodes()
    reward = Reward(episodes, lambda _, left: 0.3 * (not {"first", "second"} & left) - _others_gone(left))
    TreeSurrogate(TreeSurrogateConfig(**SMALL)).fit(Problem(episodes, HashEncoder(), MeteredReward(reward, 400), 2))
    helped = {i for i, prompt in reward.asked if not {"first", "second"} & set(prompt.split())}
    assert len(helped) > 0.9 * len(episodes)  # random deletions would find the pair for a third of them


def test_each_model_learns_from_other_patients() -> None:
    episodes = EpisodeSet([replace(episode, predicted="gout", peers=("gout",) * 3) for episode in _episodes(12)])
    agent = _fitted(episodes, lambda episode, _: 0.1 * (int(episode.patient_id[1:]) % 2))
    whole = np.zeros((1, 100), dtype=np.float32)
    assert np.std([forest(whole)[0] for forest in agent.forests]) > 0.5


def test_it_deletes_a_word_by_its_place_where_each_prompt_has_words_of_its_own() -> None:
    def own(episodes: EpisodeSet) -> EpisodeSet:
        words = [tuple(f"{episode.patient_id}-{slot}" for slot in range(6)) for episode in episodes]
        return EpisodeSet([replace(each, words=those) for each, those in zip(episodes, words, strict=True)])

    def delta(_: Episode, left: set[str]) -> float:
        places = {word[-1] for word in left}
        return 0.2 * (("0" not in places) - ("1" not in places)) - 0.02 * (4 - len(places & {*"2345"}))

    episodes = own(_episodes(44))
    agent = _fitted(own(_episodes(40)), delta, n_edits=1)
    assert _deleted(agent, episodes, 1) == [{episode.words[0]} for episode in episodes]


def test_it_deletes_a_word_wherever_it_stands() -> None:
    rng = np.random.default_rng(0)
    episodes = EpisodeSet(
        [replace(each, words=tuple(rng.permutation(each.words).tolist()), roles=("self",) * 6) for each in _episodes()]
    )
    agent = _fitted(episodes, lambda _, left: 0.2 * ("first" not in left) - _others_gone(left), n_edits=1)
    assert _deleted(agent, episodes, 1) == [{"first"}] * len(episodes)


def test_what_a_prompt_says_of_the_patient() -> None:
    episode = replace(make_episodes(1, 6)[0], predicted="gout", peers=("gout", "anemia", "gout", "scar"))
    assert prompt_facts(episode, ("anemia", "gout")) == (1, 6, 3, 2, 1)
    assert prompt_facts(replace(episode, predicted="scar"), ("anemia", "gout")) == (-1, 6, 3, 2, 0)
    assert prompt_facts(replace(episode, peers=()), ("gout",)) == (0, 6, 0, 0, 0)


def test_where_every_deletion_does_harm_it_keeps_all_words() -> None:
    episodes = _episodes()
    agent = _fitted(episodes, lambda _, left: -0.01 * (6 - len(left)))
    assert _deleted(agent, episodes) == [set()] * len(episodes)


def test_it_finds_more_than_a_linear_surrogate_with_few_calls() -> None:
    patients = LitePatients("validation")
    found = {kind: patients.deltas(kind(), 300).mean() for kind in (TreeSurrogate, Surrogate)}
    assert found[TreeSurrogate] > found[Surrogate] + 0.05


@pytest.mark.parametrize("limit", [1, 7, 60, 131])
@pytest.mark.parametrize("per_prompt", [1, 3])
def test_it_spends_its_budget_and_no_more(limit: int, per_prompt: int) -> None:
    episodes = make_episodes(12)
    meter = MeteredReward(MarkedWordsReward(episodes), limit, per_prompt)
    TreeSurrogate(TreeSurrogateConfig(**SMALL)).fit(Problem(episodes, HashEncoder(), meter, 3))
    assert limit - 2 * per_prompt < meter.calls <= limit


def test_prompts_without_a_reply_are_left_out() -> None:
    episodes = _episodes()
    agent = TreeSurrogate(TreeSurrogateConfig(**SMALL))
    reward = Reward(episodes, lambda _, left: ("first" not in left) - _others_gone(left), failing=range(0, 40, 3))
    agent.fit(Problem(episodes, HashEncoder(), MeteredReward(reward, 300), 1))
    assert _deleted(agent, episodes, 1) == [{"first"}] * len(episodes)
    every = TreeSurrogate(TreeSurrogateConfig(**SMALL))
    every.fit(Problem(episodes, HashEncoder(), MeteredReward(Reward(episodes, lambda *_: 0.1, range(40)), 300), 1))
    assert _deleted(every, episodes, 1) == [set()] * len(episodes)


def test_an_error_is_not_learned_as_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: set[int] = set()

    def fitted(agent: TreeSurrogate, samples: Sequence[Any], member: int, turn: int) -> Forest:
        learned.update(sample.patient for sample in samples)
        return agent.forests[member]

    monkeypatch.setattr(TreeSurrogate, "_fitted", fitted)
    episodes, failing = _episodes(), range(0, 40, 3)
    reward = Reward(episodes, lambda _, left: -_others_gone(left), failing)
    TreeSurrogate(TreeSurrogateConfig(**SMALL)).fit(Problem(episodes, HashEncoder(), MeteredReward(reward, 300), 1))
    assert {i for i, _ in reward.asked} == {*range(40)}
    assert learned == {*range(40)} - {*failing}


def test_where_nothing_may_be_deleted_nothing_is() -> None:
    episodes = _episodes(6)
    agent = _fitted(episodes, lambda *_: 0.0, limit=60, n_edits=0)
    assert _deleted(agent, episodes, 0) == [set()] * 6


def test_it_makes_no_difference_how_many_prompts_are_searched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for n in (256, 7):
        monkeypatch.setattr("agents.baselines.tree_surrogate._PROMPTS", n)
        agent = TreeSurrogate(TreeSurrogateConfig(**SMALL))
        agent.fit(make_problem(200, n=16))
        found.append(slots_of(agent.refine(make_problem(n=16, seed=5, judged=False))))
    assert found[0] == found[1]
    assert any(found[0])


def test_the_same_seed_does_the_same_and_a_saved_agent_edits_alike(tmp_path: Path) -> None:
    agents = []
    for seed in (0, 0, 1):
        agent = TreeSurrogate(TreeSurrogateConfig(**SMALL), seed)
        agent.fit(make_problem(200, n=16))
        agents.append(agent)
    arrays = [np.array([forest.value for forest in agent.forests]) for agent in agents]
    assert np.array_equal(arrays[0], arrays[1])
    assert not np.array_equal(arrays[0], arrays[2])
    unseen = make_problem(n=16, seed=5, judged=False)
    agents[0].save(tmp_path)
    assert load(tmp_path).refine(unseen) == agents[0].refine(unseen)
    assert any(agents[0].refine(unseen))
    assert {*agents[0].labels} <= {*agents[0].words()}  # whoever publishes it is shown them


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rounds": 0}, "rounds is 0: use a whole number from 1 to 1,000"),
        ({"depth": 9}, "depth is 9: use a whole number from 1 to 8"),
        ({"refits": 11}, "refits is 11: use a whole number from 1 to 10"),
        ({"explored": 0.0}, "explored is 0.0: use a number above 0 and at most 1"),
        ({"caution": -1.0}, "caution is -1.0: use a number of 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TreeSurrogateConfig(**setting)
