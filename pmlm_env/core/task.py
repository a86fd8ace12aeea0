"""EditTask: the objects that define the prompt-editing task, and the observations and outcomes they produce."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from pmlm_env.core.edits import EditBatch, EditRules
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Reward

if TYPE_CHECKING:  # this package only passes tensors on
    import torch

ObservationForm = Literal["embeddings", "index"]

#: What an observation has of the patient: the vector of stage 2, or the padded check-ups.
PatientForm = Literal["vector", "checkups"]


class Encoder(Protocol):
    """Interface of an encoder, such as ``WordEncoder``.

    Attributes:
        hidden_size: H, the length of an embedding.
        device: The device of the embeddings.
    """

    hidden_size: int

    @property
    def device(self) -> torch.device:
        """The device of the embeddings."""
        ...

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the words left in B prompts: float32 (B, W, hidden_size), zeros elsewhere."""
        ...


@dataclass(eq=False)
class EditTask:
    """The task of ``PMLM-v0``, made of objects that are already loaded.

    Attributes:
        episodes: The patients and their initial prompts.
        encoder: Embeds words.
        reward: Scores refined prompts of ``episodes``.
        rules: Which edits are allowed.
        observation: ``"embeddings"`` or ``"index"``; see ``PMLMEnv``.
        patient: ``"vector"`` or ``"checkups"``; see ``PMLMEnv``.
        observed: Which prompts of a batch are observed; by default all. Each process of several that play the same
            episodes observes its share (``pmlm_env.processes``).

    Raises:
        ValueError: ``observation`` or ``patient`` has another value or no effect, or the episodes have no check-ups.
    """

    episodes: EpisodeSet
    encoder: Encoder
    reward: Reward
    rules: EditRules = EditRules()  # noqa: RUF009  (frozen)
    observation: ObservationForm = "embeddings"
    patient: PatientForm = "vector"
    observed: slice = field(default_factory=lambda: slice(None))  # not hashable in Python 3.11

    def __post_init__(self) -> None:
        """Check ``observation`` and ``patient``."""
        for name, known in (("observation", get_args(ObservationForm)), ("patient", get_args(PatientForm))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}: use one of {known}")
        if self.patient == "checkups":
            if self.observation == "index":
                raise ValueError("patient has no effect with observation='index': leave it out")
            self.episodes.checkup_form  # noqa: B018  (raises if they have none)

    @property
    def max_words(self) -> int:
        """W, the number of slots."""
        return self.episodes.max_words if self.rules.max_words is None else self.rules.max_words

    @property
    def patient_size(self) -> int:
        """Length of what an observation has of the patient."""
        return self.episodes.checkup_form.size if self.patient == "checkups" else self.episodes.vectors.shape[1]

    def batch(self, n_prompts: int) -> EditBatch:
        """Make an empty batch of prompts under this task's rules."""
        return EditBatch(self.episodes, n_prompts, self.rules)

    def embed(self, episodes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the words left in some episodes' prompts.

        With ``observation="index"``, use this to turn observations into embeddings.

        Args:
            episodes: Indices, int (B,).
            kept: Which words are left, bool (B, W).

        Returns:
            A new tensor, float32 (B, W, H) on the encoder's device; zeros where no word is left.
        """
        return self.encoder.encode([self.episodes[i].words for i in episodes.tolist()], kept)

    def observe(
        self, episodes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_], legal: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Make the observations of B prompts, or of those in ``observed``, as new arrays; embeddings are a tensor.

        Args:
            episodes: Indices, int (B,).
            kept: Which words are left, bool (B, W).
            legal: Which actions are legal, bool (B, W).
        """
        episodes, kept, legal = episodes[self.observed], kept[self.observed], legal[self.observed]
        mask = legal.astype(np.int8)
        if self.observation == "index":
            return {"episode": episodes.copy(), "kept": kept.astype(np.int8), "action_mask": mask}
        if self.patient == "checkups":
            patient = self.episodes.padded_checkups(episodes.tolist())
        else:
            patient = self.episodes.vectors[episodes]
        return {"embeddings": self.embed(episodes, kept), "patient": patient, "action_mask": mask}

    def judge(self, batch: EditBatch, rows: npt.NDArray[np.int64]) -> Outcomes:
        """Score the prompts in ``rows`` of a batch, in one call of the reward."""
        return self.reward(batch.episodes[rows].tolist(), batch.prompts(rows))
