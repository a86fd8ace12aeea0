"""Search on training patients for one set of words to delete from every prompt of the task."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.config import TaskSearchConfig
from agents.baselines.deletions import edits_of
from agents.policies.lexicon import FEWEST_PROMPTS
from agents.problem import Problem
from agents.search.base import Candidate, EditablePrompt, Mask, Search, run
from agents.search.genetic import genetic
from agents.search.grips import grips
from agents.settings import Choices, Integers
from pmlm_env.core.words import Role

if TYPE_CHECKING:
    import torch

#: A word independent of its slot: its role and its text.
Key: TypeAlias = tuple[str, str]


class TaskSearch(Agent):
    """Searches for a set of words, each with its role, to delete from every prompt.

    The search runs on a combined prompt: the words of the training patients that candidates are scored on, in their
    usual order. The score of a set is its mean delta over these patients. If a set matches more words of a prompt than
    the edit budget allows, only the first ones are deleted. Words of the best set that occur in only one or two
    training prompts are dropped from it, because saved agents may be published.

    Attributes:
        keys: The words to delete; empty before ``fit``.
    """

    Config = TaskSearchConfig
    needs_embeddings = False
    space = {"patients": Choices((2, 4, 8, 16, 32)), "finalists": Integers(1, 8)}  # noqa: RUF012
    config: TaskSearchConfig

    def __init__(self, config: TaskSearchConfig | None = None, seed: int = 0) -> None:
        """Start with no words to delete."""
        super().__init__(config, seed)
        self.keys: frozenset[Key] = frozenset()

    @property
    @abstractmethod
    def search(self) -> Search:
        """The search algorithm."""

    def fit(self, problem: Problem) -> None:
        """Search with four fifths of the budget, and choose among the finalists with the rest.

        Finalists are scored afresh on other patients. The one with the best mean delta is used, or none if no mean is
        above 0.
        """
        self.shape, self.keys = problem.shape, frozenset()
        config, n = self.config, len(problem.episodes)
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(n).tolist()
        patients = order[: min(config.patients, max(1, n // 2))]
        prompts = problem.reward.prompts_left
        judges = order[len(patients) :][: prompts // 5 // (1 + config.finalists)]
        for_search = prompts - len(judges) * (1 + config.finalists)
        words = _usual_order(problem, patients)
        roles, texts = [role for role, _ in words], [text for _, text in words]

        def score(_: Sequence[int], masks: Sequence[Mask]) -> npt.NDArray[np.float64]:
            return _mean_deltas(problem, patients, [_chosen(words, mask) for mask in masks])

        ranked: list[Candidate] = []
        start, spent = problem.reward.calls, -1
        left = for_search - len(patients)  # minus the initial prompts, which are paid for at their first edit
        # A set that deletes nothing from some patients' prompts costs less than planned: search on with the savings.
        while left >= len(patients) and problem.reward.calls > spent:
            spent = problem.reward.calls
            prompt = EditablePrompt(np.ones(len(words), bool), texts, roles, len(words), left // len(patients))
            ranked += run(self.search, [prompt], score, [rng])[0]
            left = for_search - len(patients) - (problem.reward.calls - start) // problem.reward.per_prompt
        ranked = sorted((one for one in ranked if one.delta > 0), key=lambda one: -one.delta)
        finalists = list(dict.fromkeys(_chosen(words, one.kept) for one in ranked))[: config.finalists]
        if judges:
            fresh = _mean_deltas(problem, judges, finalists)
            best = int(fresh.argmax()) if len(fresh) and fresh.max() > 0 else None
        else:
            best = 0 if finalists else None
        if best is not None:
            self.keys = _common(problem, finalists[best])

    def refine(self, problem: Problem) -> Edits:
        """Delete the words of the best set."""
        kept = _kept(problem, list(range(len(problem.episodes))), self.keys)
        lengths = problem.episodes.lengths
        slots = [tuple(np.flatnonzero(~row[:length]).tolist()) for row, length in zip(kept, lengths, strict=True)]
        return edits_of(problem, slots)

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the words to delete; see ``Agent.learned``."""
        return {"keys": sorted(self.keys)}, {}

    def words(self) -> tuple[str, ...]:
        """Return the words to delete; see ``Agent.words``."""
        return tuple(sorted({word for _, word in self.keys}))

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the words to delete; see ``Agent.restore``."""
        self._check_names(values, {"keys"})
        tensors({})
        if not isinstance(values["keys"], list):
            raise ValueError(f"keys is {shortened(values['keys'])}: use a list of [role, word]")
        for key in values["keys"]:
            if not (isinstance(key, list) and len(key) == 2 and all(isinstance(part, str) for part in key)):
                raise ValueError(f"keys holds {shortened(key)}: use [role, word]")
            if key[0] not in get_args(Role) or len(key[1].split()) != 1:
                raise ValueError(f"keys holds {shortened(key)}: use one of {get_args(Role)} and one word")
        self.keys = frozenset((role, word) for role, word in values["keys"])


class TaskGrips(TaskSearch):
    """``TaskSearch`` with hill climbing; see ``grips``."""

    name = "task-grips"

    @property
    def search(self) -> Search:
        """The search algorithm."""
        return grips


class TaskGenetic(TaskSearch):
    """``TaskSearch`` with a genetic algorithm; see ``genetic``."""

    name = "task-genetic"

    @property
    def search(self) -> Search:
        """The search algorithm."""
        return genetic


def _chosen(words: Sequence[Key], kept: Mask) -> frozenset[Key]:
    return frozenset(words[place] for place in np.flatnonzero(~kept).tolist())


def _common(problem: Problem, keys: frozenset[Key]) -> frozenset[Key]:
    """Return the words that occur in at least ``FEWEST_PROMPTS`` prompts; the others must not be saved."""
    n_prompts = Counter(key for e in problem.episodes for key in set(zip(e.roles, e.words, strict=True)) & keys)
    return frozenset(key for key, n in n_prompts.items() if n >= FEWEST_PROMPTS)


def _usual_order(problem: Problem, patients: Sequence[int]) -> list[Key]:
    """Return the words that may be deleted from these prompts, sorted by their mean slot."""
    slots: dict[Key, list[int]] = {}
    for index, legal in zip(patients, problem.batch(patients).legal, strict=True):
        episode = problem.episodes[index]
        for slot in np.flatnonzero(legal).tolist():
            slots.setdefault((episode.roles[slot], episode.words[slot]), []).append(slot)
    return sorted(slots, key=lambda key: (float(np.mean(slots[key])), key))


def _kept(problem: Problem, indices: Sequence[int], keys: frozenset[Key]) -> Mask:
    """Return which words of the prompts remain after deleting a set of words, bool (N, max_words)."""
    batch = problem.batch(indices)
    hit = np.zeros_like(batch.legal)
    for row, index in zip(hit, indices, strict=True):
        episode = problem.episodes[index]
        pairs = zip(episode.roles, episode.words, strict=True)
        row[: len(episode.words)] = [pair in keys for pair in pairs]
    hit &= batch.legal
    return batch.kept & ~(hit & (hit.cumsum(axis=1) <= batch.budgets[:, None]))


def _mean_deltas(problem: Problem, patients: Sequence[int], sets: Sequence[frozenset[Key]]) -> npt.NDArray[np.float64]:
    """Return the mean delta of each set of words over some patients, in one batch; -inf if there is no reply.

    Prompts that lose no words count as 0, without a request.
    """
    deltas = np.zeros((len(sets), len(patients)))
    kept = (
        np.stack([_kept(problem, patients, keys) for keys in sets]) if sets else np.zeros((0, len(patients), 1), bool)
    )
    whole = problem.batch(patients).kept
    edited = [(i, j) for i, rows in enumerate(kept) for j, row in enumerate(rows) if (row != whole[j]).any()]
    if edited:
        rows, columns = (list(part) for part in zip(*edited, strict=True))
        outcomes = problem.judge([patients[j] for j in columns], kept[rows, columns])
        deltas[rows, columns] = np.where(outcomes.failed, np.nan, outcomes.delta)
    known = ~np.isnan(deltas)
    sums = np.where(known, deltas, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), sums / np.maximum(known.sum(axis=1), 1), -np.inf)
