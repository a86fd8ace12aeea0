"""Hierarchical search, as in SAMMO: from the whole prompt down to single words."""

from __future__ import annotations

from collections import deque

import numpy as np

from agents.search.base import EditablePrompt, Steps


def hierarchical(prompt: EditablePrompt, rng: np.random.Generator, *, tolerance: float = 0.0) -> Steps:
    """Delete whole sections where that helps, otherwise phrases, otherwise single words.

    The levels of the tree are the prompt, sections (runs of one role), phrases (between punctuation) and words;
    children are queued in random order. Nodes with more words than may still be deleted are split without scoring. A
    node stays deleted if the score is above the best so far minus ``tolerance``. Because large nodes use up the edits
    quickly, the search spends the remaining budget on restarts from the initial prompt, each one level lower.

    Args:
        prompt: The prompt.
        rng: Draws the order of nodes.
        tolerance: How far the score may fall below the best so far.

    References:
        Schnabel and Neville, "Symbolic Prompt Program Search", Findings of EMNLP 2024.
    """
    slots = list(range(len(prompt.words)))
    levels = [[slots], prompt.sections(), prompt.phrases(), [[slot] for slot in slots]]
    for top in range(len(levels)):
        queue = deque((top, levels[top][place]) for place in rng.permutation(len(levels[top])))
        kept, best = prompt.whole, 0.0
        while queue and prompt.room(kept):
            level, node = queue.popleft()
            legal = [slot for slot in node if prompt.legal[slot]]
            if 0 < len(legal) <= prompt.room(kept):
                mask = prompt.without(kept, legal)
                (delta,) = yield [mask]
                if delta > best - tolerance:
                    kept, best = mask, max(best, delta)
                    continue
            if level + 1 < len(levels):
                children = [child for child in levels[level + 1] if set(child) <= set(node)]
                queue.extend((level + 1, children[place]) for place in rng.permutation(len(children)))
