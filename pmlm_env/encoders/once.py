"""OnceEncoder: the words' embeddings in the initial prompt, whatever is deleted later."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.encoders.bert import WordEncoder

#: Embeddings are kept until they are as many numbers, 1 GiB.
_MOST_NUMBERS = 2**28


class OnceEncoder:
    """Embeds each initial prompt once; a word that is left keeps its embedding.

    ``WordEncoder`` encodes a prompt again after each deletion (Eq. 6), so that an embedding also depends on which
    words around it are left. Here it does not, and a prompt takes one forward pass in place of one after each deletion.

    Args:
        model: As for ``WordEncoder``.
        device: As for ``WordEncoder``.

    Attributes:
        model_name: ``once``; with another model than the default one, ``once:MODEL``.
        hidden_size: H, the length of an embedding.
        seconds: Wall time spent in ``encode`` so far.

    Raises:
        ModelError: The model is not found.
        ValueError: The model cannot be loaded, or is not an encoder.
    """

    def __init__(self, model: str = "minilm", device: str = "auto") -> None:
        """Read the model's configuration; its weights are loaded later."""
        self._encoder = WordEncoder(model, device)
        self.model_name = "once" if model == "minilm" else f"once:{model}"
        self.hidden_size, self.device = self._encoder.hidden_size, self._encoder.device
        self.seconds = 0.0
        self._known: dict[tuple[str, ...], torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything but the weights and the embeddings."""
        return {**self.__dict__, "_known": {}}

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the words left in B prompts: float32 (B, W, H), zeros elsewhere; see ``WordEncoder.encode``."""
        started = time.perf_counter()
        prompts = [tuple(prompt) for prompt in words]
        self._add(dict.fromkeys(prompts))
        out = torch.zeros((*kept.shape, self.hidden_size), dtype=torch.float32, device=self.device)
        for row, prompt in enumerate(prompts):
            out[row, : len(prompt)] = self._known[prompt]
        out *= torch.from_numpy(kept).to(self.device)[..., None]
        self.seconds += time.perf_counter() - started
        return out

    def _add(self, prompts: Collection[tuple[str, ...]]) -> None:
        """Embed those prompts that are not known yet; forget the others if there are too many."""
        new = [prompt for prompt in prompts if prompt not in self._known]
        if not new:
            return
        if self.hidden_size * (sum(map(len, self._known)) + sum(map(len, new))) > _MOST_NUMBERS:
            self._known, new = {}, list(prompts)
        lengths = np.array([len(prompt) for prompt in new])
        embeddings = self._encoder.encode(new, np.arange(lengths.max()) < lengths[:, None])
        self._known |= {prompt: embeddings[row, : len(prompt)].clone() for row, prompt in enumerate(new)}
