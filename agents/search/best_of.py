"""Best of N: score random deletions and take the best."""

from __future__ import annotations

import numpy as np

from agents.search.base import EditablePrompt, Steps

_TRIES = 4  # draws for each mask of the budget: short prompts may have fewer masks than the budget pays for


def best_of(prompt: EditablePrompt, rng: np.random.Generator) -> Steps:
    """Spend the budget on masks that lack ``n_edits`` random words, all in one batch."""
    masks: dict[bytes, np.ndarray] = {}
    for _ in range(_TRIES * prompt.budget):
        mask = prompt.randomly_without(prompt.whole, prompt.n_edits, rng)
        masks[mask.tobytes()] = mask
        if len(masks) == prompt.budget:
            break
    yield list(masks.values())
