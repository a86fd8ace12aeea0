"""GrIPS: hill climbing with a few random edits per step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agents.search.base import EditablePrompt, Mask, Steps


def grips(
    prompt: EditablePrompt, rng: np.random.Generator, *, edits: int = 5, patience: int = 2, annealing: bool = False
) -> Steps:
    """Try some random edits, apply the best if it improves the score; repeat until ``patience`` steps set no new best.

    Then restart from the initial prompt, until the budget is spent. An edit deletes a word or a phrase, restores a
    deleted word, or swaps a deleted word for another; there is no paraphrasing.

    Args:
        prompt: The prompt.
        rng: Draws edits.
        edits: Number of edits tried in each step.
        patience: Number of steps without a new best after which a climb ends.
        annealing: Whether worse edits are accepted with probability exp(d / T), where d is the score difference on a
            scale of 100 and T = 10 exp(-step / 5).

    References:
        Prasad et al., "GrIPS: Gradient-free, Edit-based Instruction Search for Prompting Large Language Models",
        EACL 2023.
    """
    phrases = [[slot for slot in phrase if prompt.legal[slot]] for phrase in prompt.phrases()]
    while True:
        kept, delta, best, stale, step = prompt.whole, 0.0, 0.0, 0, 0
        while stale < patience:
            masks = [_edited(prompt, kept, phrases, rng) for _ in range(edits)]
            deltas = yield masks
            place = int(np.argmax(deltas))
            gain = deltas[place] - delta
            if gain > 0 or (annealing and rng.random() < math.exp(100 * gain / (10 * math.exp(-step / 5)))):
                kept, delta = masks[place], deltas[place]
            stale = 0 if deltas[place] > best else stale + 1
            best, step = max(best, deltas[place]), step + 1


def _edited(prompt: EditablePrompt, kept: Mask, phrases: Sequence[Sequence[int]], rng: np.random.Generator) -> Mask:
    """Return the mask after one random edit; unchanged if no edit is possible."""
    deleted, words, room = np.flatnonzero(~kept), prompt.deletable(kept), prompt.room(kept)
    left = [[slot for slot in phrase if kept[slot]] for phrase in phrases]
    left = [slots for slots in left if 0 < len(slots) <= room]
    kinds = ["word"] * (room > 0) + ["phrase"] * bool(left) + ["add"] * bool(len(deleted))
    kinds += ["swap"] * bool(len(deleted) and len(words))
    if not kinds:
        return kept
    kind, mask = rng.choice(kinds), kept.copy()
    if kind in ("add", "swap"):
        mask[rng.choice(deleted)] = True
    if kind in ("word", "swap"):
        mask[rng.choice(words)] = False
    if kind == "phrase":
        mask[left[rng.integers(len(left))]] = False
    return mask
