"""WordEncoder: contextual word embeddings from a frozen BERT (Eq. 6)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.device import choose_device
from pmlm_env.io.files import Stamp, stamp
from pmlm_env.weights import resolve
from pmlm_env.weights.pretrained import load_config, load_model, load_tokenizer
from pmlm_env.weights.transformer import DECODER_LAYERS, first_layers, input_limit
from pmlm_env.weights.vocabulary import ChineseCheck

if TYPE_CHECKING:  # importing transformers takes seconds, so it is imported only when weights are loaded
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Maximum number of pieces per forward pass, with padding, on a GPU, and on a CPU, where small passes take less time.
_MAX_PIECES, _MAX_PIECES_ON_CPU = 131_072, 8_192

#: Limit on the hidden size, above that of any encoder of the BERT family.
_MAX_HIDDEN = 8_192


class WordEncoder:
    """Contextual embeddings of the words that are left, one vector per word.

    Sub-word pieces are averaged per word. A prompt longer than the model's input is not cut but encoded in chunks,
    each with its own special tokens. Weights are loaded once per process, when they are first used, and not pickled.

    Args:
        model: A bundled model's name, a directory or a hub name of a BERT-family encoder. A bundled LLM of
            ``DECODER_LAYERS`` can be used, too: a word's embedding then depends on the words before it only.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. On a GPU the forward pass runs under bfloat16 autocast.

    Attributes:
        hidden_size: H, the length of an embedding.
        seconds: Wall time spent in ``encode`` so far.
    """

    def __init__(self, model: str = "minilm", device: str = "auto") -> None:
        """Read the model's configuration; its weights are loaded later.

        Raises:
            ModelError: The model is not found.
            ValueError: The model cannot be loaded, or is not an encoder.
        """
        self.model_name = model
        self.device = choose_device(device)
        self._path = resolve(model)
        self.hidden_size: int = getattr(load_config(self._path), "hidden_size", 0)
        if not isinstance(self.hidden_size, int) or not 1 <= self.hidden_size <= _MAX_HIDDEN:
            raise ValueError(
                f"{self._path} is not an encoder: its hidden_size is {self.hidden_size!r}, not 1 to {_MAX_HIDDEN:,}"
            )
        self.seconds = 0.0
        self._pieces: dict[str, list[int]] = {}
        self._layer = DECODER_LAYERS.get(model)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything but the weights and the tokenizer."""
        left_out = ("_bert", "_tokenizer", "_chinese")
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = load_tokenizer(self._path, add_prefix_space=True)
        if self._layer is not None:
            return tokenizer
        if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
            raise ValueError(f"{self._path} is not an encoder: its tokenizer has no cls_token or sep_token")
        return tokenizer

    @cached_property
    def _bert(self) -> PreTrainedModel:
        return load_bert(self._path, self.device, self._layer)

    @cached_property
    def _chinese(self) -> ChineseCheck:
        return ChineseCheck(self._tokenizer, "encoder", self.model_name)

    @torch.no_grad()  # not inference_mode: networks are trained on these tensors
    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the words left in B prompts.

        A prompt that occurs twice in the batch is encoded once.

        Args:
            words: The words of each initial prompt, at most W.
            kept: Which words are left, bool (B, W).

        Returns:
            Embeddings, float32 (B, W, H) on the encoder's device; zeros where no word is left.

        Raises:
            ValueError: The words are Chinese, and the model does not know Chinese.
        """
        started = time.perf_counter()
        index: dict[tuple[str, ...], int] = {}
        rows = []
        for prompt, mask in zip(words, kept.tolist(), strict=True):
            rows.append(index.setdefault(tuple(compress(prompt, mask)), len(index)))
        vectors = self._embed(list(index))
        first = np.cumsum([0, *map(len, index)])
        out = torch.zeros((*kept.shape, self.hidden_size), dtype=torch.float32, device=self.device)
        row_of, slot_of = np.nonzero(kept)
        source = np.concatenate([np.arange(first[i], first[i + 1]) for i in rows]) if rows else np.zeros(0, int)
        out[torch.from_numpy(row_of), torch.from_numpy(slot_of)] = vectors[torch.from_numpy(source)]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - started
        return out

    def _embed(self, prompts: Sequence[Sequence[str]]) -> torch.Tensor:
        """Embed all words of all prompts, in order: (number of words, H)."""
        pieces = [[self._word_pieces(word) for word in prompt] for prompt in prompts]
        n_pieces = torch.tensor([len(ids) for prompt in pieces for ids in prompt], dtype=torch.long, device=self.device)
        owner = torch.arange(len(n_pieces), device=self.device).repeat_interleave(n_pieces)
        total = torch.zeros(len(n_pieces), self.hidden_size, dtype=torch.float32, device=self.device)
        chunks = [chunk for prompt in pieces for chunk in self._chunks(prompt)]
        places = np.split(np.arange(len(owner)), np.cumsum([*map(len, chunks)])[:-1])
        for rows in self._passes([*map(len, chunks)]):
            states = self._forward([chunks[row] for row in rows])
            total.index_add_(0, owner[torch.from_numpy(np.concatenate([places[row] for row in rows]))], states)
        return total / n_pieces[:, None]

    def _passes(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Share chunks among forward passes, the longest first, so that little of a pass is padding."""
        most = _MAX_PIECES_ON_CPU if self.device.type == "cpu" else _MAX_PIECES
        rows: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            if rows and (len(rows) + 1) * (lengths[rows[0]] + 2) > most:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    def _chunks(self, prompt: Sequence[Sequence[int]]) -> list[list[int]]:
        """Split a prompt's pieces into chunks that fit the model's input, between words where possible."""
        chunks: list[list[int]] = []
        chunk: list[int] = []
        for ids in prompt:
            if chunk and len(chunk) + len(ids) > self._room:
                chunks.append(chunk)
                chunk = []
            chunk.extend(ids)
            while len(chunk) > self._room:  # a single word longer than the model's input
                chunks.append(chunk[: self._room])
                chunk = chunk[self._room :]
        return [*chunks, chunk] if chunk else chunks

    def _forward(self, chunks: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run BERT over chunks of pieces; return the last hidden states of all pieces in order, (pieces, H)."""
        tokenizer, special = self._tokenizer, int(self._layer is None)  # a decoder has no special tokens here
        lengths = np.array([len(chunk) for chunk in chunks])[:, None]
        position = np.arange(lengths.max() + 2 * special)
        inside = (position >= special) & (position < lengths + special)  # excludes special tokens and padding
        ids = np.full(inside.shape, tokenizer.pad_token_id or 0)
        ids[inside] = np.fromiter(chain.from_iterable(chunks), dtype=ids.dtype)
        if special:
            ids[:, 0] = tokenizer.cls_token_id
            ids[position == lengths + 1] = tokenizer.sep_token_id
        inputs = {"input_ids": ids, "attention_mask": (position < lengths + 2 * special).astype(ids.dtype)}
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            states = self._bert(**{name: torch.from_numpy(x).to(self.device) for name, x in inputs.items()})
        return states.last_hidden_state[torch.from_numpy(inside)].float()

    @cached_property
    def _room(self) -> int:
        """Maximum number of pieces in a chunk, without special tokens."""
        return min(input_limit(self._tokenizer, self._bert), 512) - 2

    def _word_pieces(self, word: str) -> list[int]:
        pieces = self._pieces.get(word)
        if pieces is None:
            # A BERT-family tokenizer splits at white space first: a word's pieces do not depend on its neighbors. That
            # of a decoder makes the space before a word part of it; before a Chinese word, there is none.
            if self._layer is not None:
                text = f" {word}" if word[:1].isascii() else word
                pieces = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            else:
                pieces = self._tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
            pieces = pieces or [self._tokenizer.unk_token_id]
            self._chinese.add(word, pieces)
            self._pieces[word] = pieces
        return pieces


def load_bert(path: str, device: torch.device, num_layers: int | None = None) -> PreTrainedModel:
    """Load a frozen encoder, if possible only its first ``num_layers`` layers; cached until its files change."""
    return _load_bert(path, device, num_layers, stamp(Path(path)))


@lru_cache(maxsize=4)
def _load_bert(path: str, device: torch.device, num_layers: int | None, version: Stamp) -> PreTrainedModel:
    model = load_model(path, dtype=torch.float32)
    if num_layers is not None:
        model = first_layers(model, num_layers)
    return model.to(device).requires_grad_(False)
