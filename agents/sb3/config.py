"""Settings of the algorithms of Stable-Baselines3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Algorithm = Literal["ppo", "a2c", "dqn", "qrdqn", "maskable_ppo"]
ObservationForm = Literal["embeddings", "index"]


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
        steps: Env steps where the problem has no limit; else the limit ends the run.
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
