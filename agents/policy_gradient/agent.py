"""PolicyGradient: REINFORCE and its kin as agents that are fitted within a budget and then refine unseen prompts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from agents.base import Agent, Deletions
from agents.policies.greedy import greedy_deletions
from agents.policies.lexicon import Lexicon
from agents.policies.word_policy import Distribution, PolicyConfig, WordPolicy
from agents.policy_gradient.reinforce import Reinforce, ReinforceConfig
from agents.problem import Arena
from pmlm_env.device import seeded

Kind = Literal["lexicon", "leave-one-out", "actor-critic", "reinforce", "sparsemax"]


@dataclass(frozen=True)
class PolicyGradientConfig:
    """What can be set; ``PolicyGradientConfig.of`` has the settings of each kind, those here are the default agent's.

    Attributes:
        learner: How the policy learns; ``updates`` counts where the arena has no limit.
        hidden: Width of the policy's layers; 0 = no network.
        dropout: After each hidden layer.
        normalize: Whether the policy normalises its inputs.
        patient: Whether it sees the patient vector.
        positions: Whether its network tells the slots apart, which embeddings without context do not.
        lexicon: Whether each word of the training prompts has a weight of its own besides.
        distribution: Over words.
    """

    learner: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(patients=16, rollouts=4))
    hidden: int = 0
    dropout: float = 0.0
    normalize: bool = True
    patient: bool = True
    positions: bool = False
    lexicon: bool = True
    distribution: Distribution = "softmax"

    @classmethod
    def of(cls, kind: Kind, **changes: Any) -> PolicyGradientConfig:
        """Return the settings of a kind, but for ``changes``.

        ``lexicon`` is the default agent, ``leave-one-out`` a network on embeddings and patient instead of a lexicon,
        ``actor-critic`` the same with a critic of each word for a baseline, ``sparsemax`` with that distribution, and
        ``reinforce`` is Eq. 11 as published: no baseline, dropout .4, one gradient step. Its updates are of 32
        rollouts, for a budget of 600 completions is not six updates of the whole training set.
        """
        bare = ReinforceConfig(
            patients=32,
            rollouts=1,
            baseline="none",
            learning_rate=5e-3,
            entropy=0.0,
            clip_norm=float("inf"),
            epochs=1,
            scale_advantages=False,
        )
        group = ReinforceConfig(patients=8, rollouts=4, learning_rate=5e-3)
        network = {"learner": group, "hidden": 64, "lexicon": False}
        settings: dict[Kind, dict[str, Any]] = {
            "lexicon": {},
            "leave-one-out": network,
            "actor-critic": {**network, "learner": replace(group, patients=32, rollouts=1, baseline="critic")},
            "reinforce": {"learner": bare, "hidden": 256, "dropout": 0.4, "normalize": False, "lexicon": False},
            "sparsemax": {**network, "distribution": "sparsemax"},
        }
        return replace(cls(), **{**settings[kind], **changes})


class PolicyGradient(Agent):
    """A masked policy over words, trained by policy gradient on rewards of whole episodes."""

    Config = PolicyGradientConfig
    config: PolicyGradientConfig
    policy: WordPolicy | None = None

    def fit(self, arena: Arena) -> None:
        """Learn until the budget is spent; see ``Agent.fit``."""
        self.policy = self._new(arena)
        learner, meter = self.config.learner, arena.reward
        rows = (learner.patients or len(arena.episodes)) * learner.rollouts
        env = arena.env(rows, observation=self.policy.observation)
        trainer = Reinforce(self.policy, env, learner, self.seed)
        # Prompts asked about before are free, and a policy that is sure of itself repeats itself: no more than twice
        # the updates that the limit would pay for if all were new.
        updates = learner.updates if meter.limit is None else 2 * int(meter.left) // (rows * meter.per_prompt)
        for _ in range(updates):
            trainer.update()

    def refine(self, arena: Arena) -> Deletions:
        """Delete the most probable words in turn; see ``Agent.refine``."""
        return greedy_deletions(arena, self._new(arena) if self.policy is None else self.policy)

    def save(self, folder: Path) -> None:
        """Write the policy into ``folder``; see ``WordPolicy.save_pretrained``."""
        if self.policy is None:
            raise ValueError("nothing was learnt yet: call fit first")
        self.policy.save_pretrained(folder)

    def _new(self, arena: Arena) -> WordPolicy:
        """Make an untrained policy."""
        config = self.config
        shape = PolicyConfig(
            arena.encoder.hidden_size,
            arena.episodes.vectors.shape[1],
            config.hidden,
            config.dropout,
            config.normalize,
            config.patient,
            arena.max_words if config.positions else 0,
            config.distribution,
            getattr(arena.encoder, "model_name", ""),
            arena.n_edits,
        )
        with seeded(self.seed):
            return WordPolicy(shape, Lexicon.of(arena.episodes) if config.lexicon else None).to(arena.encoder.device)
