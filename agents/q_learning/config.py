"""Settings of the Q-learning agents."""

from __future__ import annotations

from dataclasses import dataclass
from reprlib import repr as shortened

from agents.policies.config import MOST_HIDDEN


@dataclass(frozen=True)
class QConfig:
    """Settings that both Q-learning agents have.

    Attributes:
        rows: Episodes played side by side; their rewards are asked for in one batch.
        rollouts: Episodes of each patient among them; ``rows`` is a multiple of it.
        hidden: Width of the network's two hidden layers.
        positions: Whether the network tells slots apart, which it must learn where embeddings have no context.
        normalize: Whether each of the network's inputs is first brought to zero mean and unit variance.
        learning_rate: Adam's.
        batch_size: Episodes drawn from the replay for a gradient step.
        gradient_steps: Gradient steps after each batch of ``rows`` episodes.
        clip_norm: Largest norm of the gradient.
        target_rate: Share by which the target network moves towards the network in a gradient step (Polyak averaging).
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
            ValueError: One of them makes no sense.
        """
        if min(self.rows, self.rollouts, self.batch_size, self.gradient_steps) < 1:
            raise ValueError("rows, rollouts, batch_size and gradient_steps must be 1 or more")
        if self.rows % self.rollouts:
            raise ValueError(f"rows is {self.rows}: it must be a multiple of rollouts, {self.rollouts}")
        if not 1 <= self.hidden <= MOST_HIDDEN:
            raise ValueError(f"hidden is {self.hidden}: use 1 to {MOST_HIDDEN:,}")
        if min(self.learning_rate, self.clip_norm) <= 0 or not 0 < self.target_rate <= 1:
            raise ValueError("learning_rate and clip_norm must be above 0, target_rate above 0 and at most 1")


@dataclass(frozen=True)
class DoubleDQNConfig(QConfig):
    """Settings of the double DQN, of which a gradient step takes one random step of each episode drawn.

    Attributes:
        n_step: Steps before a target relies on the target network. The reward comes with the last step: a target that
            reaches it is the return, and with ``n_step`` of the edit budget or more all of them are.
        epsilon: Share of random words at first.
        final_epsilon: Share of random words in the end.
        exploration: Part of the budget in which that share falls, in a straight line; 0 = it is low from the start.
    """

    n_step: int = 10
    epsilon: float = 1.0
    final_epsilon: float = 0.05
    exploration: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: One of them makes no sense.
        """
        super().__post_init__()
        if self.n_step < 1:
            raise ValueError(f"n_step is {self.n_step}: it must be 1 or more")
        if not all(0 <= share <= 1 for share in (self.epsilon, self.final_epsilon, self.exploration)):
            raise ValueError("epsilon, final_epsilon and exploration must be from 0 to 1")


@dataclass(frozen=True)
class SoftQConfig(QConfig):
    """Settings of soft Q-learning, of which a gradient step takes all steps of each episode drawn.

    Attributes:
        q_temperature: Words are drawn with probabilities softmax(Q / q_temperature); in standard deviations of a
            patient's reward.
    """

    batch_size: int = 16
    gradient_steps: int = 4
    q_temperature: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: One of them makes no sense.
        """
        super().__post_init__()
        if not 0 < self.q_temperature <= 1_000:
            raise ValueError(f"q_temperature is {shortened(self.q_temperature)}: use a number above 0, at most 1,000")
