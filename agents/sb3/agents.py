"""The algorithms of Stable-Baselines3 and sb3-contrib as agents, fitted within a budget of completions."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import QRDQN, MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from agents.base import ReadTensors
from agents.policies.agent import PolicyAgent
from agents.policies.distributions import MaskedCategorical
from agents.problem import Problem, Shape
from agents.sb3.config import A2CConfig, DQNConfig, OnPolicyConfig, PPOConfig, QRDQNConfig, SB3Config
from agents.sb3.policies import (
    MaskableWordActorCriticPolicy,
    WordActorCriticPolicy,
    WordDQNPolicy,
    WordQRDQNPolicy,
)
from agents.sb3.vec_env import PMLMVecEnv
from agents.settings import Choices, Floats, Integers, Range
from pmlm_env.core.protection import editable_words

_RATE = Floats(1e-4, 3e-2, log=True)
_ON_POLICY: dict[str, Range] = {
    "learning_rate": _RATE,
    "row_episodes": Choices((1, 2, 4)),
    "ent_coef": Floats(0.0, 0.05),
    "gae_lambda": Floats(0.8, 1.0),
}
_PPO: dict[str, Range] = {**_ON_POLICY, "n_epochs": Integers(1, 16)}
_OFF_POLICY: dict[str, Range] = {
    "learning_rate": _RATE,
    "gradient_steps": Integers(1, 16),
    "learning_starts": Integers(100, 2_000),
    "target_update_interval": Integers(50, 1_000),
    "exploration_fraction": Floats(0.1, 1.0),
}


class SB3Agent(PolicyAgent):
    """An algorithm of Stable-Baselines3 with one head shared by all words.

    When refining, every algorithm chooses the legal word with the greatest logit or Q-value, even if it does not
    support masks. Stable-Baselines3 draws from the global generators of Python, NumPy and PyTorch; they are seeded with
    ``seed`` and restored afterwards.

    Attributes:
        policy: The Stable-Baselines3 policy; None before ``fit``.
    """

    config: SB3Config
    policy: Any = None
    _algorithm: ClassVar[Any]
    _policy_class: ClassVar[Any]
    #: Arguments of the policy class that skip the initialization of weights, for when they are replaced at once.
    _without_weights: ClassVar[dict[str, Any]] = {}

    @abstractmethod
    def _settings(self, longest: int, falling: Callable[[float], float]) -> dict[str, Any]:
        """Return the arguments specific to this kind of algorithm.

        Args:
            longest: Number of steps of the longest episode.
            falling: A learning rate that ends at 0.
        """

    def _longest(self, problem: Problem) -> int:
        """Return the number of steps of the longest episode; an illegal edit is a step, too."""
        return int(problem.budgets.max())

    def fit(self, problem: Problem) -> None:
        """Learn until the budget is spent; see ``Agent.fit``.

        Raises:
            ValueError: An update of an on-policy algorithm has too few steps to scale their advantages.
        """
        self.shape, meter = problem.shape, problem.reward
        longest = self._longest(problem)
        steps, whole = meter.most_episodes * longest, max(1.0, meter.left)

        def falling(left: float) -> float:
            return self.config.learning_rate * min(left, meter.left / whole)

        native = problem.env(
            self.config.rows,
            array_type="numpy",
            autoreset_mode="SameStep",
            observation=self.config.observation,
        )
        kwargs = self._policy_kwargs()
        if self.config.observation == "index":
            kwargs["features_extractor_kwargs"]["task"] = native.task
        with _globals_put_back(problem.encoder.device):
            model = self._algorithm(
                self._policy_class,
                PMLMVecEnv(native),
                gamma=1.0,
                seed=self.seed,
                device=problem.encoder.device,
                policy_kwargs=kwargs,
                **self._settings(longest, falling),
            )
            model.set_logger(Logger(folder=None, output_formats=[]))  # the default creates a temporary folder
            self.policy = model.policy
            model.learn(steps)

    def player(self, shape: Shape, device: torch.device | str) -> torch.nn.Module:
        """Return a module that plays the policy; see ``PolicyAgent.player``."""
        return _Greedy(self._new(shape, device) if self.policy is None else self.policy)

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the policy's weights, without duplicates; see ``Agent.learned``."""
        return {}, dict(self.policy.named_parameters())

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the policy; see ``Agent.restore``. It takes embeddings, even if it was trained on the index form."""
        assert self.shape is not None
        self._check_names(values)
        policy = self._new(self.shape, device, **self._without_weights)
        found = tensors({name: tuple(weight.shape) for name, weight in policy.named_parameters()})
        with torch.no_grad():
            for name, weight in policy.named_parameters():
                weight.copy_(found[name])
        self.policy = policy

    def _policy_kwargs(self) -> dict[str, Any]:
        config = self.config
        return {
            "features_extractor_kwargs": {
                "width": config.width,
                "hidden": config.hidden,
                "positions": config.positions,
                "normalize": config.normalize,
            }
        }

    def _new(self, shape: Shape, device: torch.device | str, **more: Any) -> Any:
        """Make an untrained policy that takes embeddings, with the weights that ``fit`` starts from."""
        space = gym.spaces.Dict(
            embeddings=gym.spaces.Box(-np.inf, np.inf, (shape.max_words, shape.embedding_size)),
            patient=gym.spaces.Box(-np.inf, np.inf, (shape.patient_size,)),
            action_mask=gym.spaces.MultiBinary(shape.max_words),
        )
        device = torch.device(device)
        with _globals_put_back(device):
            set_random_seed(self.seed, using_cuda=device.type == "cuda")
            policy = self._policy_class(
                space, gym.spaces.Discrete(shape.max_words), lambda _: 0.0, **self._policy_kwargs(), **more
            )
            return policy.to(device)


class _OnPolicy(SB3Agent):
    config: OnPolicyConfig
    _without_weights = {"ortho_init": False}  # noqa: RUF012

    def _settings(self, longest: int, falling: Callable[[float], float]) -> dict[str, Any]:
        config = self.config
        if config.rows * config.row_episodes * longest < 2:
            raise ValueError(
                f"an update of {self.name} has fewer than two steps: raise --rows, --row-episodes or --n-edits"
            )
        return {
            "learning_rate": falling,
            "n_steps": config.row_episodes * longest,
            "gae_lambda": config.gae_lambda,
            "ent_coef": config.ent_coef,
        }


class PPOAgent(_OnPolicy):
    """PPO, for which an illegal edit is a step that edits nothing."""

    name = "ppo"
    Config = PPOConfig
    space = _PPO
    config: PPOConfig
    _algorithm: ClassVar[Any] = PPO
    _policy_class: ClassVar[Any] = WordActorCriticPolicy

    def _settings(self, longest: int, falling: Callable[[float], float]) -> dict[str, Any]:
        config, settings = self.config, super()._settings(longest, falling)
        steps = settings["n_steps"] * config.rows
        return {**settings, "batch_size": min(config.batch_size, steps), "n_epochs": config.n_epochs}


class MaskablePPOAgent(PPOAgent):
    """MaskablePPO, the only one of these algorithms that never makes illegal edits during training."""

    name = "maskable-ppo"
    _algorithm = MaskablePPO
    _policy_class = MaskableWordActorCriticPolicy

    def _longest(self, problem: Problem) -> int:
        """Return the most legal edits of a prompt: an episode ends where no word is left that may be edited."""
        n_editable = editable_words(problem.episodes, problem.protect).sum(axis=1)
        return int(np.minimum(problem.budgets, n_editable).max())

    def _settings(self, longest: int, falling: Callable[[float], float]) -> dict[str, Any]:
        settings = super()._settings(longest, falling)
        # sb3-contrib scales the advantages of a single step, too, by their standard deviation, which is NaN.
        while settings["n_steps"] * self.config.rows % settings["batch_size"] == 1:
            settings["batch_size"] += 1
        return settings


class A2CAgent(_OnPolicy):
    """A2C, for which an illegal edit is a step that edits nothing."""

    name = "a2c"
    Config = A2CConfig
    space = {**_ON_POLICY, "rows": Choices((4, 8, 16))}  # noqa: RUF012
    config: A2CConfig
    _algorithm = A2C
    _policy_class = WordActorCriticPolicy

    def _settings(self, longest: int, falling: Callable[[float], float]) -> dict[str, Any]:
        return {**super()._settings(longest, falling), "use_rms_prop": False, "normalize_advantage": True}


class DQNAgent(SB3Agent):
    """DQN, for which an illegal edit is a step that edits nothing."""

    name = "dqn"
    Config = DQNConfig
    space = _OFF_POLICY
    config: DQNConfig
    _algorithm: ClassVar[Any] = DQN
    _policy_class: ClassVar[Any] = WordDQNPolicy

    def _settings(self, longest: int, falling: Callable[[float], float]) -> dict[str, Any]:
        config = self.config
        return {
            "learning_rate": config.learning_rate,
            "batch_size": config.batch_size,
            "buffer_size": config.buffer_size,
            "learning_starts": config.learning_starts,
            "train_freq": 1,
            "gradient_steps": config.gradient_steps,
            "target_update_interval": config.target_update_interval,
            "exploration_fraction": config.exploration_fraction / 2,  # of twice as many steps as the budget pays for
            "exploration_final_eps": config.exploration_final,
        }


class QRDQNAgent(DQNAgent):
    """QRDQN, for which an illegal edit is a step that edits nothing."""

    name = "qrdqn"
    Config = QRDQNConfig
    config: QRDQNConfig
    _algorithm = QRDQN
    _policy_class = WordQRDQNPolicy

    def _policy_kwargs(self) -> dict[str, Any]:
        return {**super()._policy_kwargs(), "n_quantiles": self.config.n_quantiles}


class _Greedy(torch.nn.Module):
    """A Stable-Baselines3 policy in the form that ``play`` takes."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: dict[str, torch.Tensor]) -> MaskedCategorical:
        """Return a distribution that ranks the legal words by the policy's scores."""
        return MaskedCategorical(self.policy.scores(observation), observation["action_mask"] != 0)

    def train(self, mode: bool = True) -> _Greedy:
        """Put the policy in train or eval mode, by its own method."""
        self.policy.set_training_mode(mode)
        return self


@contextmanager
def _globals_put_back(device: torch.device) -> Iterator[None]:
    """Make networks and losses float32, as observations are; restore that default and the generators on exit."""
    python, numpy, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_default_dtype(dtype)
