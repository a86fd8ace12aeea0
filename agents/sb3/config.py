"""Settings of the algorithms of Stable-Baselines3 and sb3-contrib."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from agents.policies.config import MOST_HIDDEN

ObservationForm = Literal["embeddings", "index"]

#: Maximum number of features per word; see ``MOST_HIDDEN``.
_MOST_WIDTH = 1_024


@dataclass(frozen=True)
class SB3Config:
    """Settings shared by all of these agents.

    Attributes:
        observation: Form of the stored observations: ``embeddings``, or ``index``, which takes little memory but embeds
            again for each minibatch. A language model's embeddings are too large for the replay of DQN and QRDQN.
        rows: Number of episodes played in parallel; their rewards are requested in one batch. A budget remainder
            that does not cover a whole batch stays unspent.
        learning_rate: Learning rate of Adam.
        width: Number of features per word.
        hidden: Width of the hidden layer.
        positions: Whether the network can tell slots apart; see ``WordFeatures``.
        normalize: Whether each of the network's inputs is normalized to zero mean and unit variance.
    """

    observation: ObservationForm = "embeddings"
    rows: int = 16
    learning_rate: float = 3e-3
    width: int = 32
    hidden: int = 64
    positions: bool = False
    normalize: bool = True

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        if self.observation not in get_args(ObservationForm):
            raise ValueError(f"observation is {self.observation!r}: use one of {get_args(ObservationForm)}")
        if self.rows < 1 or not 0 < self.learning_rate < inf:
            raise ValueError("rows must be 1 or more, learning_rate above 0 and finite")
        if not 2 <= self.width <= _MOST_WIDTH:
            raise ValueError(f"width is {self.width}: use 2 to {_MOST_WIDTH:,}")
        if not 1 <= self.hidden <= MOST_HIDDEN:
            raise ValueError(f"hidden is {self.hidden}: use 1 to {MOST_HIDDEN:,}")


@dataclass(frozen=True)
class OnPolicyConfig(SB3Config):
    """Settings of the on-policy algorithms.

    Attributes:
        learning_rate: Initial learning rate of Adam. It falls with the part of the budget that is left, to 0.
        row_episodes: Number of episodes per row in an update; an update uses ``rows * row_episodes`` episodes. An
            update that is incomplete when the budget is spent is lost.
        gae_lambda: Lambda of generalized advantage estimation (Schulman et al. 2016).
        ent_coef: Weight of the entropy bonus.
    """

    row_episodes: int = 2
    gae_lambda: float = 0.9
    ent_coef: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        super().__post_init__()
        if self.row_episodes < 1 or not 0 <= self.gae_lambda <= 1:
            raise ValueError("row_episodes must be 1 or more, gae_lambda from 0 to 1")
        if not 0 <= self.ent_coef < inf:
            raise ValueError(f"ent_coef is {self.ent_coef}: use a number of 0 or more")


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Settings of PPO and of MaskablePPO.

    Attributes:
        batch_size: Number of steps in a minibatch. ``maskable-ppo`` raises it where the last minibatch of an update
            would have a single step.
        n_epochs: Number of passes over the steps of an update.
    """

    batch_size: int = 160
    n_epochs: int = 8

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        super().__post_init__()
        if self.batch_size < 2 or self.n_epochs < 1:
            raise ValueError("batch_size must be 2 or more, n_epochs 1 or more")


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Settings of A2C, which does one gradient step per update."""

    rows: int = 8
    learning_rate: float = 1e-2
    row_episodes: int = 1


@dataclass(frozen=True)
class DQNConfig(SB3Config):
    """Settings of DQN.

    Attributes:
        batch_size: Number of steps in a minibatch.
        buffer_size: Maximum number of steps in the replay buffer.
        learning_starts: Number of steps of uniformly random play before the first gradient step.
        gradient_steps: Number of gradient steps after each step of all rows.
        target_update_interval: Number of steps between copies of the network to the target network.
        exploration_fraction: Number of episodes over which the share of random actions falls linearly from 1, divided
            by the number that the budget would pay for without initial prompts. Their replies are paid for as well, so
            with a small budget it is a larger part of training.
        exploration_final: Share of random actions after that.
    """

    observation: ObservationForm = "index"
    rows: int = 8
    batch_size: int = 64
    buffer_size: int = 20_000
    learning_starts: int = 500
    gradient_steps: int = 1
    target_update_interval: int = 250
    exploration_fraction: float = 0.5
    exploration_final: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        super().__post_init__()
        if min(self.batch_size, self.buffer_size, self.gradient_steps, self.target_update_interval) < 1:
            raise ValueError("batch_size, buffer_size, gradient_steps and target_update_interval must be 1 or more")
        if self.learning_starts < 0:
            raise ValueError(f"learning_starts is {self.learning_starts}: it must be 0 or more")
        if not all(0 <= share <= 1 for share in (self.exploration_fraction, self.exploration_final)):
            raise ValueError("exploration_fraction and exploration_final must be from 0 to 1")


@dataclass(frozen=True)
class QRDQNConfig(DQNConfig):
    """Settings of QRDQN.

    Attributes:
        n_quantiles: Number of quantiles of each word's value.
    """

    n_quantiles: int = 20

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        super().__post_init__()
        if not 1 <= self.n_quantiles <= 1_000:
            raise ValueError(f"n_quantiles is {self.n_quantiles}: use 1 to 1,000")
