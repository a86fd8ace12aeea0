"""The best single rule: one set of deletions, given by role and place, for every prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.config import SingleRuleConfig
from agents.baselines.deletions import Slots, delete_greatest, edits_of, kept_after
from agents.problem import Problem
from pmlm_env.core.episodes import Episode
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.core.words import Role

if TYPE_CHECKING:
    import torch

#: A word's role and its place among the words of that role, counted from 0.
RolePlace: TypeAlias = tuple[str, int]

#: What a rule names: all words of a prompt that have the same unit are deleted together.
Unit: TypeAlias = tuple[str | int | bool, ...]


class SingleRule(Agent):
    """Deletes the same places from every prompt: the best rule for all patients that this search finds.

    The gain of another agent over this one counts as *personal*: it comes from treating patients differently. This
    gain is an upper bound, because the search adds up the effects of single words and so misses rules whose words help
    only together. First, ridge regression on random deletions from some training patients' prompts estimates the effect
    of deleting each place. Rules of several sizes, made of the places with the highest coefficients, are then applied
    to the same patients. The rule with the highest mean delta is used, or no rule if no mean is above 0.

    Attributes:
        rule: The places to delete, most promising first; empty before ``fit``.
    """

    name = "single-rule"
    needs_embeddings = False
    Config = SingleRuleConfig
    config: SingleRuleConfig
    #: A unit as a saved rule has it, for messages.
    form: ClassVar[str] = "[role, place]"

    def __init__(self, config: SingleRuleConfig | None = None, seed: int = 0) -> None:
        """Start with an empty rule."""
        super().__init__(config, seed)
        self.rule: tuple[Unit, ...] = ()

    def fit(self, problem: Problem) -> None:
        """Score random deletions, then rules; see ``Agent.fit``."""
        self.shape, self.rule = problem.shape, ()
        config, meter, rng = self.config, problem.reward, np.random.default_rng(self.seed)
        prompts = meter.prompts_left
        patients = rng.permutation(len(problem.episodes))[: min(config.patients, max(1, prompts // 3))]
        left = max(0, prompts - len(patients))  # 0 if the budget does not cover one prompt's completions
        most = int(problem.budgets.max())
        explored = left - min(int(config.judged * left), len(_quarters(most)) * len(patients))
        coefficients = self._explore(problem, np.resize(patients, explored), rng)
        ranked = [unit for unit in sorted(coefficients, key=lambda u: -coefficients[u]) if coefficients[unit] > 0]
        sizes = _quarters(self._largest(most, len(ranked)))
        rules = list(dict.fromkeys(tuple(ranked[:size]) for size in sizes if ranked))
        best = 0.0
        for number, rule in enumerate(rules):
            judged = patients[: meter.prompts_left // (len(rules) - number)]
            if not len(judged):
                break
            outcomes = self._judge(problem, judged, self._apply(problem, judged, rule))
            whole = ~outcomes.failed
            if whole.any() and outcomes.delta[whole].mean() > best:
                best, self.rule = float(outcomes.delta[whole].mean()), rule

    def refine(self, problem: Problem) -> Edits:
        """Delete the rule's places from each prompt that has them and where this is legal; see ``Agent.refine``."""
        return edits_of(problem, self._apply(problem, np.arange(len(problem.episodes)), self.rule))

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the rule; see ``Agent.learned``."""
        return {"rule": self.rule}, {}

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the rule; see ``Agent.restore``."""
        assert self.shape is not None
        self._check_names(values, {"rule"})
        tensors({})
        rule = values["rule"]
        if not isinstance(rule, list):
            raise ValueError(f"rule is {shortened(rule)}: use a list of {self.form}")
        self.rule = tuple(self._unit(each) for each in rule)
        if len(set(self.rule)) < len(self.rule):
            raise ValueError("rule holds the same place twice")

    def _units(self, episode: Episode) -> Sequence[Unit]:
        """Return the unit of each word of a prompt."""
        return role_places(episode.roles)

    def _largest(self, n_edits: int, n_ranked: int) -> int:
        """Return how many of the ranked units the largest rule has that is judged."""
        return n_edits

    def _draw(self, problem: Problem, patients: npt.NDArray[np.int64], rng: np.random.Generator) -> Slots:
        """Return random deletions from these prompts."""
        return delete_greatest(problem.batch(patients), rng.random)

    def _unit(self, each: Any) -> Unit:
        """Check a unit of a saved rule, which may come from somebody else.

        Raises:
            ValueError: It is none.
        """
        assert self.shape is not None
        return read_place("rule", each, self.shape.max_words)

    def _explore(
        self, problem: Problem, patients: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> dict[Unit, float]:
        """Estimate the effect of deleting each unit, up to a constant, from random deletions in these prompts."""
        deletions = self._draw(problem, patients, rng) if len(patients) else []
        if not deletions:
            return {}
        outcomes = self._judge(problem, patients, deletions)
        whole = np.flatnonzero(~outcomes.failed)
        units = {i: self._units(problem.episodes[i]) for i in set(patients.tolist())}
        column = {unit: j for j, unit in enumerate(sorted({unit for each in units.values() for unit in each}))}
        gone = np.zeros((len(whole), len(column)))
        for row, i in enumerate(whole.tolist()):
            gone[row, [column[units[patients[i]][slot]] for slot in deletions[i]]] = 1.0
        if not len(whole):
            return {}
        deltas = outcomes.delta[whole]
        gone, deltas = gone - gone.mean(axis=0), deltas - deltas.mean()
        gram = gone.T @ gone
        ridge = self.config.penalty * max(1e-12, float(np.trace(gram)) / len(gram))
        solved = np.linalg.solve(gram + ridge * np.eye(len(gram)), gone.T @ deltas)
        return dict(zip(column, solved.tolist(), strict=True))

    def _apply(self, problem: Problem, patients: npt.NDArray[np.int64], rule: Sequence[Unit]) -> Slots:
        """Return the slots that a rule deletes from each prompt, within the edit budget."""
        deletions = []
        for index, legal in zip(patients.tolist(), problem.batch(patients).legal, strict=True):
            slots_of: dict[Unit, list[int]] = {}
            for slot, unit in enumerate(self._units(problem.episodes[index])):
                slots_of.setdefault(unit, []).append(slot)
            slots = [slot for unit in rule for slot in slots_of.get(unit, ()) if legal[slot]]
            deletions.append(tuple(slots[: problem.budgets[index]]))
        return deletions

    def _judge(self, problem: Problem, patients: npt.NDArray[np.int64], deletions: Slots) -> Outcomes:
        return problem.judge(patients.tolist(), kept_after(problem, patients, deletions))


def role_places(roles: Sequence[str]) -> list[RolePlace]:
    """Return the role and place of each word of a prompt."""
    seen: dict[str, int] = {}
    places = []
    for role in roles:
        places.append((role, seen.get(role, 0)))
        seen[role] = seen.get(role, 0) + 1
    return places


def read_place(name: str, each: Any, max_words: int) -> RolePlace:
    """Read the role and place of a word from a saved agent, which may come from somebody else.

    Args:
        name: What they are read from, for messages.
        each: The value.
        max_words: Number of slots.

    Raises:
        ValueError: It is none.
    """
    if not (isinstance(each, list) and len(each) == 2 and type(each[1]) is int):
        raise ValueError(f"{name} holds {shortened(each)}: use [role, place]")
    if each[0] not in get_args(Role) or not 0 <= each[1] < max_words:
        raise ValueError(
            f"{name} holds {shortened(each)}: use one of {get_args(Role)} and a whole number from 0 to {max_words - 1}"
        )
    return each[0], each[1]


def _quarters(most: int) -> list[int]:
    """Return a quarter, half and all of a number, and 1; each once, smallest first."""
    return sorted({max(1, size) for size in (1, most // 4, most // 2, most)})
