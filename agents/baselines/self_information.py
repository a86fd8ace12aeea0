"""SelfInformation: deletes the words that a local LM finds least or most surprising, without calling the LLM."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from reprlib import repr as shortened
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.config import SelfInformationConfig
from agents.baselines.deletions import edits_of
from agents.policies.lexicon import FEWEST_PROMPTS
from agents.problem import Problem
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.weights import BUNDLED, resolve
from pmlm_env.weights.pretrained import load_model, load_tokenizer

logger = logging.getLogger(__name__)


class Surprise(Protocol):
    """Measures how surprising words are."""

    def learn(self, prompts: Sequence[Sequence[str]]) -> None:
        """Learn from the training prompts, if the model learns."""

    def __call__(self, prompts: Sequence[Sequence[str]], device: torch.device) -> list[npt.NDArray[np.float64]]:
        """Return the self-information of each word in nats, one array per prompt."""
        ...


class SelfInformation(Agent):
    """Deletes the words with the least or the most self-information; ties go to the earlier word.

    A word's self-information is -log p(word | all preceding words).

    References:
        Li et al., "Compressing Context to Enhance Inference Efficiency of Large Language Models" (Selective-Context),
        EMNLP 2023; Jiang et al., "LLMLingua", EMNLP 2023.
    """

    Config = SelfInformationConfig
    learns = False
    needs_embeddings = False
    seeded = False
    config: SelfInformationConfig
    #: 1 to delete the least surprising words first, -1 to delete the most surprising first.
    _sign: ClassVar[int]

    def __init__(self, config: SelfInformationConfig | None = None, seed: int = 0) -> None:
        """Set the model; ``fit`` looks it up, and its weights are loaded at first use."""
        super().__init__(config, seed)
        self.surprise: Surprise = Bigram() if self.config.model == "bigram" else LocalLM(self.config.model)

    def fit(self, problem: Problem) -> None:
        """Count the words of the training prompts (bigram) or check that the LM is available; the LLM is not called."""
        self.shape = problem.shape
        self.surprise.learn(_words(problem.episodes))

    def refine(self, problem: Problem) -> Edits:
        """Rank all words of each prompt once and delete the first ones, within the edit budget."""
        legal = problem.batch(range(len(problem.episodes))).legal
        chosen = []
        surprises = self.surprise(_words(problem.episodes), problem.encoder.device)
        for free, values, budget in zip(legal, surprises, problem.budgets.tolist(), strict=True):
            slots = np.flatnonzero(free)
            order = np.argsort(self._sign * values[slots], kind="stable")
            chosen.append(tuple(slots[order][:budget].tolist()))
        return edits_of(problem, chosen)

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the bigram counts; a causal LM learns nothing. See ``Agent.learned``."""
        return ({"pairs": self.surprise.rows()} if isinstance(self.surprise, Bigram) else {}), {}

    def words(self) -> tuple[str, ...]:
        """Return the words that the bigram model has counted; see ``Agent.words``."""
        rows = self.surprise.rows() if isinstance(self.surprise, Bigram) else []
        return tuple(sorted({word for _, word, _ in rows}))

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the bigram counts; see ``Agent.restore``.

        Raises:
            ValueError: The values are not bigram counts, or the causal LM is not bundled.
        """
        if isinstance(self.surprise, Bigram):
            self._check_names(values, {"pairs"})
            tensors({})
            self.surprise.restore(values["pairs"])
            return
        super().restore(values, tensors, device)
        if self.config.model not in BUNDLED:
            raise ValueError(
                f"the agent {self.name} ranks words by the model {shortened(self.config.model)}, which is not bundled "
                "and is not loaded on a saved agent's word: train the agent anew, it learns nothing"
            )


class LeastSurprising(SelfInformation):
    """``SelfInformation`` that deletes the least surprising words."""

    name = "self-information-low"
    _sign = 1


class MostSurprising(SelfInformation):
    """``SelfInformation`` that deletes the most surprising words."""

    name = "self-information-high"
    _sign = -1


def _words(episodes: EpisodeSet) -> list[tuple[str, ...]]:
    return [episode.words for episode in episodes]


class Bigram:
    """A bigram model: p(word | previous word) = (count of the pair + 1) / (count of the previous word + V).

    V is the number of known words plus one for all unknown words. The start of a prompt counts as an empty word. Pairs
    that occur in fewer than three training prompts are not counted, because saved agents may be published; ``Lexicon``
    leaves out such words, too.
    """

    def __init__(self) -> None:
        """Start without counts."""
        self._count({})

    def learn(self, prompts: Sequence[Sequence[str]]) -> None:
        """Count the words of prompts."""
        if len(prompts) < FEWEST_PROMPTS:
            logger.warning(
                "A bigram model of %d training patients knows no word: take %d or more", len(prompts), FEWEST_PROMPTS
            )
        pairs: Counter[tuple[str, str]] = Counter()
        n_prompts: Counter[tuple[str, str]] = Counter()
        for words in prompts:
            own = list(pairwise(("", *words)))  # no word is empty
            pairs.update(own)
            n_prompts.update(set(own))
        self._count({pair: n for pair, n in pairs.items() if n_prompts[pair] >= FEWEST_PROMPTS})

    def rows(self) -> list[tuple[str, str, int]]:
        """Return the counts as rows: previous word, word, count."""
        return sorted((before, word, n) for (before, word), n in self._pairs.items())

    def restore(self, rows: Any) -> None:
        """Restore the counts from what ``rows`` returned.

        Raises:
            ValueError: The rows are malformed.
        """
        if not isinstance(rows, list):
            raise ValueError(f"pairs is {shortened(rows)}: use a list of [word, word, count]")
        pairs: dict[tuple[str, str], int] = {}
        for row in rows:
            if not (isinstance(row, list) and [type(part) for part in row] == [str, str, int]):
                raise ValueError(f"pairs holds {shortened(row)}: use [word, word, count]")
            before, word, n = row
            if len(before.split()) > 1 or len(word.split()) != 1 or not 1 <= n <= 2**40 or (before, word) in pairs:
                raise ValueError(f"pairs holds {shortened(row)}: use two words, once, and a count from 1 to 2**40")
            pairs[before, word] = n
        self._count(pairs)

    def __call__(self, prompts: Sequence[Sequence[str]], device: torch.device) -> list[npt.NDArray[np.float64]]:
        """Return the self-information of each word in nats."""
        return [
            np.array(
                [
                    np.log((self._before[a] + self._size) / (self._pairs.get((a, b), 0) + 1))
                    for a, b in pairwise(("", *words))
                ]
            )
            for words in prompts
        ]

    def _count(self, pairs: dict[tuple[str, str], int]) -> None:
        self._pairs = pairs
        self._before: Counter[str] = Counter()
        for (before, _), n in pairs.items():
            self._before[before] += n
        self._size = len({word for _, word in pairs}) + 1


class LocalLM:
    """A causal LM on this machine, in float32; a word's self-information is the sum over its tokens.

    A token belongs to the word that contains its last character; if that is a space, to the next word. The first word
    is conditioned on the beginning-of-text token or, if the model has none, on the end-of-text token.

    Args:
        model: A bundled model's name, a directory or a hub name.
        batch_size: Maximum number of prompts in one forward pass.
    """

    def __init__(self, model: str, batch_size: int = 16) -> None:
        """Set the model; it is loaded at first use."""
        self.model, self.batch_size = model, batch_size

    def learn(self, prompts: Sequence[Sequence[str]]) -> None:
        """Check that the model is available; it learns nothing.

        Raises:
            ModelError: The model is not available.
        """
        resolve(self.model)

    @cached_property
    def _model(self) -> Any:
        return load_model(resolve(self.model), "AutoModelForCausalLM", dtype=torch.float32)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(resolve(self.model))

    def __call__(self, prompts: Sequence[Sequence[str]], device: torch.device) -> list[npt.NDArray[np.float64]]:
        """Return the self-information of each word in nats."""
        values: list[npt.NDArray[np.float64]] = [np.zeros(0)] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: sum(map(len, prompts[i])))  # for less padding
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            for place, row in zip(places, self._batch([prompts[place] for place in places], device), strict=True):
                values[place] = row
        return values

    @torch.inference_mode()
    def _batch(self, prompts: Sequence[Sequence[str]], device: torch.device) -> list[npt.NDArray[np.float64]]:
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
        ids, mask = ids.to(device), mask.to(device)
        logits = self._model.to(device)(input_ids=ids, attention_mask=mask, use_cache=False).logits
        surprise = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids.roll(-1, dims=1).flatten(), reduction="none"
        ).view_as(ids)  # at each position, the surprise of the next token; the last position is not used
        values = []
        for words, offsets, row in zip(prompts, tokens["offset_mapping"], surprise.double().cpu().numpy(), strict=True):
            ends = np.cumsum([len(word) + 1 for word in words]) - 1  # word ends; a space belongs to the next word
            owners = np.searchsorted(ends, [end for _, end in offsets])
            totals = np.bincount(owners, row[: len(owners)], minlength=len(words))
            values.append(totals.astype(np.float64))
        return values
