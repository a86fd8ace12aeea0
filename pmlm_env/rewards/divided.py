"""DividedReward: ``DeltaReward`` for several processes, each of which asks for and scores its share of the replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from pmlm_env.core.outcomes import Outcomes, Texts
from pmlm_env.processes import Processes
from pmlm_env.rewards.delta import DeltaReward, Judged

_ARRAYS = ("score", "initial_score", "llm_calls", "score_sd", "initial_score_sd", "rewards")
_COMPONENTS = ("components", "initial_components")


class DividedReward(DeltaReward):
    """What edits earn, computed by several processes: they make the same calls, and get the same outcomes.

    Initial prompts are sent by the process that has the patient's first row, or by two of them at the same time if the
    patient's rows are divided; a cache that the processes share sends equal prompts once.

    Args:
        processes: The processes.
        *args: Those of ``DeltaReward``, which are the same in all processes.
        **kwargs: Likewise.
    """

    def __init__(self, processes: Processes, *args: Any, **kwargs: Any) -> None:
        """Check that every episode can be scored; see ``DeltaReward``."""
        super().__init__(*args, **kwargs)
        self._processes = processes

    def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
        """Score refined prompts; an LLM failure becomes an error, never a score.

        Raises:
            TooManyFailuresError: ``max_failures`` episodes in a row got no reply.
            RuntimeError: In the first process: another one cannot go on, for the reason in the message.
            EndedError: In the other processes: the first one reports an error.
        """
        own, known = self._processes.share(len(indices)), {*self.initial}
        with self._processes.together():
            found = super().__call__(indices[own], prompts[own])
        new = [[i, *judged] for i, judged in self.initial.items() if i not in known]
        parts = self._processes.exchange([_as_json(found), new])
        for i, replies, score, sd, components in chain.from_iterable(new for _, new in parts):
            self.initial.setdefault(i, Judged(tuple(replies), score, sd, components))
        outcomes = _joined([part for part, _ in parts if part["score"]] or [parts[0][0]])
        with self._processes.together():
            super()._count(outcomes.errors)
        return outcomes

    def _count(self, errors: Sequence[str]) -> None:
        """Do nothing: ``__call__`` counts the failures of all processes."""


def _as_json(outcomes: Outcomes) -> dict[str, Any]:
    """Return outcomes as JSON values, without what they do not have."""
    arrays = {name: array.tolist() for name in _ARRAYS if (array := getattr(outcomes, name)) is not None}
    components = {
        name: {each: values.tolist() for each, values in getattr(outcomes, name).items()} for name in _COMPONENTS
    }
    texts = None if outcomes.texts is None else asdict(outcomes.texts)
    return {**arrays, **components, "texts": texts, "errors": [*outcomes.errors]}


def _joined(parts: Sequence[dict[str, Any]]) -> Outcomes:
    """Return the outcomes of all processes, given those of all that have any, which have the same fields."""
    first = parts[0]
    arrays: dict[str, Any] = {
        name: np.concatenate([np.array(part[name]) for part in parts]) for name in _ARRAYS if name in first
    }
    components: dict[str, Any] = {
        name: {each: np.concatenate([part[name][each] for part in parts]) for each in first[name]}
        for name in _COMPONENTS
    }
    texts = None
    if first["texts"] is not None:
        texts = Texts(**{name: [*chain(*(part["texts"][name] for part in parts))] for name in first["texts"]})
    errors = [*chain(*(part["errors"] for part in parts))]
    return Outcomes(**arrays, **components, texts=texts, errors=errors)
