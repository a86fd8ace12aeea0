"""EditTask: the objects that define the prompt-editing task, and the observations and outcomes they produce."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from pmlm_env.core.edits import EditBatch, EditRules
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Reward

if TYPE_CHECKING:  # this package only passes tensors on
    import torch

ObservationForm = Literal["embeddings", "index"]


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
    """The task of ``PMLM-v0``, made of five objects that are already loaded.

    Attributes:
        episodes: The patients and their initial prompts.
        encoder: Embeds words.
        reward: Scores refined prompts of ``episodes``.
        rules: Which edits are allowed.
        observation: ``"embeddings"`` or ``"index"``; see ``PMLMEnv``.

    Raises:
        ValueError: ``observation`` has another value.
    """

    episodes: EpisodeSet
    encoder: Encoder
    reward: Reward
    rules: EditRules = EditRules()  # noqa: RUF009  (frozen)
    observation: ObservationForm = "embeddings"

    def __post_init__(self) -> None:
        """Check ``observation``."""
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
        """Make the observations of B prompts, as new arrays; embeddings are a tensor.

        Args:
            episodes: Indices, int (B,).
            kept: Which words are left, bool (B, W).
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
        """Score the prompts in ``rows`` of a batch, in one call of the reward."""
        return self.reward(batch.episodes[rows].tolist(), batch.prompts(rows))
