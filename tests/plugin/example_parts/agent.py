"""An agent that finds the part of the prompt that is best shortened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.deletions import Slots, edits_of, kept_after
from agents.problem import Problem
from agents.settings import Integers
from pmlm_env.core.words import Role


@dataclass(frozen=True)
class OnePartConfig:
    """Settings.

    Attributes:
        parts: The parts of the prompt to choose from.
        patients: The number of training patients on whose prompts the parts are compared.
    """

    parts: tuple[str, ...] = get_args(Role)
    patients: int = 16

    def __post_init__(self) -> None:
        """Check the values."""
        if self.patients < 1 or set(self.parts) - set(get_args(Role)):
            raise ValueError(f"use 1 patient or more, and parts among {', '.join(get_args(Role))}")


class OnePart(Agent):
    """Deletes the last words of one part of the prompt: the part whose shortening raised the training scores most."""

    Config = OnePartConfig
    space: ClassVar = {"patients": Integers(4, 32)}
    needs_embeddings = False
    part = ""  # before ``fit``, and if no shortening raised the scores, nothing is deleted

    def fit(self, problem: Problem) -> None:
        """Shorten each part in turn, in the prompts of the same patients, and compare the mean rewards."""
        self.shape = problem.shape
        drawn = np.random.default_rng(self.seed).permutation(len(problem.episodes))[: self.config.patients]
        best = 0.0
        for part in self.config.parts:
            kept = kept_after(problem, drawn, _last_words(problem, drawn.tolist(), part))
            reward = problem.judge(drawn.tolist(), kept).delta.mean()  # raises an error when the budget is spent
            if reward > best:
                best, self.part = reward, part

    def refine(self, problem: Problem) -> Edits:
        """Shorten the part that was found."""
        return edits_of(problem, _last_words(problem, range(len(problem.episodes)), self.part))

    def learned(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what ``save`` writes: JSON values, and tensors by name."""
        return {"part": self.part}, {}

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Take over what ``learned`` returned. A saved agent may come from anybody, so check each value."""
        tensors({})  # there are none
        if values.keys() != {"part"} or values["part"] not in ("", *self.config.parts):
            raise ValueError(f"it should hold a part, one of {', '.join(self.config.parts)}")
        self.part = values["part"]


def _last_words(problem: Problem, index: Sequence[int], part: str) -> Slots:
    """Return the slots of the last words of a part that may be deleted, up to the edit budget of each prompt."""
    slots = []
    for i, may_go in zip(index, problem.batch(index).legal, strict=True):
        own = [slot for slot, role in enumerate(problem.episodes[i].roles) if role == part and may_go[slot]]
        slots.append(tuple(own[::-1][: problem.budgets[i]]))
    return slots
