"""Controls: what any agent that learns should beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.base import Agent, Deletions
from agents.baselines.config import NoConfig, RandomPConfig
from agents.problem import Problem
from agents.search.base import Mask


class KeepAll(Agent):
    """Deletes nothing."""

    Config = NoConfig

    def fit(self, problem: Problem) -> None:
        """Learn nothing."""

    def refine(self, problem: Problem) -> Deletions:
        """Delete nothing."""
        return [()] * len(problem.episodes)


class RandomN(Agent):
    """Deletes ``n_edits`` words, each as likely as any other that may go."""

    Config = NoConfig

    def fit(self, problem: Problem) -> None:
        """Learn nothing."""

    def refine(self, problem: Problem) -> Deletions:
        """Draw words; asked again, the same ones."""
        return _draw(problem, np.arange(len(problem.episodes)), 1.0, np.random.default_rng([self.seed, 1]))


class RandomP(Agent):
    """Keeps each word that may go with probability p, but deletes no more than ``n_edits``.

    Attributes:
        keep: That probability.
    """

    Config = RandomPConfig

    def __init__(self, config: Any = None, seed: int = 0) -> None:
        """Begin with the middle probability."""
        super().__init__(config, seed)
        self.keep: float = sorted(self.config.keep)[len(self.config.keep) // 2]

    def fit(self, problem: Problem) -> None:
        """Take the probability with the best mean delta: each is tried on the same patients, equally often.

        A budget that pays for more than one draw for each patient and probability buys more draws, a limitless one
        does not.
        """
        reward, n, grid = problem.reward, len(problem.episodes), self.config.keep
        prompts = n * (1 + len(grid)) if reward.limit is None else (reward.limit - reward.calls) // reward.per_prompt
        draws = max(1, (prompts - n) // (n * len(grid)))
        patients = min(n, prompts // (1 + draws * len(grid)))
        if patients < min(n, self.config.patients):
            return
        rng = np.random.default_rng([self.seed, 0])
        index = np.repeat(rng.permutation(n)[:patients], draws)
        means = []
        for keep in grid:
            kept = kept_after(problem, index, _draw(problem, index, 1 - keep, rng))
            outcomes = problem.judge(index.tolist(), kept)
            means.append(outcomes.delta[~outcomes.failed].mean() if not outcomes.failed.all() else -np.inf)
        self.keep = grid[int(np.argmax(means))]

    def refine(self, problem: Problem) -> Deletions:
        """Draw words; asked again, the same ones."""
        return _draw(problem, np.arange(len(problem.episodes)), 1 - self.keep, np.random.default_rng([self.seed, 1]))


def _draw(problem: Problem, index: np.ndarray, p: float, rng: np.random.Generator) -> Deletions:
    """Choose each legal word with probability ``p``, of too many a random ``n_edits``, in random order."""
    deletions = []
    for legal in problem.batch(index).legal:
        slots = rng.permutation(np.flatnonzero(legal))
        chosen = slots[rng.random(len(slots)) < p]
        deletions.append(tuple(chosen[: problem.n_edits].tolist()))
    return deletions


def kept_after(problem: Problem, index: np.ndarray, deletions: Deletions) -> Mask:
    """Return what deletions leave of the prompts at ``index``, bool (N, max_words)."""
    kept = problem.batch(index).kept
    for row, slots in zip(kept, deletions, strict=True):
        row[list(slots)] = False
    return kept
