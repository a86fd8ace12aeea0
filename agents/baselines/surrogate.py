"""Pooled surrogate: what deleting each word brings, by ridge regression over random deletions of all patients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Deletions
from agents.baselines.config import SurrogateConfig
from agents.policies.lexicon import Lexicon
from agents.problem import Problem


class Surrogate(Agent):
    """Deletes the words that a linear model of random deletions says are best gone.

    ContextCite's surrogate (Cohen-Wang et al. 2024), but pooled over patients, so that it knows prompts it has not
    seen: rewards and word counts are centred per patient, and a word counts in each form in which the lexicon knows it.
    """

    Config = SurrogateConfig
    config: SurrogateConfig

    def __init__(self, config: SurrogateConfig | None = None, seed: int = 0) -> None:
        """Know nothing yet."""
        super().__init__(config, seed)
        self._lexicon: Lexicon | None = None
        self._seen: list[tuple[int, npt.NDArray[np.float64], float]] = []

    def fit(self, problem: Problem) -> None:
        """Ask about random deletions until the budget is spent; see ``Agent.fit``."""
        config, meter, rng = self.config, problem.reward, np.random.default_rng(self.seed)
        lexicon = self._lexicon = Lexicon.of(problem.episodes)
        table = lexicon.ids(problem.episodes, problem.max_words)
        queue: list[int] = []
        total = config.episodes if meter.limit is None else 2 * int(meter.left) // meter.per_prompt
        for start in range(0, total, config.rows):
            rows = min(config.rows, total - start)
            while len(queue) < rows:
                queue += rng.permutation(len(problem.episodes)).tolist()
            chosen, queue = queue[:rows], queue[rows:]
            batch = problem.batch(chosen)
            while not batch.done.all():
                draws = np.where(batch.legal, rng.random(batch.legal.shape), -1.0)
                batch.apply(draws.argmax(axis=1), ~batch.done)
            outcomes = problem.judge(chosen, batch.kept)
            for row, edits in enumerate(batch.edits(range(rows))):
                if not outcomes.failed[row]:
                    slots = [edit.slot for edit in edits]
                    counts = np.bincount(table[chosen[row], slots].ravel(), minlength=len(lexicon))
                    self._seen.append((chosen[row], counts.astype(float), float(outcomes.delta[row])))

    def coefficients(self) -> npt.NDArray[np.float64]:
        """Return what deleting a word of each number brings, float64 (len(lexicon),), up to one constant for all."""
        patients = np.array([patient for patient, _, _ in self._seen])
        counts = np.array([counts for _, counts, _ in self._seen])
        counts[:, 0] = 0
        deltas = np.array([delta for _, _, delta in self._seen])
        for patient in np.unique(patients):
            hers = patients == patient
            counts[hers] -= counts[hers].mean(axis=0)
            deltas[hers] -= deltas[hers].mean()
        gram = counts.T @ counts
        ridge = self.config.penalty * max(1e-12, float(np.trace(gram)) / len(gram))
        return np.linalg.solve(gram + ridge * np.eye(len(gram)), counts.T @ deltas)

    def refine(self, problem: Problem) -> Deletions:
        """Delete the words with the highest coefficients; see ``Agent.refine``."""
        everyone = range(len(problem.episodes))
        batch = problem.batch(everyone)
        values = np.zeros(batch.legal.shape)
        if self._lexicon is not None and self._seen:
            values = self.coefficients()[self._lexicon.ids(problem.episodes, problem.max_words)].sum(axis=-1)
        while not batch.done.all():
            batch.apply(np.where(batch.legal, values, -np.inf).argmax(axis=1), ~batch.done)
        return [tuple(edit.slot for edit in edits) for edits in batch.edits(everyone)]
