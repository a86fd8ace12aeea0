"""Deletions given as slots: conversion to edits, and the words that remain in a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from agents.base import Edits
from agents.problem import Problem
from agents.search.base import Mask
from pmlm_env.core.edits import EditBatch, deletions

#: The slots to delete from each prompt, in order.
Slots: TypeAlias = Sequence[tuple[int, ...]]


def edits_of(problem: Problem, slots: Slots) -> Edits:
    """Return the edits that delete the given slots from every prompt of a problem."""
    return [deletions(episode, chosen) for episode, chosen in zip(problem.episodes, slots, strict=True)]


def kept_after(problem: Problem, index: npt.NDArray[np.int64], slots: Slots) -> Mask:
    """Return which words of the prompts at ``index`` remain after the deletions, bool (N, max_words)."""
    kept = problem.batch(index).kept
    for row, chosen in zip(kept, slots, strict=True):
        row[list(chosen)] = False
    return kept


def delete_greatest(
    batch: EditBatch, values: Callable[[tuple[int, ...]], npt.NDArray[np.float64]]
) -> list[tuple[int, ...]]:
    """Repeatedly delete the legal word with the greatest value from each prompt, until no more deletions are allowed.

    Args:
        batch: The N prompts; edited in place.
        values: Called before each step; returns the values of all words, float64 of the given shape (N, W).

    Returns:
        The slots deleted from each prompt, in order.
    """
    while not batch.done.all():
        batch.apply(np.where(batch.legal, values(batch.legal.shape), -np.inf).argmax(axis=1), ~batch.done)
    return [tuple(edit.slot for edit in edits) for edits in batch.edits(range(len(batch.steps)))]
