"""The genetic algorithm of PromptQuine: prompts lose words, and those with the best scores are kept."""

from __future__ import annotations

import math

import numpy as np

from agents.search.base import EditablePrompt, Mask, Steps

_GENERATIONS = 4  # at least so many: where the budget is small, they are made smaller


def genetic(
    prompt: EditablePrompt, rng: np.random.Generator, *, population: int = 30, offspring: int = 50, deletions: int = 4
) -> Steps:
    """Breed masks: parents win tournaments, children lose some more words, survivors are the best of the newest.

    A parent that has no room for more deletions first gets back as many random words. The best of all generations is
    not lost, because ``run`` keeps all scores. There is no crossover, and the best are not scored again here.

    Args:
        prompt: The prompt.
        rng: Draws mutations and tournaments.
        population: Parents, at most; of them a fifth takes part in each tournament.
        offspring: Children in a generation, at most.
        deletions: Words that a child loses, at most.

    References:
        Wang et al., "Evolving Prompts In-Context: An Open-ended, Self-replicating Perspective", ICML 2025.
    """
    share = max(2, prompt.budget // _GENERATIONS)
    n_parents, n_children = (
        min(population, share),
        min(offspring, share),
    )  # 30 of 50 children survive, and the same share of fewer
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
    """Return a mask that lacks 1 to ``deletions`` other words."""
    n = int(rng.integers(1, deletions + 1))
    mask = parent.copy()
    deleted = np.flatnonzero(~parent)
    back = min(n - prompt.room(parent), len(deleted))
    if back > 0:
        mask[rng.choice(deleted, back, replace=False)] = True
    return prompt.randomly_without(mask, n, rng)
