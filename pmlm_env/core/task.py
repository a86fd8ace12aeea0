"""EditTask: what the scalar and the vector env have in common: episodes, models, spaces, observations, infos."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.core.edits import EditBatch, Prompts
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.core.outcomes import Outcomes, Reward
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.io.files import Stamp, stamp
from pmlm_env.llm.base import OnTruncated
from pmlm_env.llm.specs import LLMDtype, LLMOptions, load_llm, price_of
from pmlm_env.llm.storage.budget import Budget
from pmlm_env.rewards.bertscore import BertScorer, LongTexts
from pmlm_env.rewards.delta import DeltaReward

#: No embedding or patient vector is ever so large; Gymnasium's checker wants a finite bound.
_BOUND = 1e6

ObservationForm = Literal["embeddings", "index"]


class Encoder(Protocol):
    """What the envs ask of an encoder; ``WordEncoder`` is one."""

    hidden_size: int
    device: torch.device

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the kept words of B prompts: float32 (B, W, hidden_size), zeros elsewhere."""
        ...


class EditTask:
    """The task behind ``PMLM-v0``; see ``PMLMEnv`` for the arguments.

    Names (of episode sets, encoders, LLMs, scorers) stand for things that are loaded once a process and shared, so
    that eight envs own one model and ask for each initial reply once. Live objects may be passed instead.
    """

    def __init__(
        self,
        episodes: EpisodeSet | str = "demo",
        split: Split = "train",
        encoder: Encoder | str = "minilm",
        llm: str = LLMOptions.llm,
        base_url: str | None = None,
        providers: str | None = None,
        max_new_tokens: int = LLMOptions.max_new_tokens,
        temperature: float = 0.0,
        llm_seed: int = 0,
        llm_dtype: LLMDtype = "auto",
        on_truncated: OnTruncated | None = None,
        chat_template_kwargs: str | None = None,
        n_samples: int = 1,
        max_failures: int | None = 64,
        cache: str | None = None,
        budget_file: str | None = None,
        scorer: str = "minilm",
        scorer_layer: int | None = None,
        long_texts: LongTexts = "cut",
        reward: Reward | None = None,
        n_edits: int = 10,
        max_words: int | None = None,
        observation: ObservationForm = "embeddings",
        protect: Collection[str] = (),
        device: str = "auto",
    ) -> None:
        """Gather the parts; see ``PMLMEnv``."""
        if observation not in get_args(ObservationForm):
            raise ValueError(f"observation is {observation!r}: use one of {get_args(ObservationForm)}")
        for name, value in {"llm": llm, "providers": providers, "cache": cache, "budget_file": budget_file}.items():
            if not isinstance(value, str | None):
                raise ValueError(f"{name} is {value!r}: give a string")
        recipe = _RewardRecipe(
            LLMOptions(
                *(llm, base_url, providers, max_new_tokens, temperature, llm_seed, llm_dtype, on_truncated),
                chat_template_kwargs,
            ),
            *(n_samples, max_failures, cache, budget_file, scorer, scorer_layer, long_texts, device),
        )
        idle = [] if isinstance(episodes, str) or split == "train" else ["split"]
        if reward is not None:
            idle += recipe.changed()
            idle += [] if isinstance(encoder, str) or device == "auto" else ["device"]
        if idle:
            raise ValueError(f"{', '.join(idle)} has no effect beside objects that are made already: leave it out")
        if isinstance(episodes, str):
            version = stamp(Path(episodes))
            everything, self.episodes = _named_episodes(episodes, split, version)
            if reward is None:
                reward = _named_reward(episodes, split, version, recipe, recipe.files())
        else:
            everything = self.episodes = episodes
            if reward is None:
                reward = recipe.make(episodes)
        self.reward: Reward = reward
        self.encoder: Encoder = (
            _named_encoder(encoder, device, stamp(Path(encoder))) if isinstance(encoder, str) else encoder
        )
        self.max_words = everything.max_words if max_words is None else max_words
        self.observation = observation
        self._rules = (n_edits, protect)

    def batch(self, n_prompts: int) -> EditBatch:
        """Make an empty batch of prompts under this task's rules."""
        return EditBatch(self.episodes, n_prompts, self.max_words, *self._rules)

    @property
    def observation_space(self) -> gym.spaces.Dict:
        """Of one env."""
        mask = gym.spaces.MultiBinary(self.max_words)
        if self.observation == "index":
            return gym.spaces.Dict(
                episode=gym.spaces.Discrete(len(self.episodes)),
                kept=gym.spaces.MultiBinary(self.max_words),
                action_mask=mask,
            )
        shape = (self.max_words, self.encoder.hidden_size)
        return gym.spaces.Dict(
            embeddings=gym.spaces.Box(-_BOUND, _BOUND, shape, np.float32),
            patient=gym.spaces.Box(-_BOUND, _BOUND, self.episodes.vectors.shape[1:], np.float32),
            action_mask=mask,
        )

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Of one env: the slot whose word is to go."""
        return gym.spaces.Discrete(self.max_words)

    def chosen(self, options: dict[str, Any] | None) -> npt.NDArray[np.int64] | None:
        """Return the episodes that ``options["episode"]`` asks for, of its own shape, or None.

        Raises:
            ValueError: An index does not exist.
        """
        if options is None or "episode" not in options:
            return None
        index = np.asarray(options["episode"])
        if index.dtype.kind not in "iu" or ((index < 0) | (index >= len(self.episodes))).any():
            raise ValueError(
                f"options['episode'] is {options['episode']!r}: there are episodes 0 to {len(self.episodes) - 1}"
            )
        return index

    def embed(self, episodes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the kept words of some episodes' prompts.

        With ``observation="index"`` this turns an observation into embeddings, wherever they are wanted.

        Args:
            episodes: Indices, int (B,).
            kept: Which words are still there, bool (B, W).

        Returns:
            Float32 (B, W, H) on the encoder's device, zeros where no word is left; memory of its own.
        """
        return self.encoder.encode([self.episodes[i].words for i in episodes.tolist()], kept)

    def observe(
        self, episodes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_], legal: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Make the observations of B prompts; arrays of their own memory, embeddings a tensor.

        Args:
            episodes: Indices, int (B,).
            kept: Which words are still there, bool (B, W).
            legal: Which may be deleted, bool (B, W).
        """
        mask = legal.astype(np.int8)
        if self.observation == "index":
            return {"episode": episodes.copy(), "kept": kept.astype(np.int8), "action_mask": mask}
        return {
            "embeddings": self.embed(episodes, kept),
            "patient": self.episodes.vectors[episodes],
            "action_mask": mask,
        }

    def judge(
        self, batch: EditBatch, rows: npt.NDArray[np.int64]
    ) -> tuple[Outcomes, dict[str, tuple[Sequence[Any], npt.NDArray[np.bool_]]]]:
        """Score the prompts in ``rows``, all at once.

        Returns:
            How they ended, and what ``info`` says of it: for each key a value for each row, and which rows have it.
        """
        prompts = batch.prompts(rows)
        outcomes = self.reward(batch.episodes[rows].tolist(), prompts)
        return outcomes, _final_columns(batch.deleted(rows), prompts, outcomes)


def _final_columns(
    deleted: list[tuple[int, ...]], prompts: Prompts, outcomes: Outcomes
) -> dict[str, tuple[Sequence[Any], npt.NDArray[np.bool_]]]:
    failed = outcomes.failed
    answered, every = ~failed, np.ones(len(failed), dtype=np.bool_)
    columns: dict[str, tuple[Sequence[Any], npt.NDArray[np.bool_]]] = {"deleted": (deleted, every)}
    if answered.any():
        for name in ("score", "initial_score", "llm_calls"):
            columns[name] = (getattr(outcomes, name), answered)
        for name in ("score_sd", "initial_score_sd"):
            if getattr(outcomes, name) is not None:
                columns[name] = (getattr(outcomes, name), answered)
        if outcomes.texts is not None:
            columns["prompt"] = (list(prompts), every)
            for name in ("reply", "initial_reply", "reference"):
                columns[name] = (getattr(outcomes.texts, name), answered)
    if failed.any():
        columns["prompt"] = (list(prompts), every)
        columns["llm_error"] = (outcomes.errors, failed)
    return columns


# What is named is loaded once, and again where its files have changed since: so their stamps are among the arguments.


@lru_cache(maxsize=8)
def _named_episodes(name: str, split: Split, version: Stamp) -> tuple[EpisodeSet, EpisodeSet]:
    """Return a named set, and its episodes of one split."""
    if name == "demo":
        from pmlm_env.pipeline import demo_episodes

        everything = demo_episodes()
    else:
        everything = EpisodeSet.load(name)
    return everything, everything.of(split)


@lru_cache(maxsize=4)
def _named_encoder(name: str, device: str, version: Stamp) -> WordEncoder:
    return WordEncoder(name, device)


class _RewardRecipe(NamedTuple):
    """What a reward is made from, by name."""

    llm: LLMOptions = LLMOptions()
    n_samples: int = 1
    max_failures: int | None = 64
    cache: str | None = None
    budget_file: str | None = None
    scorer: str = "minilm"
    scorer_layer: int | None = None
    long_texts: LongTexts = "cut"
    device: str = "auto"

    def changed(self) -> list[str]:
        """Name what is not as it usually is, but for the device, which the encoder has too."""
        names = [each.name for each in fields(self.llm) if getattr(self.llm, each.name) != each.default]
        usual = {name: value for name, value in self._field_defaults.items() if name not in ("llm", "device")}
        return names + [name for name, value in usual.items() if getattr(self, name) != value]

    def files(self) -> tuple[Stamp | str, ...]:
        """Return what tells other files of these names from those of now."""
        paths = (self.llm.providers, self.budget_file, self.scorer, self.llm.llm.partition(":")[2])
        cache = os.path.abspath(self.cache) if self.cache else ""  # which grows, and stays the same
        return (cache, *(stamp(Path(path)) for path in paths if path))

    def make(self, episodes: EpisodeSet) -> DeltaReward:
        budget = Budget(price=price_of(self.llm), group=self.budget_file)
        llm = load_llm(self.llm, device=self.device, cache=self.cache, budget=budget)
        scorer = BertScorer(self.scorer, self.scorer_layer, self.device, self.long_texts)
        return DeltaReward(episodes, llm, scorer, self.n_samples, self.max_failures)


@lru_cache(maxsize=8)
def _named_reward(
    episodes: str, split: Split, version: Stamp, recipe: _RewardRecipe, files: tuple[Stamp | str, ...]
) -> DeltaReward:
    return recipe.make(_named_episodes(episodes, split, version)[1])
