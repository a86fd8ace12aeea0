"""SentenceEncoder: sentence embeddings of the bundled encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.device import choose_device
from pmlm_env.encoders.bert import load_bert
from pmlm_env.weights import resolve
from pmlm_env.weights.pretrained import load_tokenizer

if TYPE_CHECKING:  # importing transformers takes seconds, so it is imported only when weights are loaded
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Texts are cut at this number of pieces, as all-MiniLM-L6-v2 was trained.
_MAX_PIECES = 256


class SentenceEncoder:
    """Sentence embeddings of the bundled all-MiniLM-L6-v2, by its sentence-transformers recipe.

    The hidden states of the last layer are averaged over all pieces, special tokens included, and normalized. Texts are
    embedded one at a time: in a batch, rounding would depend on the other texts. Weights are loaded when they are first
    used, shared with a ``WordEncoder`` of the same model and device, and not pickled.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: The bundled encoder is not found.
    """

    def __init__(self, device: str = "auto") -> None:
        """Find the model; its weights are loaded later."""
        self.device = choose_device(device)
        self._path = resolve("minilm")

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything but the weights and the tokenizer."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_bert", "_tokenizer")}

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._path)

    @cached_property
    def _bert(self) -> PreTrainedModel:
        return load_bert(self._path, self.device)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return a unit vector for each of N texts, float32 (N, H)."""
        rows = np.empty((len(texts), self._bert.config.hidden_size), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            pieces = self._tokenizer(text, truncation=True, max_length=_MAX_PIECES, return_tensors="pt")
            with torch.autocast(self.device.type, enabled=False):
                states = self._bert(**pieces.to(self.device)).last_hidden_state[0]
            row[:] = torch.nn.functional.normalize(states.float().mean(dim=0), dim=0).cpu().numpy()
        return rows
