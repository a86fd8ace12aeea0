"""Best of N: score random deletions, take the best."""

from __future__ import annotations

import numpy as np

from agents.search.base import Problem, Steps

_TRIES = 4  # draws for each mask of the budget; short prompts may not have as many masks as the budget pays for


def best_of(problem: Problem, rng: np.random.Generator) -> Steps:
    """Spend the budget on masks that lack ``n_edits`` random words, all in one batch."""
    masks: dict[bytes, np.ndarray] = {}
    for _ in range(_TRIES * problem.budget):
        mask = problem.randomly_without(problem.whole, problem.n_edits, rng)
        masks[mask.tobytes()] = mask
        if len(masks) == problem.budget:
            break
    yield list(masks.values())
