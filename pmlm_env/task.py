"""EditTask: what the scalar and the vector env have in common: episodes, models, spaces, observations, infos."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Literal, Protocol, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from pmlm_env.editing import EditBatch
from pmlm_env.encoder import WordEncoder
from pmlm_env.episodes import EpisodeSet, Split
from pmlm_env.llm.cache import CachedLLM
from pmlm_env.llm.specs import load_llm
from pmlm_env.reward import BertScorer, DeltaReward, Outcome, Reward

#: No embedding or patient vector is ever so large; Gymnasium's checker wants a finite bound.
_BOUND = 1e6

ObservationForm = Literal["embeddings", "index"]


class Encoder(Protocol):
    """What the envs ask of an encoder; ``WordEncoder`` is one."""

    hidden_size: int

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
        llm: str = "local:smollm2-135m",
        base_url: str | None = None,
        max_new_tokens: int = 48,
        scorer: str = "minilm",
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
        if isinstance(episodes, str):
            everything, self.episodes = _named_episodes(episodes, split)
        else:
            everything = self.episodes = episodes
        if reward is None:
            if isinstance(episodes, str):
                reward = _named_reward(episodes, split, llm, base_url, max_new_tokens, scorer, device)
            else:
                reward = _make_reward(episodes, llm, base_url, max_new_tokens, scorer, device)
        self.encoder: Encoder = _named_encoder(encoder, device) if isinstance(encoder, str) else encoder
        self.reward: Reward = reward
        self.n_edits = n_edits
        self.max_words = everything.max_words if max_words is None else max_words
        self.observation = observation
        self.protect = tuple(protect)
        if self.max_words < self.episodes.max_words:
            raise ValueError(
                f"max_words is {self.max_words}, but a prompt has {self.episodes.max_words} words; none is ever cut"
            )

    def batch(self, n_prompts: int) -> EditBatch:
        """Make an empty batch of prompts under this task's rules."""
        return EditBatch(n_prompts, self.max_words, self.n_edits, self.protect)

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

    def draw(self, rng: np.random.Generator, options: dict[str, Any] | None, row: int = 0) -> int:
        """Choose the episode to reset to: ``options["episode"]``, else a random one.

        Raises:
            ValueError: The index does not exist.
        """
        if options is None or "episode" not in options:
            return int(rng.integers(len(self.episodes)))
        chosen = np.asarray(options["episode"])
        index = int(chosen if chosen.ndim == 0 else chosen[row])
        if not 0 <= index < len(self.episodes):
            raise ValueError(f"options['episode'] is {index}: there are episodes 0 to {len(self.episodes) - 1}")
        return index

    def embed(self, batch: EditBatch, rows: Sequence[int]) -> torch.Tensor:
        """Embeddings of the prompts in ``rows``, (len(rows), W, H)."""
        words, kept = batch.pieces(rows)
        return self.encoder.encode(words, kept)

    def judge(self, batch: EditBatch, rows: Sequence[int], episodes: Sequence[int]) -> list[Outcome]:
        """Score the prompts in ``rows``, all at once."""
        return self.reward(episodes, [batch.prompt(row) for row in rows])

    def final_info(self, batch: EditBatch, row: int, outcome: Outcome) -> dict[str, Any]:
        """What ``info`` holds at an episode's end besides the mask."""
        info: dict[str, Any] = {"prompt": outcome.prompt, "deleted": tuple(batch.deleted[row])}
        if outcome.error:
            return {**info, "llm_error": outcome.error}
        return {
            **info,
            "reply": outcome.reply,
            "initial_reply": outcome.initial_reply,
            "reference": outcome.reference,
            "score": outcome.score,
            "initial_score": outcome.initial_score,
            "llm_calls": outcome.llm_calls,
        }


@lru_cache(maxsize=8)
def _named_episodes(name: str, split: Split) -> tuple[EpisodeSet, EpisodeSet]:
    """Return a named set, and its episodes of one split."""
    if name == "demo":
        from pmlm_env.pipeline import demo_episodes

        everything = demo_episodes()
    else:
        everything = EpisodeSet.load(name)
    return everything, everything.of(split)


@lru_cache(maxsize=4)
def _named_encoder(name: str, device: str) -> WordEncoder:
    return WordEncoder(name, device)


@lru_cache(maxsize=8)
def _named_reward(
    episodes: str, split: Split, llm: str, base_url: str | None, max_new_tokens: int, scorer: str, device: str
) -> DeltaReward:
    return _make_reward(_named_episodes(episodes, split)[1], llm, base_url, max_new_tokens, scorer, device)


def _make_reward(
    episodes: EpisodeSet, llm: str, base_url: str | None, max_new_tokens: int, scorer: str, device: str
) -> DeltaReward:
    model = load_llm(llm, base_url=base_url, max_new_tokens=max_new_tokens, device=device)
    return DeltaReward(episodes, CachedLLM(model), BertScorer(scorer, device=device))
