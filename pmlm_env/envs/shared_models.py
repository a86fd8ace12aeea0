"""SharedModels: loads what ``gym.make`` names, and shares it between envs."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.core.labels import Label
from pmlm_env.core.task import Encoder
from pmlm_env.encoders.base import load_encoder
from pmlm_env.io.files import Stamp, stamp
from pmlm_env.kwargs import Kwargs
from pmlm_env.llm.specs import LLMOptions, load_llm, price_of
from pmlm_env.llm.storage.budget import Budget
from pmlm_env.llm.storage.location import is_url
from pmlm_env.rewards.base import CheckedReward
from pmlm_env.rewards.components import COMPONENTS, Components, WithComponents
from pmlm_env.rewards.delta import DeltaReward, Judged
from pmlm_env.rewards.options import LongTexts, ShownComponents
from pmlm_env.rewards.registry import REWARDS, load_reward

if TYPE_CHECKING:  # these import torch, which is loaded with the first model
    from pmlm_env.llm.storage.cached_llm import CachedLLM
    from pmlm_env.rewards.bertscore import BertScorer

#: Number of cached objects of each kind; the least recently used one is dropped first.
_CACHE_SIZE = 8

#: The name of the small simulated episode set, and of the same patients with Chinese prompts and letters.
DEMO, DEMO_ZH = "demo", "demo-zh"


class SharedModels:
    """Loads episode sets and models by name, and returns the same object when the same name is used again.

    | object | shared by envs with the same |
    |---|---|
    | episode set | name and split |
    | encoder | name, arguments and device |
    | LLM, with its reply cache and budget | LLM options, device, cache file and budget file |
    | scorer | name, layer, device, treatment of long texts, and texts for idf |
    | reward that scores replies | name, arguments, device, scorer, training patients and further components |
    | scored replies to initial prompts | episodes, LLM, reward that scores them and number of samples |

    If the files behind a name have changed, they are loaded again; a class of one's own is imported once. A
    ``DeltaReward``, with its count of failures in a row, belongs to one env and is not shared.

    ``gym.make`` uses one instance per process, ``SHARED_MODELS``.
    """

    def __init__(self) -> None:
        """Make empty caches; nothing is loaded yet."""
        # lru_cache of functions, not of methods: the caches belong to this object and are freed with it.
        self._all_splits = lru_cache(_CACHE_SIZE)(_load_episodes)
        self._one_split = lru_cache(_CACHE_SIZE)(lambda episodes, split: episodes.of(split))
        self._encoder = lru_cache(_CACHE_SIZE)(_load_encoder)
        self._llm = lru_cache(_CACHE_SIZE)(_load_llm)
        self._scorer = lru_cache(_CACHE_SIZE)(_load_scorer)
        self._reward = lru_cache(_CACHE_SIZE)(_load_reward)
        self._initial = lru_cache(_CACHE_SIZE)(_no_initial_replies)

    def episodes(self, name: str, split: Split) -> tuple[EpisodeSet, EpisodeSet]:
        """Return the episodes of all splits, and those of one split.

        Args:
            name: A folder that ``pmlm prepare`` wrote, ``demo``, or ``demo-zh``.
            split: The split.

        Raises:
            ValueError: There is no such set, or none of the split's episodes can be scored.
        """
        all_splits = self._all_splits(name, stamp(Path(name)))
        return all_splits, self._one_split(all_splits, split)

    def training(self, name: str) -> EpisodeSet | None:
        """Return the training patients of the set with the given name; None if none of them can be scored."""
        try:
            return self.episodes(name, "train")[1]
        except ValueError:
            return None

    def encoder(self, name: str, kwargs: Kwargs, device: str) -> Encoder:
        """Return the encoder with the given name; ``kwargs`` are for a class of one's own."""
        return self._encoder(name, kwargs, device, stamp(Path(name)))

    def reply_reward(
        self,
        name: str,
        kwargs: Kwargs,
        device: str,
        scorer: BertScorer | None,
        training: EpisodeSet | None,
        conditions: tuple[Label, ...] = (),
        components: ShownComponents = "reward",
    ) -> CheckedReward:
        """Return the reward with the given name, which scores replies.

        Args:
            name: The name.
            kwargs: Arguments of the reward's class.
            device: As for ``load_reward``.
            scorer: BERTScore, for built-in rewards and for ``all`` components.
            training: Training patients, for rewards and components that compare replies with their letters.
            conditions: The conditions that replies are searched for.
            components: Whether to compute ``all`` components, or only those of the reward.
        """
        texts = [value for value in kwargs.values() if isinstance(value, str) and name in REWARDS.builtin]
        files = tuple(stamp(Path(text)) for text in texts)
        return self._reward(name, kwargs, device, scorer, training, conditions, components, files)

    def reward(
        self,
        episodes: EpisodeSet,
        llm: CachedLLM,
        reply_reward: CheckedReward,
        n_samples: int,
        max_failures: int | None,
    ) -> DeltaReward:
        """Make a reward with its own count of failures, which shares scored replies to initial prompts.

        Args:
            episodes: The episodes whose prompts are scored.
            llm: The downstream LLM.
            reply_reward: Scores replies.
            n_samples: Replies to each prompt.
            max_failures: As for ``DeltaReward``.
        """
        initial = self._initial(episodes, llm, reply_reward, n_samples)
        return DeltaReward(episodes, llm, reply_reward, n_samples, max_failures, initial)

    def llm(self, options: LLMOptions, device: str, cache: str | None, budget_file: str | None) -> CachedLLM:
        """Return the LLM with the given options and a reply cache.

        Args:
            options: The LLM's options.
            device: For ``local:``.
            cache: The file, or the server's URL, where replies are stored; None = in memory.
            budget_file: A TOML file with limits; see docs/llm.
        """
        paths = (options.providers, budget_file, options.llm.partition(":")[2])
        version = tuple(stamp(Path(path)) for path in paths if path)
        # The cache file's stamp is left out, because it changes with every reply.
        cache = os.path.abspath(cache) if cache and not is_url(cache) else cache
        return self._llm(options, device, cache, budget_file, version)

    def scorer(
        self,
        name: str,
        layer: int | None,
        device: str,
        long_texts: LongTexts,
        idf: tuple[str, ...] | None = None,
    ) -> BertScorer:
        """Return the scorer with the given name; see ``BertScorer``."""
        return self._scorer(name, layer, device, long_texts, idf, stamp(Path(name)))


def _load_episodes(name: str, version: Stamp) -> EpisodeSet:
    if name in (DEMO, DEMO_ZH):
        from pmlm_env.pipeline import demo_episodes

        return demo_episodes("zh" if name == DEMO_ZH else "en")
    return EpisodeSet.load(name)


def _load_encoder(name: str, kwargs: Kwargs, device: str, version: Stamp) -> Encoder:
    return load_encoder(name, kwargs, device)


def _load_llm(
    options: LLMOptions, device: str, cache: str | None, budget_file: str | None, version: tuple[Stamp, ...]
) -> CachedLLM:
    budget = Budget(price=price_of(options), group=budget_file)
    return load_llm(options, device=device, cache=cache, budget=budget)


def _load_scorer(
    name: str,
    layer: int | None,
    device: str,
    long_texts: LongTexts,
    idf: tuple[str, ...] | None,
    version: Stamp,
) -> BertScorer:
    from pmlm_env.rewards.bertscore import BertScorer

    return BertScorer(name, layer, device, long_texts, idf)


def _load_reward(
    name: str,
    kwargs: Kwargs,
    device: str,
    scorer: BertScorer | None,
    training: EpisodeSet | None,
    conditions: tuple[Label, ...],
    components: ShownComponents,
    version: tuple[Stamp, ...],
) -> CheckedReward:
    reward = load_reward(name, kwargs, device, scorer, training, conditions)
    if components == "reward":
        return reward
    assert scorer is not None
    return CheckedReward(name, WithComponents(reward, Components(COMPONENTS, scorer, training, conditions)))


def _no_initial_replies(
    episodes: EpisodeSet, llm: CachedLLM, reply_reward: CheckedReward, n_samples: int
) -> dict[int, Judged]:
    return {}


#: The instance that ``gym.make`` uses.
SHARED_MODELS = SharedModels()
