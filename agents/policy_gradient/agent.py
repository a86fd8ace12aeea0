"""Policy-gradient agents: the masked categorical policy over words, trained on rewards of whole episodes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from agents.base import Edits, ReadTensors, StepwiseAgent
from agents.policies.agent import WordPolicyAgent
from agents.policies.lexicon import Lexicon
from agents.policies.word_policy import PolicyConfig
from agents.policy_gradient.config import LexiconConfig, NaturalConfig, NetworkConfig, ReinforceConfig
from agents.policy_gradient.progress import put_back, trainer_progress
from agents.policy_gradient.reinforce import Reinforce
from agents.problem import Problem, Shape
from agents.settings import Choices, Floats, Integers, from_plain, plain
from pmlm_env.core.checkups import CheckupForm
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.processes import current

if TYPE_CHECKING:
    from pmlm_env.retrieval import PatientEncoder


class PolicyGradient(WordPolicyAgent, StepwiseAgent):
    """A policy over words, trained on rewards of whole episodes."""

    config: NetworkConfig | LexiconConfig
    divides = True

    @property
    @abstractmethod
    def _learner(self) -> ReinforceConfig:
        """The settings of the training."""

    @property
    def _words(self) -> NaturalConfig:
        """The settings of the training of a lexicon's weights."""
        return NaturalConfig()

    def begin(self, problem: Problem) -> None:
        """Make the policy and its trainer; see ``StepwiseAgent.begin``."""
        self.shape, learner = problem.shape, self._learner
        lexicon = Lexicon.of(problem.episodes) if self._has_lexicon else None
        self.policy = self._new(self.shape, lexicon, problem.encoder.device)
        rows = (learner.patients or len(problem.episodes)) * learner.rollouts
        processes = current()
        forms = {"observation": self.policy.observation, "patient": self.policy.patient_form}
        env = problem.env(rows, **forms, observed=processes.share(rows))
        self._trainer, self._done = Reinforce(self.policy, env, learner, self.seed, self._words, processes), 0
        self._total = max(1, problem.reward.most_episodes // rows)  # the first update says what it needs

    def update(self) -> dict[str, float] | None:
        """Do one update; see ``StepwiseAgent.update``."""
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

    def progress(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the weights and the states of optimizers and random generators; see ``StepwiseAgent.progress``."""
        values, tensors = trainer_progress(self._trainer)
        return {**values, "updates": self._done}, tensors

    def go_on(self, values: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Restore what ``progress`` returned; see ``StepwiseAgent.go_on``."""
        put_back(self._trainer, values, tensors)
        self._done = int(values["updates"])


class NetworkAgent(PolicyGradient):
    """The masked categorical policy over word embeddings and patient vector, trained by REINFORCE or a variant.

    ``agents.registry`` has four versions: ``leave-one-out`` (the default agent), ``actor-critic``, ``sparsemax``, and
    ``reinforce``, which is Eq. 11 as published: no baseline, dropout 0.4, one gradient step.
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
    config: NetworkConfig

    def __init__(self, config: NetworkConfig | None = None, seed: int = 0) -> None:
        """Store the settings."""
        super().__init__(config, seed)
        #: What check-ups measure that the agent reads; None before ``fit``, and if it reads none.
        self._form: CheckupForm | None = None

    @property
    def needs_checkups(self) -> bool:
        """Whether the agent learns a patient encoder; see ``Agent.needs_checkups``."""
        return self.config.patient_vector == "learned"

    def begin(self, problem: Problem) -> None:
        """Make the policy and its trainer; see ``StepwiseAgent.begin``."""
        if self.needs_checkups:
            self._form = problem.episodes.checkup_form
        super().begin(problem)

    def refine(self, problem: Problem) -> Edits:
        """Apply the most probable edit at each step; see ``Agent.refine``.

        Raises:
            ValueError: The agent learns a patient encoder, and the patients have no check-ups, or others than those in
                training.
        """
        if self.needs_checkups:
            form = problem.episodes.checkup_form
            self._form = self._form or form
            if form != self._form:
                raise ValueError(
                    "the patients' check-ups differ from those in training in their indicators, units or number: give "
                    "patients that were prepared with the training patients' schema"
                )
        return super().refine(problem)

    def patient_encoder(self, episodes: EpisodeSet) -> PatientEncoder | None:
        """Return the patient encoder that the agent has learned; see ``Agent.patient_encoder``."""
        if self.policy is None or self.policy.patient_network is None:
            return None
        from pmlm_env.retrieval.encoder import NetworkEncoder  # takes seconds, because it imports scikit-learn

        return NetworkEncoder.of_policy(self.policy.patient_network.state_dict(), episodes.checkups[0])

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the weights, and what else the policy needs; see ``Agent.learned``."""
        values, tensors = super().learned()
        return {**values, **({} if self._form is None else {"checkups": plain(self._form)})}, tensors

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the policy; see ``Agent.restore``."""
        self._check_names(values, self._learned_names)
        if self.needs_checkups:
            self._form = from_plain(CheckupForm, values["checkups"])
        super().restore(values, tensors, device)

    @property
    def _learned_names(self) -> set[str]:
        return super()._learned_names | ({"checkups"} if self.needs_checkups else set())

    @property
    def _learner(self) -> ReinforceConfig:
        return self.config

    @property
    def _has_lexicon(self) -> bool:
        return self.config.lexicon

    def _policy_config(self, shape: Shape) -> PolicyConfig:
        config = self.config
        return PolicyConfig(
            shape.embedding_size,
            shape.patient_size,
            config.hidden,
            config.dropout,
            config.normalize,
            config.patient,
            shape.max_words if config.positions else 0,
            config.distribution,
            0 if self._form is None else self._form.size,
        )


class LexiconAgent(PolicyGradient):
    """One weight for each word of the template, trained by natural gradient; no network, embeddings or patient vector.

    A strong baseline for small budgets: it learns what each word is worth on average over all prompts.
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
    config: LexiconConfig

    @property
    def _learner(self) -> ReinforceConfig:
        return self.config.learner()

    @property
    def _words(self) -> NaturalConfig:
        return self.config.words()

    @property
    def _has_lexicon(self) -> bool:
        return True

    def _policy_config(self, shape: Shape) -> PolicyConfig:
        return PolicyConfig(shape.embedding_size, shape.patient_size, hidden=0, distribution=self.config.distribution)
