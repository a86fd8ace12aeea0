"""Rewards by name: BERTScore, or somebody's own class, which scores replies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import Episode
from pmlm_env.registry import Registry

if TYPE_CHECKING:  # this loads torch
    from pmlm_env.rewards.bertscore import BertScorer

#: The name of the default reward.
BERTSCORE = "bertscore"

REWARDS = Registry("reward", "pmlm.rewards", {BERTSCORE: "pmlm_env.rewards.bertscore:BertScoreReward"}, ["score"])


class ReplyReward(Protocol):
    """Interface of a reward: it scores replies, and ``DeltaReward`` takes the change of the score."""

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> npt.ArrayLike:
        """Score each reply to the patient of the episode at the same index.

        Args:
            replies: N texts, one or more.
            episodes: N episodes, with the prompt, the doctor's reply (``reference``), the condition (``label``), ...

        Returns:
            One finite number for each reply, (N,); higher is better.
        """
        ...


class CheckedReward:
    """A reward whose scores are checked.

    Args:
        name: Its name in ``REWARDS``, for messages.
        reward: The reward.

    Attributes:
        name: The name.
        seconds: Wall time spent in ``score`` so far.
    """

    def __init__(self, name: str, reward: ReplyReward) -> None:
        """Store the arguments."""
        self.name, self.seconds = name, 0.0
        self._reward = reward

    @classmethod
    def of(cls, reward: ReplyReward) -> CheckedReward:
        """Return a reward that is checked under the name of its class, or as it is if it is checked already."""
        return reward if isinstance(reward, cls) else cls(type(reward).__qualname__, reward)

    def score(self, replies: Sequence[str], episodes: Sequence[Episode]) -> npt.NDArray[np.float64]:
        """Return the scores, float64 (N,); the reward is not asked for none.

        Raises:
            ValueError: The reward returned something else than one finite number for each reply.
        """
        if not len(replies):
            return np.zeros(0)
        started = time.perf_counter()
        found = self._reward.score(list(replies), list(episodes))
        self.seconds += time.perf_counter() - started
        try:
            scores = np.asarray(found)
        except (TypeError, ValueError, RuntimeError):  # ragged lists, and tensors on a GPU or with a gradient
            scores = np.array(None)
        if scores.dtype.kind not in "biuf":
            what = f"values of type {type(found).__name__} that are not numbers"
        elif scores.shape != (len(replies),):
            what = f"numbers of shape {scores.shape}"
        elif not np.isfinite(scores).all():
            what = f"{scores[~np.isfinite(scores)][0]} at index {np.flatnonzero(~np.isfinite(scores))[0]}"
        else:
            return scores.astype(np.float64)
        raise ValueError(
            f"the reward {self.name} returned {what}: its method score should return one finite number for each of "
            f"{len(replies)} replies, of shape ({len(replies)},)"
        )


def load_reward(
    name: str, kwargs: Mapping[str, Any] | None = None, device: str = "auto", scorer: BertScorer | None = None
) -> CheckedReward:
    """Make a reward.

    Args:
        name: ``bertscore``, the name of an installed plugin, or ``package.module:Class``.
        kwargs: Arguments for the class of a plugin or path.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a class gets it if it has a parameter ``device``.
        scorer: BERTScore, for ``bertscore``; None = with its default model.

    Raises:
        ValueError: There is no such reward, or it lacks a method or does not take these arguments.
    """
    if name != BERTSCORE:
        return CheckedReward(name, REWARDS.make(name, kwargs=kwargs, offered={"device": device}))
    if kwargs:
        raise ValueError(
            "--reward-kwargs has no effect with the reward bertscore: use --scorer, --scorer-layer and --long-texts"
        )
    return CheckedReward(name, REWARDS.make(name, scorer))
