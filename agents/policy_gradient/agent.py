"""Policy gradient as agents: the masked categorical policy over words, trained on rewards of whole episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from agents.base import ReadTensors, StepwiseAgent
from agents.policies.agent import PolicyAgent
from agents.policies.lexicon import Lexicon
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.policy_gradient.config import LexiconConfig, NetworkConfig
from agents.policy_gradient.progress import put_back, trainer_progress
from agents.policy_gradient.reinforce import Reinforce
from agents.problem import Problem, Shape
from agents.settings import Choices, Floats, Integers
from pmlm_env.device import seeded


class PolicyGradient(PolicyAgent, StepwiseAgent):
    """The masked categorical policy over word embeddings and patient vector, by REINFORCE and its variants.

    ``agents.registry`` has four: ``leave-one-out`` (the default agent), ``actor-critic``, ``sparsemax``, and
    ``reinforce``, which is Eq. 11 as published: no baseline, dropout 0.4, one gradient step.

    Attributes:
        policy: What learns; None before ``fit``.
    """

    name = "leave-one-out"
    Config = NetworkConfig
    space = {  # noqa: RUF012
        "learning_rate": Floats(1e-4, 3e-2, log=True),
        "entropy": Floats(0.0, 0.1),
        "epochs": Integers(1, 8),
        "hidden": Choices((64, 128, 256, 512)),
        "dropout": Floats(0.0, 0.5),
    }
    config: NetworkConfig | LexiconConfig
    policy: WordPolicy | None = None

    def player(self, shape: Shape, device: torch.device | str) -> WordPolicy:
        """Return the policy; see ``PolicyAgent.player``."""
        return self._new(shape, Lexicon(()), device) if self.policy is None else self.policy

    def begin(self, problem: Problem) -> None:
        """Make the policy and what trains it; see ``StepwiseAgent.begin``."""
        self.shape, learner = problem.shape, self.config.learner()
        lexicon = Lexicon.of(problem.episodes) if self._has_lexicon else Lexicon(())
        self.policy = self._new(self.shape, lexicon, problem.encoder.device)
        rows = (learner.patients or len(problem.episodes)) * learner.rollouts
        env = problem.env(rows, observation=self.policy.observation)
        self._trainer, self._done = Reinforce(self.policy, env, learner, self.seed), 0
        # Prompts asked about before are free, and a policy that has made up its mind repeats itself: no more than twice
        # the updates that the budget would pay for if all prompts were new.
        self._total = 2 * problem.reward.prompts_left // rows

    def update(self) -> dict[str, float] | None:
        """Take one update; see ``StepwiseAgent.update``."""
        if self._done >= self._total:
            return None
        update = self._trainer.update()
        self._done += 1
        return {
            "loss": update.loss,
            "entropy": update.entropy,
            "grad_norm": update.grad_norm,
            "invalid_actions": update.invalid_actions,
        }

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the lexicon's forms, if there is a lexicon, and the weights; see ``Agent.learned``."""
        assert self.policy is not None
        values = {} if self.policy.lexicon is None else {"lexicon": self.policy.lexicon.forms}
        return values, dict(self.policy.state_dict())

    def words(self) -> tuple[str, ...]:
        """Return the words that the lexicon knows, as prompts have them and without case and marks; see ``Agent``."""
        lexicon = None if self.policy is None else self.policy.lexicon
        return () if lexicon is None else tuple(sorted({text.strip() for _, text in lexicon.forms} - {""}))

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Put the policy back; see ``Agent.restore``."""
        assert self.shape is not None
        if values.keys() != ({"lexicon"} if self._has_lexicon else set()):
            raise ValueError(f"what an agent {self.name} learned is damaged: {', '.join(values) or 'nothing is there'}")
        lexicon = Lexicon.from_forms(values["lexicon"]) if self._has_lexicon else Lexicon(())
        with torch.device("meta"):  # names and shapes alone
            policy = self._new(self.shape, lexicon, "meta")
        shapes = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
        policy.load_state_dict(tensors(shapes), assign=True)
        self.policy = policy.to(device).eval()

    def progress(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the optimizers, the generators and who comes next; see ``StepwiseAgent.progress``."""
        values, tensors = trainer_progress(self._trainer)
        return {**values, "updates": self._done}, tensors

    def go_on(self, values: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Put them back; see ``StepwiseAgent.go_on``."""
        put_back(self._trainer, values, tensors)
        self._done = int(values["updates"])

    @property
    def _has_lexicon(self) -> bool:
        return isinstance(self.config, LexiconConfig) or self.config.lexicon

    def _new(self, shape: Shape, lexicon: Lexicon, device: torch.device | str) -> WordPolicy:
        """Make an untrained policy."""
        config, network = self.config, isinstance(self.config, NetworkConfig)
        policy_config = PolicyConfig(
            shape.embedding_size,
            shape.patient_size,
            config.hidden if network else 0,
            config.dropout if network else 0.0,
            config.normalize if network else True,
            config.patient if network else True,
            shape.max_words if network and config.positions else 0,
            config.distribution,
        )
        with seeded(self.seed):
            return WordPolicy(policy_config, lexicon if self._has_lexicon else None).to(device)


class LexiconAgent(PolicyGradient):
    """A weight for each word of the template, by natural gradient: no network, no embeddings, no patient.

    A strong baseline for few calls: it learns what a word is worth in everybody's prompt.
    """

    name = "lexicon"
    Config = LexiconConfig
    needs_embeddings = False
    space = {  # noqa: RUF012
        "step": Floats(0.3, 10.0, log=True),
        "penalty": Floats(0.3, 30.0, log=True),
        "memory": Integers(1, 8),
        "rollouts": Choices((2, 4, 8)),
        "patients": Choices((4, 8, 16, 32)),
    }
