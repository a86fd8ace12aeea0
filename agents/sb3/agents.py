"""SB3Agent: the algorithms of Stable-Baselines3 and sb3-contrib, fitted within a budget of completions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from sb3_contrib import QRDQN, MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.logger import Logger

from agents.base import Agent, Deletions
from agents.policies.greedy import greedy_deletions
from agents.policies.word_policy import MaskedCategorical
from agents.problem import Arena
from agents.sb3.policies import (
    MaskableWordActorCriticPolicy,
    WordActorCriticPolicy,
    WordDQNPolicy,
    WordQRDQNPolicy,
)
from agents.sb3.vec_env import PMLMVecEnv
from pmlm_env.core.task import ObservationForm

Algorithm = Literal["ppo", "a2c", "dqn", "qrdqn", "maskable_ppo"]

_CLASSES: dict[str, tuple[Any, type]] = {
    "ppo": (PPO, WordActorCriticPolicy),
    "a2c": (A2C, WordActorCriticPolicy),
    "dqn": (DQN, WordDQNPolicy),
    "qrdqn": (QRDQN, WordQRDQNPolicy),
    "maskable_ppo": (MaskablePPO, MaskableWordActorCriticPolicy),
}


@dataclass(frozen=True)
class SB3Config:
    """What can be set; ``SB3Config.of`` has the defaults of each algorithm, those here are MaskablePPO's.

    Attributes:
        algorithm: Which one. Only ``maskable_ppo`` is barred from illegal deletions while it learns; to the others
            they are steps that delete nothing.
        observation: ``index`` keeps rollouts and replay small, and embeds again for each minibatch. For DQN and QRDQN
            with a language model's embeddings it is the only one that fits into memory.
        rows: Episodes side by side. As many are judged at once, and at most twice as many completions are left over
            at the end of the budget.
        episodes: Of each row, in an update; on-policy algorithms learn from ``rows * episodes`` episodes at a time.
            What of an update is under way when the budget ends is lost.
        steps: Env steps where the arena has no limit; else the limit ends the run.
        learning_rate: Adam's. Of the on-policy algorithms it falls to 0 in a straight line as the budget is spent.
        batch_size: Steps in a minibatch (not of A2C, which takes a whole update at once).
        n_epochs: Passes over an update (PPO).
        gae_lambda: Of generalised advantage estimation (Schulman et al. 2016); on-policy.
        ent_coef: Weight of the entropy bonus; on-policy.
        width: Features of a word.
        hidden: Width of the hidden layer.
        positions: Whether the network knows the slots apart; see ``WordFeatures``.
        normalize: Whether it normalises its inputs.
        buffer_size: Steps that the replay buffer holds (DQN and QRDQN, as all below).
        learning_starts: Steps of uniformly random play before the first gradient.
        gradient_steps: After each step of all rows.
        target_update_interval: Env steps between two copies to the target network.
        exploration_fraction: Part of the budget in which the share of random actions falls.
        exploration_final: Share of random actions from then on.
        n_quantiles: Of a word's value (QRDQN).
    """

    algorithm: Algorithm = "maskable_ppo"
    observation: ObservationForm = "embeddings"
    rows: int = 16
    episodes: int = 2
    steps: int = 20_000
    learning_rate: float = 3e-3
    batch_size: int = 160
    n_epochs: int = 8
    gae_lambda: float = 0.9
    ent_coef: float = 0.0
    width: int = 32
    hidden: int = 64
    positions: bool = False
    normalize: bool = True
    buffer_size: int = 20_000
    learning_starts: int = 500
    gradient_steps: int = 1
    target_update_interval: int = 250
    exploration_fraction: float = 0.5
    exploration_final: float = 0.05
    n_quantiles: int = 20

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: One of them makes no sense.
        """
        if self.algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm is {self.algorithm!r}: use one of {get_args(Algorithm)}")
        if self.observation not in get_args(ObservationForm):
            raise ValueError(f"observation is {self.observation!r}: use one of {get_args(ObservationForm)}")
        if min(self.rows, self.episodes, self.steps, self.batch_size) < 1:
            raise ValueError("rows, episodes, steps and batch_size must be 1 or more")

    @classmethod
    def of(cls, algorithm: Algorithm, **changes: Any) -> SB3Config:
        """Return an algorithm's defaults, but for ``changes``."""
        return cls(**{"algorithm": algorithm, **_DEFAULTS.get(algorithm, {}), **changes})


_OFF_POLICY: dict[str, Any] = {"observation": "index", "rows": 8, "batch_size": 64}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "a2c": {"rows": 8, "episodes": 1, "learning_rate": 1e-2},
    "dqn": _OFF_POLICY,
    "qrdqn": _OFF_POLICY,
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

    def fit(self, arena: Arena) -> None:
        """Learn until the budget is spent; see ``Agent.fit``."""
        meter, limit = arena.reward, arena.reward.limit
        steps = self.config.steps
        if limit is not None:  # every episode asks for a completion at least, unless its prompt was asked about before
            steps = int(meter.left) // meter.per_prompt * arena.n_edits
        whole = max(1.0, meter.left)

        def falling(left: float) -> float:
            return self.config.learning_rate * (left if limit is None else min(left, meter.left / whole))

        with _generators_put_back(arena.encoder.device):
            model = self._model(arena, falling)
            self._policy = model.policy
            model.learn(steps)

    def refine(self, arena: Arena) -> Deletions:
        """Delete the best words in turn; see ``Agent.refine``."""
        policy = self._policy
        if policy is None:  # nothing learnt yet
            with _generators_put_back(arena.encoder.device):
                policy = self._model(arena, lambda _: 0.0).policy
        return greedy_deletions(arena, _Greedy(policy))

    def _model(self, arena: Arena, falling: Callable[[float], float]) -> Any:
        config = self.config
        native = arena.env(
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
            policy, PMLMVecEnv(native), gamma=1.0, seed=self.seed, device=arena.encoder.device,
            policy_kwargs=policy_kwargs, **self._settings(arena.n_edits, falling),
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
