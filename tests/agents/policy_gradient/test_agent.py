from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.base import Agent
from agents.baselines.surrogate import Surrogate
from agents.policy_gradient.agent import LexiconAgent, NetworkAgent, PolicyGradient
from agents.policy_gradient.config import LexiconConfig, NetworkConfig
from agents.problem import blind
from agents.registry import make, settings_of
from pmlm_env.llm import BudgetExceededError
from tests.problems import BEST, CHANCE, N_EDITS, ShuffledReward, make_problem, mean_return, slots_of

KINDS = ["lexicon", "leave-one-out", "actor-critic", "sparsemax", "surrogate", "reinforce"]
_NETWORK = {"hidden": 64, "learning_rate": 3e-3, "entropy": 0.0, "epochs": 2}
_CHANGES: dict[str, dict[str, Any]] = {
    "lexicon": {"patients": 4},
    "leave-one-out": {**_NETWORK, "patients": 4},
    "actor-critic": {**_NETWORK, "patients": 16},
    "sparsemax": {**_NETWORK, "patients": 4},
    "reinforce": {"hidden": 64},
    "surrogate": {},
}

pytestmark = pytest.mark.once


def _agent(kind: str, seed: int = 0) -> Agent:
    return make(kind, settings_of(kind, changes=_CHANGES[kind]), seed)


def _reached(kind: str, limit: int = 800, reward: Callable[..., Any] | None = None) -> float:
    """Mean return on other prompts than those of training, with words like the marked ones that are protected."""
    problem = make_problem(limit, decoys=True, n=16, reward=reward)
    agent = _agent(kind)
    with suppress(BudgetExceededError):
        agent.fit(problem)
    assert problem.reward.calls <= limit
    unseen = make_problem(judged=False, decoys=True, n=16, seed=5)
    return mean_return(unseen, agent.refine(unseen))


@pytest.mark.parametrize(
    ("kind", "limit", "share"),
    [
        ("lexicon", 800, 0.85),
        ("leave-one-out", 800, 0.9),
        ("actor-critic", 800, 0.8),
        ("sparsemax", 800, 0.8),
        ("surrogate", 800, 0.8),
        ("reinforce", 2500, 0.6),
    ],
)
def test_it_learns_what_to_delete_from_other_prompts(kind: str, limit: int, share: float) -> None:
    reached = _reached(kind, limit)
    assert reached >= share * BEST, reached / BEST


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_learn_where_each_prompt_gets_the_reward_of_another(kind: str) -> None:
    reached = _reached(kind, limit=2500 if kind == "reinforce" else 800, reward=ShuffledReward)
    assert reached < (0.5 if kind == "reinforce" else 0.7) * BEST, reached / BEST


@pytest.mark.parametrize("kind", ["lexicon", "surrogate", "reinforce"])
def test_it_refines_before_it_is_fitted_and_the_same_seed_does_the_same(kind: str) -> None:
    unseen = make_problem(judged=False, seed=5)
    untrained = _agent(kind).refine(unseen)
    assert all(len(set(slots)) == 3 for slots in slots_of(untrained))
    fitted = []
    for _ in range(2):
        agent, problem = _agent(kind), make_problem(100)
        with suppress(BudgetExceededError):
            agent.fit(problem)
        fitted.append(agent.refine(unseen))
    assert fitted[0] == fitted[1]


@pytest.mark.parametrize("config", [LexiconConfig(patients=4), NetworkConfig(patients=4, hidden=8, lexicon=True)])
def test_an_agent_with_a_lexicon_that_knows_no_word_can_be_fitted_and_saved(config: Any, tmp_path: Path) -> None:
    agent = (LexiconAgent if isinstance(config, LexiconConfig) else NetworkAgent)(config)
    with suppress(BudgetExceededError):
        agent.fit(make_problem(60, n=2))
    assert agent.policy is not None
    assert not agent.policy.table.weight.any()
    assert [len(own) for own in agent.refine(make_problem(n=6, judged=False))] == [N_EDITS] * 6
    agent.save(tmp_path)


def _begun(config: NetworkConfig, seed: int = 0) -> PolicyGradient:
    agent = NetworkAgent(config, seed)
    agent.begin(make_problem(10_000, n=16))
    return agent


@pytest.mark.parametrize("baseline", ["leave-one-out", "critic"])
def test_an_agent_that_goes_on_takes_the_updates_that_the_whole_run_takes(baseline: Any) -> None:
    """With regression, critic, optimizers and dropout; another seed shows that nothing comes from elsewhere."""
    config = NetworkConfig(patients=8, hidden=8, dropout=0.2, lexicon=True, baseline=baseline)
    whole, cut, resumed = _begun(config), _begun(config), _begun(config, seed=1)
    for agent in (whole, cut):
        for _ in range(3):
            agent.update()
    resumed.go_on(*cut.progress())
    for _ in range(2):
        assert whole.update() == resumed.update()
    for (name, one), other in zip(whole.policy.named_parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("0.exp_avg", None),
        ("0.exp_avg", torch.zeros(7)),
        ("0.exp_avg", torch.full((4, 16), torch.nan)),
        ("0.step", torch.zeros(4, 16)),
        ("99.step", torch.zeros(())),
        ("evil", torch.zeros(())),
    ],
)
def test_what_an_optimizer_cannot_have_is_an_error(name: str, value: torch.Tensor | None) -> None:
    config = NetworkConfig(patients=2, rollouts=2, hidden=4)
    first = _begun(config)
    first.update()
    values, tensors = first.progress()
    _begun(config).go_on(values, tensors)
    tensors.pop(name, None)
    with pytest.raises((ValueError, KeyError)):
        _begun(config).go_on(values, tensors if value is None else {**tensors, name: value})


def test_the_surrogate_finds_the_coefficients_of_a_linear_reward() -> None:
    problem = make_problem(2_000, n=16)
    agent = Surrogate(Surrogate.Config(penalty=1e-3))
    with suppress(BudgetExceededError):
        agent.fit(problem)
    values = agent.coefficients[agent.lexicon.ids(problem.episodes, problem.max_words)].sum(axis=-1)
    marked = np.array(["*" in word for episode in problem.episodes for word in episode.words])
    gap = values.ravel()[marked].mean() - values.ravel()[~marked].mean()
    assert gap == pytest.approx(0.1, rel=0.25)


def test_held_out_episodes_have_neither_reference_nor_label_and_cannot_be_judged() -> None:
    problem = make_problem(judged=False)
    with pytest.raises(RuntimeError, match="held out"):
        _ = problem.reward
    hidden = blind(problem.episodes)
    assert {(e.reference, e.label) for e in hidden} == {("", "")}
    assert [e.words for e in hidden] == [e.words for e in problem.episodes]
    assert CHANCE < BEST
