"""Q-learning. Random play returns .075 (.15 with decoys), the best deletions .3.

Comments in parentheses give the range over three seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from agents.base import Edits
from agents.policies.distributions import MaskedCategorical
from agents.q_learning.agent import DoubleDQN, QAgent, SoftQ
from agents.q_learning.config import DoubleDQNConfig, QConfig, SoftQConfig
from agents.q_learning.replay import Replay
from pmlm_env.llm import BudgetExceededError
from tests.problems import BEST, N_EDITS, ShuffledReward, make_problem, mean_return, slots_of

pytestmark = pytest.mark.once

KINDS = [DoubleDQN, SoftQ]


def _agent(kind: type[QAgent], seed: int = 0, **more: Any) -> QAgent:
    few = {"hidden": 32, "learning_rate": 3e-3, "gradient_steps": 4, "batch_size": 24}
    few |= {"n_step": N_EDITS} if kind is DoubleDQN else {}
    return kind(kind.Config(**{**few, **more}), seed)


def _learned(agent: QAgent, reward: Callable[..., Any] | None = None, *, decoys: bool = True) -> float:
    """Mean return on other prompts than those of training."""
    with suppress(BudgetExceededError):
        agent.fit(make_problem(300, n=16, reward=reward, decoys=decoys))
    unseen = make_problem(n=16, seed=99, judged=False, decoys=decoys)
    return mean_return(unseen, agent.refine(unseen))


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_which_words_to_delete(kind: type[QAgent]) -> None:
    assert _learned(_agent(kind)) >= 0.8 * BEST  # (.90 to .98 of it)


@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_the_mask_to_tell_words_that_may_go_from_words_that_may_not(
    kind: type[QAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmasked(scores: torch.Tensor, legal: torch.Tensor) -> MaskedCategorical:
        return MaskedCategorical(scores, torch.ones_like(legal))

    monkeypatch.setattr("agents.q_learning.agent.MaskedCategorical", unmasked)
    assert _learned(_agent(kind)) < 0.7 * BEST  # (.35 to .50)


@pytest.mark.parametrize("kind", KINDS)
def test_from_rewards_of_other_prompts_it_learns_nothing(kind: type[QAgent]) -> None:
    assert _learned(_agent(kind), reward=ShuffledReward, decoys=False) < 0.7 * BEST  # (.06 to .52)


def test_one_step_targets_with_masked_double_q_learn_it_too() -> None:
    assert _learned(_agent(DoubleDQN, n_step=1, target_rate=0.1)) >= 0.8 * BEST  # (.88 to .90)


@pytest.mark.parametrize("kind", KINDS)
def test_it_stops_at_the_budget_and_can_refine_before_and_after(kind: type[QAgent]) -> None:
    problem, blind = make_problem(limit=50, n=16), make_problem(judged=False)
    agent = _agent(kind)
    before = agent.refine(blind)
    with pytest.raises(BudgetExceededError):
        agent.fit(problem)
    assert 50 - 2 * agent.config.rows < problem.reward.calls <= 50
    after = agent.refine(blind)
    assert after != before
    for edits in (before, after):
        assert [len(set(slots)) for slots in slots_of(edits)] == [N_EDITS] * len(blind.episodes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_edits_whatever_the_global_generators_hold(kind: type[QAgent]) -> None:
    runs: list[Edits] = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)
        agent = _agent(kind, seed=3)
        with suppress(BudgetExceededError):
            agent.fit(make_problem(40))
        runs.append(agent.refine(make_problem(judged=False)))
    assert runs[0] == runs[1]


def test_the_replay_shows_what_the_env_showed() -> None:
    problem = make_problem(decoys=True)
    env = problem.env(2)
    replay = Replay(env.task)
    seen = [env.reset(options={"episode": np.array([1, 4])})[0]]
    slots = []
    for _ in range(N_EDITS):
        slots.append(seen[-1]["action_mask"].argmax(dim=1).numpy())
        seen.append(env.step(slots[-1])[0])
    for row, episode in enumerate((1, 4)):
        replay.add(episode, tuple(int(step[row]) for step in slots), 0.5)
    for t in range(N_EDITS):
        again = replay.observe(np.array([0, 1]), np.array([t, t]))
        assert all(torch.equal(again[key], seen[t][key]) for key in seen[t])
        assert replay.slots(np.array([0, 1]), np.array([t, t])).tolist() == slots[t].tolist()


def test_a_reward_counts_in_standard_deviations_from_the_same_patients_mean() -> None:
    replay = Replay(make_problem().env(1).task)
    for episode, reward in [(0, 1.0), (0, 3.0), (1, 7.0), (2, 5.0), (2, 5.0)]:
        replay.add(episode, (0,), reward)
    assert replay.returns(np.arange(5)).tolist() == [-1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("config", "wrong", "message"),
    [
        (QConfig, {"rows": 6}, "multiple of rollouts"),
        (QConfig, {"hidden": 5_000}, "hidden is 5000: use 1 to 4,096"),
        (QConfig, {"target_rate": 0.0}, "target_rate above 0"),
        (QConfig, {"learning_rate": math.inf}, "learning_rate must be above 0 and finite"),
        (QConfig, {"clip_norm": math.nan}, "clip_norm above 0"),
        (DoubleDQNConfig, {"n_step": 0}, "must be 1 or more"),
        (DoubleDQNConfig, {"exploration": 1.5}, "must be from 0 to 1"),
        (SoftQConfig, {"q_temperature": 0.0}, "q_temperature is 0.0: use a number above 0"),
        (SoftQConfig, {"rollouts": 3}, "multiple of rollouts"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config: type[QConfig], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**wrong)


@pytest.mark.parametrize(("n_step", "same"), [(N_EDITS, True), (1, False)])
def test_the_target_network_plays_no_part_where_all_targets_are_returns(n_step: int, same: bool) -> None:
    weights = []
    for target_rate in (0.01, 1.0):
        agent = DoubleDQN(DoubleDQNConfig(hidden=8, n_step=n_step, target_rate=target_rate))
        with suppress(BudgetExceededError):
            agent.fit(make_problem(60))
        assert agent.policy is not None
        weights.append(torch.cat([weight.flatten() for weight in agent.policy.parameters()]))
    assert torch.equal(*weights) is same


def test_neither_agent_has_a_setting_of_the_other() -> None:
    shared = set(QConfig.__dataclass_fields__)
    assert set(DoubleDQNConfig.__dataclass_fields__) - shared == {"n_step", "epsilon", "final_epsilon", "exploration"}
    assert set(SoftQConfig.__dataclass_fields__) - shared == {"q_temperature"}


def test_it_refines_by_what_it_learned_however_much_it_explored() -> None:
    assert _learned(_agent(DoubleDQN, final_epsilon=1.0)) >= 0.8 * BEST
