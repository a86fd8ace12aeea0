"""Pooled surrogate: the effect of deleting each word, by ridge regression on random deletions for all patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.config import SurrogateConfig
from agents.baselines.deletions import delete_greatest, edits_of
from agents.policies.lexicon import Lexicon
from agents.problem import Problem
from agents.settings import Floats

if TYPE_CHECKING:
    import torch

#: An episode of random deletions: the patient, how often each lexicon number was deleted, and the delta.
_Sample = tuple[int, npt.NDArray[np.float64], float]


class Surrogate(Agent):
    """Deletes the words with the highest coefficients in a linear model fitted to random deletions.

    This is ContextCite's surrogate (Cohen-Wang et al. 2024), but pooled over patients so that it applies to unseen
    prompts: rewards and word counts are centered per patient, and a word counts once for each of its forms in the
    lexicon.

    Attributes:
        lexicon: Assigns numbers to words; empty before ``fit``.
        coefficients: The effect of deleting a word of each number, float64 (len(lexicon),), up to a common constant.
    """

    name = "surrogate"
    needs_embeddings = False
    Config = SurrogateConfig
    space = {"penalty": Floats(0.03, 30.0, log=True)}  # noqa: RUF012
    config: SurrogateConfig

    def __init__(self, config: SurrogateConfig | None = None, seed: int = 0) -> None:
        """Start with an empty lexicon and no coefficients."""
        super().__init__(config, seed)
        self.lexicon = Lexicon(())
        self.coefficients: npt.NDArray[np.float64] = np.zeros(len(self.lexicon))

    def fit(self, problem: Problem) -> None:
        """Request rewards of random deletions until the budget is spent; see ``Agent.fit``."""
        self.shape, config, rng = problem.shape, self.config, np.random.default_rng(self.seed)
        self.lexicon = Lexicon.of(problem.episodes)
        table = self.lexicon.ids(problem.episodes, problem.max_words)
        queue: list[int] = []
        samples: list[_Sample] = []
        total = problem.reward.most_episodes
        try:
            for start in range(0, total, config.rows):
                rows = min(config.rows, total - start)
                while len(queue) < rows:
                    queue += rng.permutation(len(problem.episodes)).tolist()
                chosen, queue = queue[:rows], queue[rows:]
                batch = problem.batch(chosen)
                deleted = delete_greatest(batch, rng.random)
                outcomes = problem.judge(chosen, batch.kept)
                for patient, slots, failed, delta in zip(chosen, deleted, outcomes.failed, outcomes.delta, strict=True):
                    if not failed:
                        counts = np.bincount(table[patient, list(slots)].ravel(), minlength=len(self.lexicon))
                        samples.append((patient, counts.astype(float), float(delta)))
        finally:
            self.coefficients = self._solved(samples)

    def refine(self, problem: Problem) -> Edits:
        """Delete the words with the highest coefficients; see ``Agent.refine``."""
        values = self.coefficients[self.lexicon.ids(problem.episodes, problem.max_words)].sum(axis=-1)
        return edits_of(problem, delete_greatest(problem.batch(range(len(problem.episodes))), lambda _: values))

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the lexicon's forms and the coefficients; see ``Agent.learned``."""
        return {"lexicon": self.lexicon.forms, "coefficients": self.coefficients.tolist()}, {}

    def words(self) -> tuple[str, ...]:
        """Return the words in the lexicon; see ``Agent.words``."""
        return self.lexicon.words

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the lexicon and the coefficients; see ``Agent.restore``."""
        self._check_names(values, {"lexicon", "coefficients"})
        tensors({})
        lexicon, coefficients = Lexicon.from_forms(values["lexicon"]), values["coefficients"]
        if not isinstance(coefficients, list) or not all(type(value) is float for value in coefficients):
            raise ValueError(f"coefficients is {shortened(coefficients)}: use a list of numbers with a decimal point")
        if len(coefficients) != len(lexicon):
            raise ValueError(f"there are {len(coefficients)} coefficients: a lexicon like this has {len(lexicon)}")
        self.lexicon, self.coefficients = lexicon, np.array(coefficients)
        if not np.isfinite(self.coefficients).all():
            raise ValueError("a coefficient is not finite")

    def _solved(self, samples: Sequence[_Sample]) -> npt.NDArray[np.float64]:
        """Return the coefficients of the ridge regression; zeros without samples."""
        if not samples:
            return np.zeros(len(self.lexicon))
        patients = np.array([patient for patient, _, _ in samples])
        counts = np.array([counts for _, counts, _ in samples])
        counts[:, 0] = 0
        deltas = np.array([delta for _, _, delta in samples])
        for patient in np.unique(patients):
            own = patients == patient
            counts[own] -= counts[own].mean(axis=0)
            deltas[own] -= deltas[own].mean()
        gram = counts.T @ counts
        ridge = self.config.penalty * max(1e-12, float(np.trace(gram)) / len(gram))
        return np.linalg.solve(gram + ridge * np.eye(len(gram)), counts.T @ deltas)
