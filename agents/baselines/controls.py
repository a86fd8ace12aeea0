"""Controls: simple agents that any learning agent should beat."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.config import NoConfig, RandomPConfig
from agents.baselines.deletions import edits_of, kept_after
from agents.problem import Problem
from agents.settings import Choices

if TYPE_CHECKING:
    import torch


class KeepAll(Agent):
    """Edits nothing."""

    name = "keep-all"
    needs_embeddings = False
    Config = NoConfig
    learns = False
    seeded = False

    def fit(self, problem: Problem) -> None:
        """Learn nothing."""
        self.shape = problem.shape

    def refine(self, problem: Problem) -> Edits:
        """Edit nothing."""
        return [()] * len(problem.episodes)


class RandomN(Agent):
    """Deletes as many words as the edit budget allows, drawn uniformly from those that may be deleted."""

    name = "random-n"
    needs_embeddings = False
    Config = NoConfig
    learns = False

    def fit(self, problem: Problem) -> None:
        """Learn nothing."""
        self.shape = problem.shape

    def refine(self, problem: Problem) -> Edits:
        """Draw the words to delete; every call draws the same ones."""
        return edits_of(problem, _draw(problem, _everyone(problem), 1.0, np.random.default_rng([self.seed, 1])))


class RandomP(Agent):
    """Keeps each word that may be deleted with probability p; deletes no more than the edit budget allows.

    Attributes:
        keep: The probability p; before ``fit``, the middle one of those in the settings.
    """

    name = "random-p"
    needs_embeddings = False
    Config = RandomPConfig
    config: RandomPConfig
    space = {  # noqa: RUF012
        "keep": Choices(((0.5, 0.7, 0.8, 0.9, 0.95), (0.5, 0.8), (0.8, 0.9, 0.95), (0.3, 0.5, 0.7), (0.5,))),
        "patients": Choices((4, 8, 16, 32)),
    }

    def __init__(self, config: RandomPConfig | None = None, seed: int = 0) -> None:
        """Start with the middle probability."""
        super().__init__(config, seed)
        self.keep: float = sorted(self.config.keep)[len(self.config.keep) // 2]

    def fit(self, problem: Problem) -> None:
        """Select the probability with the best mean delta; each is tried on the same patients, equally often.

        If the budget allows, there are several draws per patient and probability.
        """
        self.shape = problem.shape
        n, grid, prompts = len(problem.episodes), self.config.keep, problem.reward.prompts_left
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

    def refine(self, problem: Problem) -> Edits:
        """Draw the words to delete; every call draws the same ones."""
        rng = np.random.default_rng([self.seed, 1])
        return edits_of(problem, _draw(problem, _everyone(problem), 1 - self.keep, rng))

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the probability; see ``Agent.learned``."""
        return {"keep": self.keep}, {}

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the probability; see ``Agent.restore``."""
        self._check_names(values, {"keep"})
        tensors({})
        if values["keep"] not in self.config.keep:
            raise ValueError(f"keep is {shortened(values['keep'])}: it must be one of the settings' {self.config.keep}")
        self.keep = float(values["keep"])


def _everyone(problem: Problem) -> npt.NDArray[np.int64]:
    return np.arange(len(problem.episodes))


def _draw(problem: Problem, index: npt.NDArray[np.int64], p: float, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Choose each legal word with probability ``p``, within the edit budget, in random order."""
    chosen = []
    batch = problem.batch(index)
    for legal, budget in zip(batch.legal, batch.budgets.tolist(), strict=True):
        slots = rng.permutation(np.flatnonzero(legal))
        slots = slots[rng.random(len(slots)) < p]
        chosen.append(tuple(slots[:budget].tolist()))
    return chosen
