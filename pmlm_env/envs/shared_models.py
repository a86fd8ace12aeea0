"""SharedModels: what ``gym.make`` loads by name, and who shares it."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.io.files import Stamp, stamp
from pmlm_env.llm.specs import LLMOptions, load_llm, price_of
from pmlm_env.llm.storage.budget import Budget
from pmlm_env.rewards.delta import DeltaReward, Judged
from pmlm_env.rewards.options import LongTexts

if TYPE_CHECKING:  # these import torch, which is loaded when the first model is asked for
    from pmlm_env.encoders.bert import WordEncoder
    from pmlm_env.llm.storage.cached_llm import CachedLLM
    from pmlm_env.rewards.bertscore import BertScorer

#: How many things of each kind are remembered; those asked for least recently are forgotten first.
_REMEMBERED = 8


class SharedModels:
    """Loads episode sets and models by name, and returns the same object whenever the same name is asked for again.

    | what | shared by all who agree in |
    |---|---|
    | episode set | its name and the split |
    | encoder | its name and the device |
    | LLM, with its cache of replies and its budget | all LLM options, the device, the cache file, the budget file |
    | scorer | its name, layer and device, and what it does with long texts |
    | known replies to initial prompts | the episodes, the LLM, the scorer, the number of samples |

    Where files have changed since, a name means something new and is loaded again. A reward, with its count of
    failures in a row, belongs to the env it is made for, and is not shared.

    ``SHARED_MODELS`` is the one that ``gym.make`` uses, once a process.
    """

    def __init__(self) -> None:
        """Load nothing yet."""
        # lru_cache of functions, not of methods: what is remembered belongs to this object and goes with it.
        self._whole_set = lru_cache(_REMEMBERED)(_load_episodes)
        self._part = lru_cache(_REMEMBERED)(lambda episodes, split: episodes.of(split))
        self._encoder = lru_cache(_REMEMBERED)(_load_encoder)
        self._llm = lru_cache(_REMEMBERED)(_load_llm)
        self._scorer = lru_cache(_REMEMBERED)(_load_scorer)
        self._initial = lru_cache(_REMEMBERED)(_nothing_known)

    def episodes(self, name: str, split: Split) -> tuple[EpisodeSet, EpisodeSet]:
        """Return the episodes of all splits, and those of one.

        Args:
            name: A folder that ``pmlm prepare`` wrote, or ``demo``.
            split: Which.

        Raises:
            ValueError: There is no such set, or nothing in it can be judged.
        """
        everything = self._whole_set(name, stamp(Path(name)))
        return everything, self._part(everything, split)

    def encoder(self, name: str, device: str) -> WordEncoder:
        """Return the encoder of that name."""
        return self._encoder(name, device, stamp(Path(name)))

    def reward(
        self,
        episodes: EpisodeSet,
        llm: CachedLLM,
        scorer: BertScorer,
        n_samples: int,
        max_failures: int | None,
    ) -> DeltaReward:
        """Make a reward with a failure count of its own, which knows the initial replies that others have asked for.

        Args:
            episodes: Whose prompts are judged.
            llm: Who replies.
            scorer: What compares replies.
            n_samples: Replies to each prompt.
            max_failures: As for ``DeltaReward``.
        """
        known = self._initial(episodes, llm, scorer, n_samples)
        return DeltaReward(episodes, llm, scorer, n_samples, max_failures, known)

    def llm(self, options: LLMOptions, device: str, cache: str | None, budget_file: str | None) -> CachedLLM:
        """Return the LLM of those options, behind its cache.

        Args:
            options: What is asked, and how.
            device: For ``local:``.
            cache: The file where replies are kept; None = in memory.
            budget_file: A TOML file with limits; see docs/llm.
        """
        paths = (options.providers, budget_file, options.llm.partition(":")[2])
        version = tuple(stamp(Path(path)) for path in paths if path)
        # The cache's own stamp is left out: it grows with every reply, and stays the same file.
        return self._llm(options, device, os.path.abspath(cache) if cache else None, budget_file, version)

    def scorer(self, name: str, layer: int | None, device: str, long_texts: LongTexts) -> BertScorer:
        """Return the scorer of that name."""
        return self._scorer(name, layer, device, long_texts, stamp(Path(name)))


def _load_episodes(name: str, version: Stamp) -> EpisodeSet:
    if name == "demo":
        from pmlm_env.pipeline import demo_episodes

        return demo_episodes()
    return EpisodeSet.load(name)


def _load_encoder(name: str, device: str, version: Stamp) -> WordEncoder:
    from pmlm_env.encoders.bert import WordEncoder

    return WordEncoder(name, device)


def _load_llm(
    options: LLMOptions, device: str, cache: str | None, budget_file: str | None, version: tuple[Stamp, ...]
) -> CachedLLM:
    budget = Budget(price=price_of(options), group=budget_file)
    return load_llm(options, device=device, cache=cache, budget=budget)


def _load_scorer(name: str, layer: int | None, device: str, long_texts: LongTexts, version: Stamp) -> BertScorer:
    from pmlm_env.rewards.bertscore import BertScorer

    return BertScorer(name, layer, device, long_texts)


def _nothing_known(episodes: EpisodeSet, llm: CachedLLM, scorer: BertScorer, n_samples: int) -> dict[int, Judged]:
    return {}


#: The one that ``gym.make`` uses.
SHARED_MODELS = SharedModels()
