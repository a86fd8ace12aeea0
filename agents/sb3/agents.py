"""SB3Agent: the algorithms of Stable-Baselines3 and sb3-contrib, fitted within a budget of completions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sb3_contrib import QRDQN, MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.logger import Logger

from agents.base import Agent, Deletions
from agents.policies.distributions import MaskedCategorical
from agents.policies.greedy import greedy_deletions
from agents.problem import Problem
from agents.sb3.config import SB3Config
from agents.sb3.policies import (
    MaskableWordActorCriticPolicy,
    WordActorCriticPolicy,
    WordDQNPolicy,
    WordQRDQNPolicy,
)
from agents.sb3.vec_env import PMLMVecEnv

_CLASSES: dict[str, tuple[Any, type]] = {
    "ppo": (PPO, WordActorCriticPolicy),
    "a2c": (A2C, WordActorCriticPolicy),
    "dqn": (DQN, WordDQNPolicy),
    "qrdqn": (QRDQN, WordQRDQNPolicy),
    "maskable_ppo": (MaskablePPO, MaskableWordActorCriticPolicy),
}


class SB3Agent(Agent):
    """An algorithm of Stable-Baselines3 with one head for all words.

    To refine, all of them delete the legal word of the greatest logit or Q-value: who deploys them has the mask.
    What draws (Stable-Baselines3 uses Python's, NumPy's and PyTorch's global generators) is seeded by ``seed``, and
    the generators are put back.
    """

    Config = SB3Config
    config: SB3Config
    _policy: Any = None

    def fit(self, problem: Problem) -> None:
        """Learn until the budget is spent; see ``Agent.fit``."""
        meter, limit = problem.reward, problem.reward.limit
        steps = self.config.steps
        if limit is not None:  # every episode asks for a completion at least, unless its prompt was asked about before
            steps = int(meter.left) // meter.per_prompt * problem.n_edits
        whole = max(1.0, meter.left)

        def falling(left: float) -> float:
            return self.config.learning_rate * (left if limit is None else min(left, meter.left / whole))

        with _generators_put_back(problem.encoder.device):
            model = self._model(problem, falling)
            self._policy = model.policy
            model.learn(steps)

    def refine(self, problem: Problem) -> Deletions:
        """Delete the best words in turn; see ``Agent.refine``."""
        policy = self._policy
        if policy is None:  # nothing learnt yet
            with _generators_put_back(problem.encoder.device):
                policy = self._model(problem, lambda _: 0.0).policy
        return greedy_deletions(problem, _Greedy(policy))

    def _model(self, problem: Problem, falling: Callable[[float], float]) -> Any:
        config = self.config
        native = problem.env(
            config.rows, array_type="numpy", autoreset_mode="SameStep", observation=config.observation
        )  # fmt: skip
        features: dict[str, Any] = {
            "width": config.width,
            "hidden": config.hidden,
            "positions": config.positions,
            "normalize": config.normalize,
        }
        if config.observation == "index":
            features["task"] = native.task
        policy_kwargs: dict[str, Any] = {"features_extractor_kwargs": features}
        if config.algorithm == "qrdqn":
            policy_kwargs["n_quantiles"] = config.n_quantiles
        algorithm, policy = _CLASSES[config.algorithm]
        model = algorithm(
            policy, PMLMVecEnv(native), gamma=1.0, seed=self.seed, device=problem.encoder.device,
            policy_kwargs=policy_kwargs, **self._settings(problem.n_edits, falling),
        )  # fmt: skip
        model.set_logger(Logger(folder=None, output_formats=[]))  # its own would make a folder in the temporary one
        return model

    def _settings(self, n_edits: int, falling: Callable[[float], float]) -> dict[str, Any]:
        """Return what only this kind of algorithm takes."""
        config = self.config
        if config.algorithm in ("dqn", "qrdqn"):
            return {
                "learning_rate": config.learning_rate,
                "batch_size": config.batch_size,
                "buffer_size": config.buffer_size,
                "learning_starts": config.learning_starts,
                "train_freq": 1,
                "gradient_steps": config.gradient_steps,
                "target_update_interval": config.target_update_interval,
                "exploration_fraction": config.exploration_fraction,
                "exploration_final_eps": config.exploration_final,
            }
        n_steps = config.episodes * n_edits
        settings: dict[str, Any] = {
            "learning_rate": falling,
            "n_steps": n_steps,
            "gae_lambda": config.gae_lambda,
            "ent_coef": config.ent_coef,
        }
        if config.algorithm == "a2c":
            return {**settings, "use_rms_prop": False, "normalize_advantage": True}
        return {**settings, "batch_size": min(config.batch_size, n_steps * config.rows), "n_epochs": config.n_epochs}


class _Greedy(torch.nn.Module):
    """A Stable-Baselines3 policy as ``play`` takes it."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: dict[str, torch.Tensor]) -> MaskedCategorical:
        """Return the distribution over legal words whose order is that of the policy's scores."""
        return MaskedCategorical(self.policy.scores(observation), observation["action_mask"] != 0)

    def train(self, mode: bool = True) -> _Greedy:
        """Put the policy in train or eval mode, in its own way."""
        self.policy.set_training_mode(mode)
        return self


@contextmanager
def _generators_put_back(device: torch.device) -> Iterator[None]:
    """Leave the global generators as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
