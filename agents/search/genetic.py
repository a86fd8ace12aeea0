"""The genetic algorithm of PromptQuine: mutations delete words, and the masks with the best scores survive."""

from __future__ import annotations

import math

import numpy as np

from agents.search.base import EditablePrompt, Mask, Steps

_GENERATIONS = 4  # minimum number; with a small budget, generations are made smaller


def genetic(
    prompt: EditablePrompt, rng: np.random.Generator, *, population: int = 30, offspring: int = 50, deletions: int = 4
) -> Steps:
    """Evolve masks: tournaments select parents, children lose some more words, and the best children survive.

    If a parent has too little room for the new deletions, random deleted words are restored first. The best mask of all
    generations is not lost, because ``run`` keeps all scores. There is no crossover, and the best masks are not
    re-scored here.

    Args:
        prompt: The prompt.
        rng: Draws mutations and tournaments.
        population: Maximum number of parents; a fifth of them take part in each tournament.
        offspring: Maximum number of children per generation.
        deletions: Maximum number of words that a child loses.

    References:
        Wang et al., "Evolving Prompts In-Context: An Open-ended, Self-replicating Perspective", ICML 2025.
    """
    share = max(2, prompt.budget // _GENERATIONS)
    n_parents, n_children = (
        min(population, share),
        min(offspring, share),
    )  # 30 of 50 children survive; the same share of smaller generations
    parents = [_child(prompt, prompt.whole, deletions, rng) for _ in range(n_parents)]
    deltas = np.array((yield parents))
    while True:
        n_rivals = max(2, math.ceil(0.2 * len(parents)))
        rivals = [rng.choice(len(parents), min(n_rivals, len(parents)), replace=False) for _ in range(n_children)]
        winners = [parents[group[np.argmax(deltas[group])]] for group in rivals]
        children = [_child(prompt, winner, deletions, rng) for winner in winners]
        fitness = np.array((yield children))
        survivors = np.argsort(-fitness, kind="stable")[: math.ceil(n_children * population / offspring)]
        parents, deltas = [children[place] for place in survivors], fitness[survivors]


def _child(prompt: EditablePrompt, parent: Mask, deletions: int, rng: np.random.Generator) -> Mask:
    """Return a copy of the parent with 1 to ``deletions`` more words deleted; see ``genetic``."""
    n = int(rng.integers(1, deletions + 1))
    mask = parent.copy()
    deleted = np.flatnonzero(~parent)
    back = min(n - prompt.room(parent), len(deleted))
    if back > 0:
        mask[rng.choice(deleted, back, replace=False)] = True
    return prompt.randomly_without(mask, n, rng)
