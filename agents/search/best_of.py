"""Best of N: score random deletions and select the best."""

from __future__ import annotations

import numpy as np

from agents.search.base import EditablePrompt, Steps

_TRIES = 4  # draws per mask of the budget; a limit, because short prompts may have fewer masks than that


def best_of(prompt: EditablePrompt, rng: np.random.Generator) -> Steps:
    """Spend the budget on masks with ``n_edits`` random words deleted, all in one batch."""
    masks: dict[bytes, np.ndarray] = {}
    for _ in range(_TRIES * prompt.budget):
        mask = prompt.randomly_without(prompt.whole, prompt.n_edits, rng)
        masks[mask.tobytes()] = mask
        if len(masks) == prompt.budget:
            break
    yield list(masks.values())
