"""TAPruning: try to delete each word, from left to right."""

from __future__ import annotations

import numpy as np

from agents.search.base import EditablePrompt, Steps


def tapruning(prompt: EditablePrompt, rng: np.random.Generator, *, tolerance: float = 0.0) -> Steps:
    """Delete each word in turn; it stays deleted if the score is above the best so far less ``tolerance``.

    A difference and not a ratio as in the original, because scores here may be 0 or less; and above, not equal, because
    a word that makes no difference is not worth one of a few edits. Passes are repeated until one deletes nothing.

    Args:
        prompt: The prompt.
        rng: Not used: nothing is random.
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
