"""A small problem of made-up words: three marked words of twelve are worth deleting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from agents.base import Edits
from agents.problem import MeteredReward, Problem
from pmlm_env.core.checkups import CheckupForm
from pmlm_env.core.outcomes import Outcomes
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes, with_checkups

N_EDITS, BEST = 3, 0.3
N_WORDS = 12
CHANCE = 0.1 * N_EDITS * N_EDITS / N_WORDS


def make_problem(
    limit: int | None = None,
    judged: bool = True,
    decoys: bool = False,
    n: int = 6,
    seed: int = 0,
    reward: Callable[..., Any] | None = None,
    device: torch.device | str = "cpu",
    max_words: int | None = None,
    form: CheckupForm | None = None,
) -> Problem:
    """Six prompts; with ``decoys`` the second half of each is protected, and has as many marked words.

    With ``form``, the patients have random check-ups.
    """
    episodes = make_episodes(n, N_WORDS, N_EDITS, seed, decoys)
    if form is not None:
        episodes = with_checkups(episodes, seed, form)
    meter = MeteredReward((reward or MarkedWordsReward)(episodes), limit) if judged else None
    protect = ("peer", "instruction") if decoys else ()
    return Problem(episodes, HashEncoder(device), meter, N_EDITS, max_words, protect)


def slots_of(edits: Edits) -> list[tuple[int, ...]]:
    """The slots of each prompt's edits, in order."""
    return [tuple(edit.slot for edit in own) for own in edits]


def mean_return(problem: Problem, edits: Edits) -> float:
    """What the legal ones of the edits bring, in the mean over prompts."""
    legal = problem.batch(range(len(problem.episodes))).legal
    marked = [
        sum("*" in problem.episodes[i].words[slot] and bool(legal[i, slot]) for slot in slots)
        for i, slots in enumerate(slots_of(edits))
    ]
    return 0.1 * float(np.mean(marked))


class ShuffledReward(MarkedWordsReward):
    """Gives each prompt of a batch the reward of the one before, so that none gets its own."""

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        outcomes = super().__call__(indices, prompts)
        return replace(outcomes, score=np.roll(outcomes.score, 1))
