"""A word encoder without weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.feature_extraction.text import HashingVectorizer

from pmlm_env.device import choose_device


class CharacterNgrams:
    """Embeds a word by its sequences of two to four characters: words of similar spelling have similar embeddings.

    Args:
        device: The device of the embeddings.
        size: Length of an embedding.
    """

    def __init__(self, device: str = "auto", size: int = 64) -> None:
        """Store the arguments."""
        self.hidden_size, self.device = size, choose_device(device)
        self.hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=size)

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the words left in B prompts: float32 (B, W, hidden_size), zeros elsewhere."""
        embeddings = np.zeros((*kept.shape, self.hidden_size), dtype=np.float32)
        left = [words[row][slot] for row, slot in zip(*kept.nonzero(), strict=True)]
        if left:
            embeddings[kept] = self.hashed.transform(left).toarray()
        return torch.from_numpy(embeddings).to(self.device)
