"""HashedEncoder: word embeddings that need no weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pmlm_env.core.words import letters

if TYPE_CHECKING:  # imported where it is used, so that Lite's prompts can be made without torch
    import torch

#: As many prompts have the numbers of their words in memory.
_MOST_PROMPTS = 2**16


class HashedEncoder:
    """Embeds a word by a hash of its letters; a word has the same vector in every context.

    Args:
        hidden_size: H, the length of an embedding.
    """

    def __init__(self, hidden_size: int = 32) -> None:
        """Start with an empty vocabulary; number 0 is for slots without a word."""
        self.hidden_size = hidden_size
        self._table = np.zeros((1, hidden_size), dtype=np.float32)
        self._ids: dict[str, int] = {}
        self._prompts: dict[int, tuple[Sequence[str], npt.NDArray[np.int64]]] = {}

    @property
    def device(self) -> torch.device:
        """The CPU."""
        import torch

        return torch.device("cpu")

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the words left in B prompts: float32 (B, W, H) of about unit length, zeros where no word is left."""
        ids = np.zeros(kept.shape, dtype=np.int64)
        for row, prompt in enumerate(words):
            known = self._prompts.get(id(prompt))
            if known is None or known[0] is not prompt:  # after unpickling, an id may belong to another tuple
                known = (prompt, np.array([self._number(word) for word in prompt], dtype=np.int64))
                if isinstance(prompt, tuple):  # the entry keeps the tuple alive, so that its id is not reused
                    if len(self._prompts) == _MOST_PROMPTS:  # episodes that stay in their files make new tuples
                        self._prompts.clear()
                    self._prompts[id(prompt)] = known
            ids[row, : len(prompt)] = known[1]
        ids *= kept
        import torch

        return torch.from_numpy(np.take(self._table, ids, axis=0))

    def _number(self, word: str) -> int:
        core = letters(word)
        if core not in self._ids:
            vector = np.random.default_rng(seed_of(core)).normal(0, self.hidden_size**-0.5, self.hidden_size)
            self._table = np.vstack([self._table, vector.astype(np.float32)])
            self._ids[core] = len(self._ids) + 1
        return self._ids[core]


def seed_of(word: str) -> int:
    """Return a seed for a word, the same on every machine."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
