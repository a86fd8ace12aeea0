"""SelfInformation: deletes the words that a local LM finds least surprising, or most; asks no LLM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from agents.base import Agent, Deletions
from agents.baselines.config import SelfInformationConfig
from agents.problem import Problem
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.device import choose_device
from pmlm_env.weights import resolve
from pmlm_env.weights.pretrained import load_model, load_tokenizer


class Surprise(Protocol):
    """Says how surprising words are."""

    def learn(self, prompts: Sequence[Sequence[str]]) -> None:
        """Learn from training prompts, if anything is to be learnt."""

    def __call__(self, prompts: Sequence[Sequence[str]]) -> list[npt.NDArray[np.float64]]:
        """Return the self-information of each word, nats, an array for each prompt."""
        ...


class SelfInformation(Agent):
    """Deletes the ``n_edits`` words of least self-information, or of most; of equals the earlier.

    A word's self-information is -log p of it after all that stands before it.

    References:
        Li et al., "Compressing Context to Enhance Inference Efficiency of Large Language Models" (Selective-Context),
        EMNLP 2023; Jiang et al., "LLMLingua", EMNLP 2023.
    """

    Config = SelfInformationConfig

    def __init__(self, config: Any = None, seed: int = 0) -> None:
        """Find the model; its weights come when they are needed."""
        super().__init__(config, seed)
        self.surprise: Surprise = Bigram()
        if self.config.model != "bigram":
            self.surprise = LocalLM(self.config.model, self.config.device, self.config.batch_size)

    def fit(self, problem: Problem) -> None:
        """Let the bigram model count the training prompts; nobody is asked."""
        self.surprise.learn(_words(problem.episodes))

    def refine(self, problem: Problem) -> Deletions:
        """Rank the words of each prompt, all at once."""
        sign = 1 if self.config.order == "low" else -1
        legal = problem.batch(range(len(problem.episodes))).legal
        deletions = []
        for free, values in zip(legal, self.surprise(_words(problem.episodes)), strict=True):
            slots = np.flatnonzero(free)
            order = np.argsort(sign * values[slots], kind="stable")
            deletions.append(tuple(slots[order][: problem.n_edits].tolist()))
        return deletions


def _words(episodes: EpisodeSet) -> list[tuple[str, ...]]:
    return [episode.words for episode in episodes]


class Bigram:
    """A word after the one before it: p = (count of both + 1) / (count of the one before, with any after it, + V).

    V is the number of words known, and one for all others. Before the first word stands a mark of its own.
    """

    def __init__(self) -> None:
        """Know no word."""
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._firsts: Counter[str] = Counter()
        self._known: set[str] = set()

    def learn(self, prompts: Sequence[Sequence[str]]) -> None:
        """Count the words of prompts."""
        for words in prompts:
            for pair in pairwise(("", *words)):  # no word is empty
                self._pairs[pair] += 1
                self._firsts[pair[0]] += 1
            self._known.update(words)

    def __call__(self, prompts: Sequence[Sequence[str]]) -> list[npt.NDArray[np.float64]]:
        """Return the self-information of each word, nats."""
        size = len(self._known) + 1
        return [
            np.array([np.log((self._firsts[a] + size) / (self._pairs[a, b] + 1)) for a, b in pairwise(("", *words))])
            for words in prompts
        ]


class LocalLM:
    """A causal LM on this machine, in float32; a word's self-information is the sum over its tokens.

    A token belongs to the word that its last character is in, or the one after the space. The first word comes after
    the token that begins a text, or, if the model has none, the one that ends it.

    Args:
        model: A bundled model's name, a directory or a hub name.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_size: Most prompts in one pass.

    Raises:
        ModelError: The model is not to be found.
        ValueError: The device is not there.
    """

    def __init__(self, model: str, device: str = "auto", batch_size: int = 16) -> None:
        """Find the model."""
        self.device, self.batch_size = choose_device(device), batch_size
        self._path = resolve(model)

    def learn(self, prompts: Sequence[Sequence[str]]) -> None:
        """Learn nothing: the model is as it is."""

    @cached_property
    def _model(self) -> Any:
        return load_model(self._path, "AutoModelForCausalLM", dtype=torch.float32).to(self.device)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._path)

    def __call__(self, prompts: Sequence[Sequence[str]]) -> list[npt.NDArray[np.float64]]:
        """Return the self-information of each word, nats."""
        values: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: sum(map(len, prompts[i])))  # so that little is padded
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            for place, row in zip(places, self._batch([prompts[place] for place in places]), strict=True):
                values[place] = row
        return values

    @torch.inference_mode()
    def _batch(self, prompts: Sequence[Sequence[str]]) -> list[npt.NDArray[np.float64]]:
        texts = [" ".join(words) for words in prompts]
        tokens = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        first = self._tokenizer.bos_token_id
        first = self._tokenizer.eos_token_id if first is None else first
        length = 1 + max(map(len, tokens["input_ids"]))
        ids = torch.full((len(texts), length), first)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(tokens["input_ids"]):
            ids[row, 1 : 1 + len(sequence)] = torch.tensor(sequence)
            mask[row, : 1 + len(sequence)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        surprise = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids.roll(-1, dims=1).flatten(), reduction="none"
        ).view_as(ids)  # at each position of the token after it; the last one's is not used
        values = []
        for words, offsets, row in zip(prompts, tokens["offset_mapping"], surprise.double().cpu().numpy(), strict=True):
            ends = np.cumsum([len(word) + 1 for word in words]) - 1  # where each word ends; a space goes with the next
            owners = np.searchsorted(ends, [end for _, end in offsets])
            totals = np.bincount(owners, row[: len(owners)], minlength=len(words))
            values.append(totals.astype(np.float64))
        return values
