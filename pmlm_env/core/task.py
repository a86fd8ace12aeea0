"""EditTask: the live parts of the prompt-editing task, and what follows from them: observations and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from pmlm_env.core.edits import EditBatch, EditRules
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Reward

if TYPE_CHECKING:  # tensors only pass through this package
    import torch

ObservationForm = Literal["embeddings", "index"]


class Encoder(Protocol):
    """What the task asks of an encoder; ``WordEncoder`` is one.

    Attributes:
        hidden_size: H, the length of an embedding.
        device: Where embeddings are.
    """

    hidden_size: int

    @property
    def device(self) -> torch.device:
        """Where embeddings are."""
        ...

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the kept words of B prompts: float32 (B, W, hidden_size), zeros elsewhere."""
        ...


@dataclass(eq=False)
class EditTask:
    """The task behind ``PMLM-v0``: five live parts. Nothing is loaded here.

    Attributes:
        episodes: The patients and their initial prompts.
        encoder: Embeds words.
        reward: Judges refined prompts of ``episodes``.
        rules: What an agent may do.
        observation: ``"embeddings"`` or ``"index"``; see ``PMLMEnv``.

    Raises:
        ValueError: ``observation`` is something else.
    """

    episodes: EpisodeSet
    encoder: Encoder
    reward: Reward
    rules: EditRules = EditRules()  # noqa: RUF009  (frozen)
    observation: ObservationForm = "embeddings"

    def __post_init__(self) -> None:
        """Check the form of observations."""
        if self.observation not in get_args(ObservationForm):
            raise ValueError(f"observation is {self.observation!r}: use one of {get_args(ObservationForm)}")

    @property
    def max_words(self) -> int:
        """W, the number of slots."""
        return self.episodes.max_words if self.rules.max_words is None else self.rules.max_words

    def batch(self, n_prompts: int) -> EditBatch:
        """Make an empty batch of prompts under this task's rules."""
        return EditBatch(self.episodes, n_prompts, self.rules)

    def embed(self, episodes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the kept words of some episodes' prompts.

        With ``observation="index"`` this turns an observation into embeddings, wherever they are wanted.

        Args:
            episodes: Indices, int (B,).
            kept: Which words are still there, bool (B, W).

        Returns:
            Float32 (B, W, H) on the encoder's device, zeros where no word is left; memory of its own.
        """
        return self.encoder.encode([self.episodes[i].words for i in episodes.tolist()], kept)

    def observe(
        self, episodes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_], legal: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Make the observations of B prompts; arrays of their own memory, embeddings a tensor.

        Args:
            episodes: Indices, int (B,).
            kept: Which words are still there, bool (B, W).
            legal: Which actions are legal, bool (B, W).
        """
        mask = legal.astype(np.int8)
        if self.observation == "index":
            return {"episode": episodes.copy(), "kept": kept.astype(np.int8), "action_mask": mask}
        return {
            "embeddings": self.embed(episodes, kept),
            "patient": self.episodes.vectors[episodes],
            "action_mask": mask,
        }

    def judge(self, batch: EditBatch, rows: npt.NDArray[np.int64]) -> Outcomes:
        """Score the prompts in ``rows`` of a batch, all at once."""
        return self.reward(batch.episodes[rows].tolist(), batch.prompts(rows))
