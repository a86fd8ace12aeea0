"""Searches that delete one word at a time: greedy backward elimination and beam search."""

from __future__ import annotations

from math import isqrt

import numpy as np

from agents.search.base import EditablePrompt, Mask, Steps


def greedy(prompt: EditablePrompt, rng: np.random.Generator) -> Steps:
    """Score all single deletions, apply the best, and repeat.

    If the budget does not cover all deletions at every step, a random subset is scored; the remaining budget is divided
    evenly among the remaining steps. A deletion that lowers the score is not applied; the search ends when all of them
    do.
    """
    kept, delta, left = prompt.whole, 0.0, prompt.budget
    n_steps = prompt.room(prompt.whole)
    for step in range(n_steps):
        slots = rng.permutation(prompt.deletable(kept))[: max(1, left // (n_steps - step))]
        masks = [prompt.without(kept, slot) for slot in slots]
        deltas = yield masks
        left -= len(masks)
        best = int(np.argmax(deltas))
        if deltas[best] >= delta:
            kept, delta = masks[best], deltas[best]
        elif len(slots) == len(prompt.deletable(kept)):
            return


def beam(prompt: EditablePrompt, rng: np.random.Generator, *, width: int = 4) -> Steps:
    """Extend each of ``width`` masks by one more random deletion in several ways, keep the best, and repeat.

    No mask is scored twice. The budget is divided evenly among steps and masks. If a step's share is small, fewer masks
    are kept: at most as many as each mask has extensions.

    Args:
        prompt: The prompt.
        rng: Draws the words.
        width: Maximum number of masks kept.
    """
    beams, left = [prompt.whole], prompt.budget
    n_steps = prompt.room(prompt.whole)
    for step in range(n_steps):
        share = left // (n_steps - step)
        masks: dict[bytes, Mask] = {}
        for kept in beams:
            for slot in rng.permutation(prompt.deletable(kept))[: max(1, share // len(beams))]:
                mask = prompt.without(kept, slot)
                masks[mask.tobytes()] = mask
        grown = list(masks.values())
        deltas = yield grown
        left -= len(grown)
        n_best = min(width, max(1, isqrt(share)))
        beams = [grown[place] for place in np.argsort(-np.array(deltas), kind="stable")[:n_best]]
