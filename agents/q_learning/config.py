"""Settings of the Q-learning agents."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from reprlib import repr as shortened

from agents.policies.config import MOST_HIDDEN


@dataclass(frozen=True)
class QConfig:
    """Settings shared by both Q-learning agents.

    Attributes:
        rows: Number of episodes played in parallel; their rewards are requested in one batch.
        rollouts: Number of these episodes per patient; ``rows`` must be a multiple of it.
        hidden: Width of the network's two hidden layers.
        positions: Whether the network learns a term for each slot; non-contextual embeddings do not tell slots apart.
        normalize: Whether each of the network's inputs is normalized to zero mean and unit variance.
        learning_rate: Learning rate of Adam.
        batch_size: Number of episodes drawn from the replay buffer for each gradient step.
        gradient_steps: Number of gradient steps after each batch of ``rows`` episodes.
        clip_norm: Maximum norm of the gradient.
        target_rate: Rate at which the target network follows the network at each gradient step (Polyak averaging).
        masked: Whether illegal edits are masked; False only for ablations.
    """

    rows: int = 8
    rollouts: int = 4
    hidden: int = 128
    positions: bool = False
    normalize: bool = True
    learning_rate: float = 1e-3
    batch_size: int = 64
    gradient_steps: int = 8
    clip_norm: float = 10.0
    target_rate: float = 0.01
    masked: bool = True

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        if min(self.rows, self.rollouts, self.batch_size, self.gradient_steps) < 1:
            raise ValueError("rows, rollouts, batch_size and gradient_steps must be 1 or more")
        if self.rows % self.rollouts:
            raise ValueError(f"rows is {self.rows}: it must be a multiple of rollouts, {self.rollouts}")
        if not 1 <= self.hidden <= MOST_HIDDEN:
            raise ValueError(f"hidden is {self.hidden}: use 1 to {MOST_HIDDEN:,}")
        if not (0 < self.learning_rate < inf and self.clip_norm > 0 and 0 < self.target_rate <= 1):
            raise ValueError(
                "learning_rate must be above 0 and finite, clip_norm above 0, target_rate above 0 and at most 1"
            )


@dataclass(frozen=True)
class DoubleDQNConfig(QConfig):
    """Settings of the double DQN; a gradient step uses one random step of each episode drawn.

    Attributes:
        target_rate: Rate at which the target network follows the network at each gradient step (Polyak averaging). It
            has no effect if all targets are returns; see ``n_step``.
        n_step: Number of steps before a target bootstraps from the target network. The reward comes with the last step:
            a target that reaches it is the return. If ``n_step`` is at least the edit budget, all targets are returns.
        epsilon: Initial share of random words.
        final_epsilon: Final share of random words.
        exploration: Fraction of the budget over which that share falls linearly; 0 = the final share from the start.
    """

    n_step: int = 10
    epsilon: float = 1.0
    final_epsilon: float = 0.05
    exploration: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        super().__post_init__()
        if self.n_step < 1:
            raise ValueError(f"n_step is {self.n_step}: it must be 1 or more")
        if not all(0 <= share <= 1 for share in (self.epsilon, self.final_epsilon, self.exploration)):
            raise ValueError("epsilon, final_epsilon and exploration must be from 0 to 1")


@dataclass(frozen=True)
class SoftQConfig(QConfig):
    """Settings of soft Q-learning; a gradient step uses all steps of each episode drawn.

    Attributes:
        q_temperature: Temperature of exploration, in standard deviations of a patient's reward: words are drawn with
            probabilities softmax(Q / q_temperature).
    """

    batch_size: int = 16
    gradient_steps: int = 4
    q_temperature: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        super().__post_init__()
        if not 0 < self.q_temperature <= 1_000:
            raise ValueError(f"q_temperature is {shortened(self.q_temperature)}: use a number above 0, at most 1,000")
