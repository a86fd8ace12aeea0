"""The oracle track: a search of each prompt with its own reference, a lower bound on what editing can achieve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from agents.problem import Problem
from agents.search.base import Candidate, EditablePrompt, Mask, Search, run

#: Scores N edited prompts with fresh replies, ignoring earlier ones. Takes the episode indices and the words kept, bool
#: (N, max_words); returns the deltas, float64 (N,). Each call asks once for each edited prompt, and once for each of
#: their initial prompts.
Rescore: TypeAlias = Callable[[Sequence[int], Mask], npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Refinement:
    """The result of a search of one prompt.

    Attributes:
        deleted: The slots to delete.
        claimed: The best score that the search saw; biased upward if scores are noisy.
        rescored: The score of ``deleted`` from replies that were not used to select it; equal to ``claimed`` without
            re-scoring.
        calls: Completions spent on this prompt, including that of the initial prompt.
        candidates: All candidates that the search scored, best first.
    """

    deleted: tuple[int, ...]
    claimed: float
    rescored: float
    calls: int
    candidates: tuple[Candidate, ...]


def search_prompts(
    problem: Problem,
    indices: Sequence[int],
    search: Search,
    budget: int,
    seed: int = 0,
    rescore: Rescore | None = None,
) -> list[Refinement]:
    """Search for the best deletions in each prompt, with a separate budget for each.

    The initial prompt takes one completion. With ``rescore``, a fifth of the budget, but at least four completions, is
    reserved for fresh replies: to each finalist and the initial prompt, and then once more to the initial prompt and
    the finalist with the best fresh score. The reported score is thus not used for any selection and has no selection
    bias. To delete nothing, which changes the score by 0, is always possible.

    Args:
        problem: The patients and their reward.
        indices: Indices of the episodes to search.
        search: A search from ``SEARCHES``, or a custom one.
        budget: Maximum number of completions per prompt; if each score takes several (``MeteredReward.per_prompt``),
            the search gets as many scores as these completions cover.
        seed: Seeds the searches; the result for a prompt does not depend on the other prompts.
        rescore: Scores prompts again with new replies; None if a second score would be identical.

    Raises:
        BudgetExceededError: The problem's limit on completions is below the sum of the prompts' budgets.
    """
    per_prompt = problem.reward.per_prompt
    reserve = 0 if rescore is None else max(4, budget // per_prompt // 5)
    n_scores = max(0, budget // per_prompt - 1 - reserve)
    if n_scores == 0:
        reserve = 0  # there is nothing to re-score
    legal = problem.batch(indices).legal
    prompts = []
    for row, index in enumerate(indices):
        episode = problem.episodes[index]
        free = legal[row, : len(episode.words)]
        prompts.append(EditablePrompt(free, episode.words, episode.roles, int(problem.budgets[index]), n_scores))

    def score(places: Sequence[int], masks: Sequence[Mask]) -> npt.NDArray[np.float64]:
        outcomes = problem.judge([indices[place] for place in places], _table(masks, problem.max_words))
        return np.where(outcomes.failed, -np.inf, outcomes.delta)

    rngs = [np.random.default_rng([seed, index]) for index in indices]
    found = run(search, prompts, score, rngs)
    if rescore is None:
        chosen = [(ranked[0], ranked[0].delta) for ranked in found]
        spent = [0] * len(found)
    else:
        chosen, spent = _rescored(indices, [_finalists(ranked, reserve - 3) for ranked in found], rescore, problem)
    return [
        Refinement(
            pick.deleted, ranked[0].delta, value, per_prompt * (len(ranked) + more) * (len(ranked) > 1), tuple(ranked)
        )
        for ranked, (pick, value), more in zip(found, chosen, spent, strict=True)
    ]


def _finalists(ranked: Sequence[Candidate], n: int) -> list[Candidate]:
    """Return the ``n`` best candidates that delete something and have a score."""
    return [one for one in ranked if not one.kept.all() and one.delta > -np.inf][: max(0, n)]


def _rescored(
    indices: Sequence[int], finalists: Sequence[Sequence[Candidate]], rescore: Rescore, problem: Problem
) -> tuple[list[tuple[Candidate, float]], list[int]]:
    """Select a finalist by one fresh score each and re-score it; also return the number of completions spent."""
    picks = [Candidate(np.ones(len(problem.episodes[index].words), dtype=np.bool_), 0.0) for index in indices]
    best, spent = [0.0] * len(picks), [len(each) + (len(each) > 0) for each in finalists]
    flat = [(place, one) for place, each in enumerate(finalists) for one in each]
    for (place, one), delta in zip(flat, _ask(indices, flat, rescore, problem), strict=True):
        if delta > best[place]:
            picks[place], best[place] = one, delta
    edited = [(place, pick) for place, pick in enumerate(picks) if not pick.kept.all()]
    values = [0.0] * len(picks)
    for (place, _), delta in zip(edited, _ask(indices, edited, rescore, problem), strict=True):
        values[place] = delta
        spent[place] += 2
    return list(zip(picks, values, strict=True)), spent


def _ask(
    indices: Sequence[int], candidates: Sequence[tuple[int, Candidate]], rescore: Rescore, problem: Problem
) -> list[float]:
    if not candidates:
        return []
    masks = _table([one.kept for _, one in candidates], problem.max_words)
    return [float(delta) for delta in rescore([indices[place] for place, _ in candidates], masks)]


def _table(masks: Sequence[Mask], width: int) -> Mask:
    """Stack masks of different lengths into one table, bool (M, width)."""
    table = np.zeros((len(masks), width), dtype=np.bool_)
    for row, mask in zip(table, masks, strict=True):
        row[: len(mask)] = mask
    return table
