"""Arena: where an agent learns or is judged, and the meter that counts what it asks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pmlm_env.core.edits import EditBatch, EditRules, Prompts
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes, Reward
from pmlm_env.core.task import EditTask, Encoder
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.llm import BudgetExceededError


class BudgetSpentError(BudgetExceededError):
    """The agent's own budget is spent, and not a limit of the whole run."""


class MeteredReward:
    """Counts the completions that an agent asks for, and stops it at a limit: the same for every agent.

    Every completion counts, the initial prompt's too; a prompt that this agent has asked about before is free, as its
    reply is kept. Whether another run's cache has the reply makes no difference: the budget is what the agent would
    have spent alone.

    Args:
        reward: Who answers.
        limit: Most completions; None = no limit.
        per_prompt: Completions for each prompt (``n_samples``).

    Attributes:
        calls: Completions so far.
        history: Mean delta of the episodes of each batch: (calls after it, episodes, mean delta).
    """

    def __init__(self, reward: Reward, limit: int | None = None, per_prompt: int = 1) -> None:
        """Begin at zero."""
        self.limit, self.per_prompt = limit, per_prompt
        self.calls = 0
        self.history: list[tuple[int, int, float]] = []
        self._reward = reward
        self._asked: set[tuple[int, bytes | str]] = set()
        self._initial: set[int] = set()

    @property
    def left(self) -> float:
        """Completions that may still be asked for; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.calls

    def cost(self, indices: Sequence[int], prompts: Sequence[str]) -> int:
        """Return how many completions a batch would take."""
        return (len(self._new(indices, prompts)) + len(set(indices) - self._initial)) * self.per_prompt

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Judge refined prompts.

        Raises:
            BudgetSpentError: The batch would overshoot the limit; nobody is asked.
        """
        new = self._new(indices, prompts)
        cost = self.cost(indices, prompts)
        if cost > self.left:
            raise BudgetSpentError(f"{self.calls} of {self.limit} completions are spent, and {cost} more are wanted")
        outcomes = self._reward(indices, prompts)
        self.calls += cost
        self._asked |= new
        self._initial |= set(indices)
        whole = ~outcomes.failed
        if whole.any():
            self.history.append((self.calls, int(whole.sum()), float(outcomes.delta[whole].mean())))
        return outcomes

    def _new(self, indices: Sequence[int], prompts: Sequence[str]) -> set[tuple[int, bytes | str]]:
        texts = [row.tobytes() for row in prompts.kept] if isinstance(prompts, Prompts) else prompts
        return set(zip(indices, texts, strict=True)) - self._asked


class Arena:
    """Some patients' prompts, with all that an agent needs to edit them and, where it may learn, to be judged.

    Args:
        episodes: The prompts.
        encoder: Embeds words.
        reward: Judges; None where nobody may be judged (``blind``).
        n_edits: Deletions per prompt, at most.
        max_words: Number of slots, the same for all arenas of an experiment; the longest prompt's by default.
        protect: What may not be deleted; see ``PMLMEnv``.
    """

    def __init__(
        self,
        episodes: EpisodeSet,
        encoder: Encoder,
        reward: MeteredReward | None,
        n_edits: int = 10,
        max_words: int | None = None,
        protect: Collection[str] = (),
    ) -> None:
        """Gather the parts."""
        self.episodes, self.encoder, self.n_edits, self.protect = episodes, encoder, n_edits, protect
        self.max_words = episodes.max_words if max_words is None else max_words
        self._rules = EditRules(n_edits, self.max_words, protect)
        self._reward = reward

    @property
    def reward(self) -> MeteredReward:
        """Who judges.

        Raises:
            RuntimeError: Nobody may be judged here.
        """
        if self._reward is None:
            raise RuntimeError("these patients are held out: their prompts may be edited, but not judged")
        return self._reward

    def env(self, rows: int, **options: Any) -> PMLMVectorEnv:
        """Make a vector env of ``rows`` prompts; by default as ``agents.policies.rollout.play`` wants it."""
        reward = _unscored if self._reward is None else self._reward
        observation = options.pop("observation", "embeddings")
        task = EditTask(self.episodes, self.encoder, reward, self._rules, observation)
        return PMLMVectorEnv(rows, **{"autoreset_mode": "Disabled", "array_type": "torch", "task": task, **options})

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> EditBatch:
        """Load some initial prompts into an ``EditBatch``, one a row."""
        batch = EditBatch(self.episodes, len(indices), self._rules)
        batch.load(np.arange(len(indices)), np.asarray(indices))
        return batch

    def judge(self, indices: Sequence[int], kept: npt.NDArray[np.bool_]) -> Outcomes:
        """Judge edited prompts.

        Args:
            indices: Which episodes, N of them.
            kept: Which of their words are left, bool (N, max_words).

        Raises:
            BudgetExceededError: That would overshoot the budget.
        """
        index = np.asarray(indices, dtype=np.int64).tolist()
        return self.reward(index, Prompts(self.episodes, index, kept))


def blind(episodes: EpisodeSet) -> EpisodeSet:
    """Return the episodes without reference and label: what a deployed agent would have."""
    return EpisodeSet([replace(episode, reference="", label="") for episode in episodes])


def _unscored(indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
    """The reward of held-out patients while they are edited: none, and nobody is asked."""
    nothing = np.zeros(len(indices))
    return Outcomes(nothing, nothing, np.zeros(len(indices), dtype=np.int64))
