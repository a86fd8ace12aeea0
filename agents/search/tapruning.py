"""TAPruning: try to delete each word, from left to right."""

from __future__ import annotations

import numpy as np

from agents.search.base import EditablePrompt, Steps


def tapruning(prompt: EditablePrompt, rng: np.random.Generator, *, tolerance: float = 0.0) -> Steps:
    """Delete each word in turn; it stays deleted if the score is above the best so far minus ``tolerance``.

    The tolerance is a difference, not a ratio as in the original, because scores here may be 0 or negative. The score
    must be strictly greater, because edits are too few to spend on words that make no difference. Passes are repeated
    until one deletes nothing.

    Args:
        prompt: The prompt.
        rng: Unused; the search is deterministic.
        tolerance: How far the score may fall below the best so far.

    References:
        Wang et al., "Evolving Prompts In-Context: An Open-ended, Self-replicating Perspective", ICML 2025.
    """
    kept, best, before = prompt.whole, 0.0, None
    while before is None or (before != kept).any():
        before = kept
        for slot in prompt.deletable(before):
            if not prompt.room(kept):
                return
            mask = prompt.without(kept, slot)
            (delta,) = yield [mask]
            if delta > best - tolerance:
                kept, best = mask, max(best, delta)
