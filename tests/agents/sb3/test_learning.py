"""Tests that agents learn. Random play returns about -.01, the best deletions .43.

Each margin is well below the worst of eight seeds (range in parentheses), so that a failure means a bug, not bad luck:
on another machine the same seed gives different random numbers.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

from agents.problem import BudgetSpentError, MeteredReward, Problem
from agents.registry import make, settings_of
from agents.sb3 import MaskableWordActorCriticPolicy, PMLMVecEnv, WordActorCriticPolicy
from pmlm_env import PMLMLiteEnv, PMLMLiteVectorEnv
from pmlm_env.core.edits import EditRules
from pmlm_env.core.protection import editable_words
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes, lite_task
from tests.scripts import load_script

_N_ENVS, _N_EDITS = 16, 4
_PPO: dict[str, Any] = {"n_steps": 16, "batch_size": 64, "n_epochs": 4, "learning_rate": 3e-3, "gae_lambda": 0.9}
_A2C: dict[str, Any] = {
    "n_steps": 4,
    "learning_rate": 3e-3,
    "gae_lambda": 0.9,
    "use_rms_prop": False,
    "normalize_advantage": True,
}


@cache
def _options(max_words: int | None) -> dict[str, Any]:
    return {"task": lite_task(lite_episodes({"train": 32}), EditRules(_N_EDITS, max_words))}


def _scalar(max_words: int | None = None) -> VecEnv:
    return VecMonitor(DummyVecEnv([lambda: PMLMLiteEnv(**_options(max_words))] * _N_ENVS))


def _native(max_words: int | None = None) -> VecEnv:
    return VecMonitor(PMLMVecEnv(PMLMLiteVectorEnv(_N_ENVS, **_options(max_words))))


@cache
def _random_return() -> float:
    env, rng = PMLMLiteVectorEnv(_N_ENVS, **_options(None)), np.random.default_rng(0)
    env.reset(seed=0)
    rewards = []
    for _ in range(50 * _N_EDITS):
        masks = env.action_masks()
        _, reward, terminated, *_ = env.step((rng.random(masks.shape) * masks).argmax(axis=1))
        rewards += reward[terminated].tolist()
    return float(np.mean(rewards))


def _learned_return(
    algorithm: type, policy: type, env: VecEnv, steps: int, settings: dict[str, Any], seed: int = 1
) -> float:
    """Train, then play 320 episodes: with masks where they are known, greedily where nothing else is learned."""
    small = {"features_extractor_kwargs": {"width": 16, "hidden": 32}}
    model = algorithm(policy, env, gamma=1.0, policy_kwargs=small, seed=seed, device="cpu", **settings)
    model.learn(steps)
    env.seed(0)
    evaluate = evaluate_masked if algorithm is MaskablePPO else evaluate_policy
    return float(evaluate(model, env, n_eval_episodes=320, deterministic=False)[0])


@pytest.mark.parametrize("make", [_native, pytest.param(_scalar, marks=pytest.mark.once)])
def test_masked_ppo_learns_faster_than_unmasked_and_that_one_than_nothing(make: Any) -> None:
    # Prompts of at most 49 words in 128 slots: two out of three actions are illegal.
    masked = _learned_return(MaskablePPO, MaskableWordActorCriticPolicy, make(128), 6_000, _PPO)
    unmasked = _learned_return(PPO, WordActorCriticPolicy, make(128), 6_000, _PPO)
    assert masked > _random_return() + 0.18  # (.26 to .30)
    assert unmasked > _random_return() + 0.07  # (.14 to .20)
    assert masked > unmasked + 0.03  # (worst masked seed minus best unmasked seed: .06)


def test_a2c_learns() -> None:
    learned = _learned_return(A2C, WordActorCriticPolicy, _native(), 16_000, _A2C)
    assert learned > _random_return() + 0.15  # (.25 to .31)


@pytest.mark.once
def test_the_cleanrl_example_learns(capsys: pytest.CaptureFixture[str]) -> None:
    example = load_script(Path(__file__).parents[3] / "examples" / "cleanrl_ppo.py")
    means = example.train(example.Args(n_edits=_N_EDITS, total_steps=12_000, num_envs=16, num_steps=16, hidden=32))
    assert np.mean(means[-8:]) > _random_return() + 0.12  # (.21 to .31)
    assert capsys.readouterr().out.count("reward") == len(means)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("maskable-ppo", {"ent_coef": -0.01}, "ent_coef is -0.01: use a number of 0 or more"),
        ("a2c", {"ent_coef": math.nan}, "ent_coef is nan: use a number of 0 or more"),
        ("ppo", {"learning_rate": math.inf}, "learning_rate above 0 and finite"),
        ("dqn", {"learning_rate": math.nan}, "learning_rate above 0 and finite"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(name, changes=wrong)


@pytest.mark.parametrize("name", ["ppo", "maskable-ppo", "a2c"])
def test_an_update_of_fewer_than_two_steps_is_refused_in_one_line(name: str) -> None:
    train = lite_episodes({"train": 4})
    for n_edits in (0, 1):
        problem = Problem(train, HashedEncoder(), MeteredReward(LiteReward(train), 20), n_edits, train.max_words)
        message = f"^an update of {name} has fewer than two steps: raise --rows, --row-episodes or --n-edits$"
        with pytest.raises(ValueError, match=message):
            make(name, settings_of(name, "lite", {"rows": 1, "row_episodes": 1})).fit(problem)
    with suppress(BudgetSpentError):
        make(name, settings_of(name, "lite", {"rows": 2, "row_episodes": 1})).fit(problem)
    assert problem.reward.calls > len(train)


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_exploration_ends_after_a_fraction_of_the_episodes_that_the_budget_pays_for_without_initial_prompts(
    fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, rates = lite_episodes({"train": 20}), dict[int, float]()
    problem = Problem(train, HashedEncoder(), MeteredReward(LiteReward(train), 80), 10)
    on_step = DQN._on_step

    def noted(self: DQN) -> None:
        on_step(self)
        rates[self.num_timesteps] = self.exploration_rate

    monkeypatch.setattr(DQN, "_on_step", noted)
    settings = {"rows": 2, "learning_starts": 1_000, "exploration_fraction": fraction}
    with suppress(BudgetSpentError):
        make("dqn", settings_of("dqn", "lite", settings)).fit(problem)
    over = 80 * fraction * 10  # steps
    assert rates[round(over / 2)] == pytest.approx((1 + 0.05) / 2)
    assert max(rate for step, rate in rates.items() if step >= over) == pytest.approx(0.05)


def test_a_last_minibatch_of_one_step_does_not_ruin_maskable_ppo() -> None:
    train = lite_episodes({"train": 4})
    problem = Problem(train, HashedEncoder(), MeteredReward(LiteReward(train), 40), 7, train.max_words)
    agent = make("maskable-ppo", settings_of("maskable-ppo", "lite", {"rows": 3, "row_episodes": 1, "batch_size": 10}))
    with suppress(BudgetSpentError):  # 21 steps an update: 10, 10 and 1, unless a minibatch is larger
        agent.fit(problem)
    assert all(bool(weight.isfinite().all()) for weight in agent.policy.parameters())


@pytest.mark.parametrize(("name", "longest"), [("maskable-ppo", 5), ("ppo", 10)])
def test_an_update_has_the_configured_number_of_the_longest_episodes(
    name: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where few words may be edited, an episode without illegal edits ends before the edit budget is used up."""
    train, steps = lite_episodes({"train": 4}), list[int]()
    protect = ("background", "peer", "instruction")
    assert editable_words(train, protect).sum(axis=1).max() == 5
    problem = Problem(train, HashedEncoder(), MeteredReward(LiteReward(train), 40), 10, protect=protect)
    algorithm = {"ppo": PPO, "maskable-ppo": MaskablePPO}[name]
    monkeypatch.setattr(algorithm, "train", lambda self: steps.append(self.n_steps))
    with suppress(BudgetSpentError):
        make(name, settings_of(name, "lite", {"rows": 2, "row_episodes": 3})).fit(problem)
    assert set(steps) == {3 * longest}
