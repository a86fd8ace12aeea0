"""The task of ``PMLMLite-v0``, made from the env's arguments or from other episodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from pmlm_env.core.edits import EditRules
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.core.task import EditTask, ObservationForm
from pmlm_env.encoders.hashed import HashedEncoder
from pmlm_env.envs.lite.episodes import lite_episodes
from pmlm_env.envs.lite.reward import LiteReward
from pmlm_env.envs.options import TaskOptions


def lite_task(
    episodes: EpisodeSet,
    rules: EditRules = EditRules(),  # noqa: B008  (frozen)
    observation: ObservationForm = "embeddings",
    texts: bool = False,
) -> EditTask:
    """Make Lite's task for other episodes: ``gym.make("PMLMLite-v0", task=lite_task(lite_episodes(seed=1)))``.

    Args:
        episodes: The prompts and references.
        rules: Which edits are allowed.
        observation: ``"embeddings"`` or ``"index"``.
        texts: Whether infos hold prompts and replies.
    """
    return EditTask(episodes, HashedEncoder(), LiteReward(episodes, texts), rules, observation)


@dataclass(frozen=True)
class LiteOptions(TaskOptions):
    """The arguments of ``PMLMLite-v0``; see ``PMLMLiteEnv``."""

    env_id: ClassVar[str] = "PMLMLite-v0"
    otherwise: ClassVar[str] = "its encoder, replies and reward are fixed. Leave it out, or use PMLM-v0"

    split: Split = "train"
    texts: bool = False

    def task(self) -> EditTask:
        """Make the task; its episodes, encoder and reward are made once per process and shared."""
        episodes, reward = _of_split(self.split, self.texts)
        max_words = _all_episodes().max_words if self.max_words is None else self.max_words
        rules = EditRules(self.n_edits, max_words, self.protect)
        return EditTask(episodes, _encoder(), reward, rules, self.observation)


@lru_cache(maxsize=1)
def _all_episodes() -> EpisodeSet:
    return lite_episodes()


@lru_cache(maxsize=1)
def _encoder() -> HashedEncoder:
    return HashedEncoder()


@lru_cache(maxsize=6)
def _of_split(split: Split, texts: bool) -> tuple[EpisodeSet, LiteReward]:
    episodes = _all_episodes().of(split)
    return episodes, LiteReward(episodes, texts)
