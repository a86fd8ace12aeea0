"""HashedEncoder: word embeddings without weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch


def letters(word: str) -> str:
    """Return a word without case and punctuation."""
    return "".join(character for character in word.lower() if character.isalnum())


class HashedEncoder:
    """Embeds a word by a hash of its letters: the same word, the same vector, whatever stands beside it.

    Args:
        hidden_size: H, the length of an embedding.
    """

    device = torch.device("cpu")

    def __init__(self, hidden_size: int = 32) -> None:
        """Begin with an empty vocabulary; word 0 is no word."""
        self.hidden_size = hidden_size
        self._table = np.zeros((1, hidden_size), dtype=np.float32)
        self._ids: dict[str, int] = {}
        self._prompts: dict[int, tuple[Sequence[str], npt.NDArray[np.int64]]] = {}

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the kept words of B prompts: float32 (B, W, H) of about unit length, zeros where no word is left."""
        ids = np.zeros(kept.shape, dtype=np.int64)
        for row, prompt in enumerate(words):
            known = self._prompts.get(id(prompt))
            if known is None or known[0] is not prompt:  # ids are not those of another process
                known = (prompt, np.array([self._number(word) for word in prompt], dtype=np.int64))
                if isinstance(prompt, tuple):  # kept with its numbers, so that its id stays its own
                    self._prompts[id(prompt)] = known
            ids[row, : len(prompt)] = known[1]
        ids *= kept
        return torch.from_numpy(np.take(self._table, ids, axis=0))

    def _number(self, word: str) -> int:
        core = letters(word)
        if core not in self._ids:
            vector = np.random.default_rng(seed_of(core)).normal(0, self.hidden_size**-0.5, self.hidden_size)
            self._table = np.vstack([self._table, vector.astype(np.float32)])
            self._ids[core] = len(self._ids) + 1
        return self._ids[core]


def seed_of(word: str) -> int:
    """Return a number that belongs to a word, on every machine the same."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
