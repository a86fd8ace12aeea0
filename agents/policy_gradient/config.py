"""Settings of the policy-gradient agents."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from agents.policies.config import MOST_HIDDEN, Distribution

Baseline = Literal["leave-one-out", "critic", "none"]

#: Where the patient vector comes from; see ``NetworkConfig``.
PatientVector = Literal["prepared", "learned"]


@dataclass(frozen=True)
class NaturalConfig:
    """Training of the lexicon's weights; ``LexiconConfig`` has the same settings and describes them."""

    step: float = 2.5
    penalty: float = 3.0
    memory: int = 4
    fade: float = 0.7

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        if not (0 < self.step < inf and 0 < self.penalty < inf) or self.memory < 1 or not 0 < self.fade <= 1:
            raise ValueError(
                "step and penalty must be above 0 and finite, memory 1 or more, fade above 0 and at most 1"
            )


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of ``Reinforce``.

    A policy without a network is trained on ``NaturalConfig`` only: ``learning_rate``, ``entropy``, ``clip_norm``,
    ``epochs``, ``clip_ratio`` and ``scale_advantages`` apply to the network.

    Attributes:
        patients: Number of patients in each update; None = all patients, as in the paper.
        rollouts: Number of episodes per patient; at least 2 with ``leave-one-out``.
        baseline: ``leave-one-out``: subtract the mean reward of the patient's other rollouts (Kool et al. 2019), so
            that hard and easy patients count equally; ``critic``: subtract a critic's estimate of the state's value;
            ``none``: subtract nothing, as in Eq. 11.
        learning_rate: Learning rate of Adam.
        entropy: Weight of the entropy bonus, relative to advantages of unit spread.
        clip_norm: Maximum norm of the gradient; None = no clipping.
        epochs: Number of gradient steps on each batch of episodes (replies are expensive, gradients are cheap). The
            first step is REINFORCE; later steps clip each edit's probability ratio (Schulman et al. 2017, PPO).
        clip_ratio: Maximum distance of that ratio from 1.
        scale_advantages: Whether advantages are divided by their root mean square over the update, so that the entropy
            weight and the clipping mean the same for every LLM and metric.
        masked: Whether illegal edits are masked; False only for ablations.
    """

    patients: int | None = 8
    rollouts: int = 4
    baseline: Baseline = "leave-one-out"
    learning_rate: float = 1e-3
    entropy: float = 0.01
    clip_norm: float | None = 1.0
    epochs: int = 4
    clip_ratio: float = 0.2
    scale_advantages: bool = True
    masked: bool = True

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        if self.baseline not in get_args(Baseline):
            raise ValueError(f"baseline is {self.baseline!r}: use one of {get_args(Baseline)}")
        patients = 1 if self.patients is None else self.patients
        if min(patients, self.rollouts, self.epochs) < 1:
            raise ValueError("patients, rollouts and epochs must be 1 or more")
        if self.baseline == "leave-one-out" and self.rollouts < 2:
            raise ValueError("a leave-one-out baseline needs rollouts of 2 or more")
        for name in ("learning_rate", "clip_norm", "clip_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}: use a number above 0")
        if not 0 <= self.entropy < float("inf"):
            raise ValueError(f"entropy is {self.entropy}: use a number of 0 or more")


@dataclass(frozen=True)
class NetworkConfig(ReinforceConfig):
    """Settings of the agents whose policy is a network on word embeddings and the patient vector.

    Attributes:
        hidden: Width of the two hidden layers (256 in the paper).
        dropout: Dropout rate after each hidden layer (0.4 in the paper).
        normalize: Whether each of the network's inputs is normalized to zero mean and unit variance (not mentioned in
            the paper).
        patient: Whether the network sees the patient vector; False only for ablations.
        patient_vector: ``prepared``: the vectors in the prepared folder; ``learned``: of a patient encoder that is a
            part of the network, and learns from the policy's loss alone (the paper's Algorithm 1). The run folder then
            has that encoder, for `pmlm prepare --patient-encoder RUN`.
        positions: Whether the network learns a term for each slot; non-contextual embeddings do not tell slots apart.
        lexicon: Whether each word of the training prompts also has its own weight; see ``LexiconConfig``.
        distribution: ``softmax``, or ``sparsemax`` (Martins and Astudillo 2016), which gives most words a probability
            of 0.
    """

    learning_rate: float = 5e-3
    hidden: int = 64
    dropout: float = 0.0
    normalize: bool = True
    patient: bool = True
    patient_vector: PatientVector = "prepared"
    positions: bool = False
    lexicon: bool = False
    distribution: Distribution = "softmax"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid, or has no effect in combination with the others.
        """
        super().__post_init__()
        if not 1 <= self.hidden <= MOST_HIDDEN:
            raise ValueError(f"hidden is {self.hidden}: use 1 to {MOST_HIDDEN:,}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: use a number from 0 to below 1")
        if self.distribution not in get_args(Distribution):
            raise ValueError(f"distribution is {self.distribution!r}: use one of {get_args(Distribution)}")
        if self.patient_vector not in get_args(PatientVector):
            raise ValueError(f"patient_vector is {self.patient_vector!r}: use one of {get_args(PatientVector)}")
        if self.patient_vector == "learned" and not self.patient:
            raise ValueError("patient_vector has no effect without patient: leave one of them out")
        if self.epochs == 1 and self.clip_ratio != NetworkConfig.clip_ratio:
            raise ValueError(
                f"clip_ratio {self.clip_ratio} has no effect: it is for the second epoch and later ones. Leave it out, "
                "or set epochs to 2 or more"
            )


@dataclass(frozen=True)
class LexiconConfig:
    """Settings of the agent that has a weight for each word of the template, and no network.

    Attributes:
        patients: Number of patients in each update; None = all patients.
        rollouts: Number of episodes per patient; at least 2 with ``leave-one-out``.
        baseline: ``leave-one-out`` or ``none``; see ``NetworkConfig``.
        step: Step size: factor on the solution of the regression on advantages of unit spread.
        penalty: Weight of the squared solution, in units of the episodes' mean squared score.
        memory: Number of most recent updates in the regression, including the current one.
        fade: Weight of each update in the regression, relative to the next newer one.
        masked: Whether illegal edits are masked; False only for ablations.
        distribution: See ``NetworkConfig``.
    """

    patients: int | None = 16
    rollouts: int = 4
    baseline: Literal["leave-one-out", "none"] = "leave-one-out"
    step: float = 2.5
    penalty: float = 3.0
    memory: int = 4
    fade: float = 0.7
    masked: bool = True
    distribution: Distribution = "softmax"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A setting is invalid.
        """
        self.learner()
        self.words()
        if self.distribution not in get_args(Distribution):
            raise ValueError(f"distribution is {self.distribution!r}: use one of {get_args(Distribution)}")

    def learner(self) -> ReinforceConfig:
        """Return the settings of ``Reinforce``."""
        return ReinforceConfig(self.patients, self.rollouts, self.baseline, masked=self.masked)

    def words(self) -> NaturalConfig:
        """Return the settings of the weights' training."""
        return NaturalConfig(self.step, self.penalty, self.memory, self.fade)
