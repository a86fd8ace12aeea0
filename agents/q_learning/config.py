"""Settings of the Q-learning agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["dqn", "soft"]


@dataclass(frozen=True)
class QConfig:
    """What can be set.

    Attributes:
        kind: ``dqn``: greedy play but for a share of random words. ``soft``: words are drawn with probabilities
            softmax(Q / temperature).
        episodes: How many where the problem has no limit; else the limit ends the run, or twice as many episodes.
        rows: Episodes side by side, judged at once.
        rollouts: Of each patient among them; ``rows`` is a multiple of it.
        hidden: Width of the network.
        positions: Whether it tells the slots apart, which embeddings without context do not.
        normalize: Whether it normalises its inputs.
        learning_rate: Adam's.
        batch_size: Episodes drawn from the replay for a gradient step; of each, all steps (``soft``) or one (``dqn``).
        gradient_steps: After each batch of ``rows`` episodes.
        clip_norm: Largest norm of the gradient.
        target_rate: How far the target network goes towards the network in a gradient step (Polyak averaging).
        n_step: Steps before a target leans on the target network (``dqn``). As the reward comes with the last step,
            those that reach it are the return, and with ``n_edits`` or more all of them are.
        epsilon: Share of random words at first (``dqn``).
        final_epsilon: And in the end.
        exploration: Part of the budget in which it falls, in a straight line.
        temperature: Of the soft policy, in standard deviations of a patient's reward.
        masked: Whether illegal words are barred; False only for ablations.
    """

    kind: Kind = "dqn"
    episodes: int = 2_000
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
    n_step: int = 10
    epsilon: float = 1.0
    final_epsilon: float = 0.05
    exploration: float = 0.5
    temperature: float = 0.1
    masked: bool = True

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: One of them makes no sense.
        """
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}: use one of {get_args(Kind)}")
        if min(self.episodes, self.rows, self.rollouts, self.batch_size, self.n_step) < 1:
            raise ValueError("episodes, rows, rollouts, batch_size and n_step must be 1 or more")
        if self.rows % self.rollouts:
            raise ValueError(f"rows is {self.rows}: it must be a multiple of rollouts, {self.rollouts}")

    @classmethod
    def of(cls, kind: Kind, **changes: Any) -> QConfig:
        """Return a kind's defaults, but for ``changes``."""
        return cls(**{"kind": kind, **_DEFAULTS[kind], **changes})


_DEFAULTS: dict[Kind, dict[str, Any]] = {"dqn": {}, "soft": {"batch_size": 16, "gradient_steps": 4}}
