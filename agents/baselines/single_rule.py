"""The best single rule: one set of deletions, given by role and place, for every prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.config import SingleRuleConfig
from agents.baselines.deletions import Slots, delete_greatest, edits_of, kept_after
from agents.problem import Problem
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.core.words import Role

if TYPE_CHECKING:
    import torch

#: A word's role and its place among the words of that role, counted from 0.
RolePlace = tuple[str, int]


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

    def __init__(self, config: SingleRuleConfig | None = None, seed: int = 0) -> None:
        """Start with an empty rule."""
        super().__init__(config, seed)
        self.rule: tuple[RolePlace, ...] = ()

    def fit(self, problem: Problem) -> None:
        """Score random deletions, then rules; see ``Agent.fit``."""
        self.shape, self.rule = problem.shape, ()
        config, meter, rng = self.config, problem.reward, np.random.default_rng(self.seed)
        prompts = meter.prompts_left
        patients = rng.permutation(len(problem.episodes))[: min(config.patients, max(1, prompts // 3))]
        most = int(problem.budgets.max())
        sizes = sorted({max(1, size) for size in (1, most // 4, most // 2, most)})
        left = max(0, prompts - len(patients))  # 0 if the budget does not cover one prompt's completions
        explored = left - min(int(config.judged * left), len(sizes) * len(patients))
        places = _places(problem.episodes)
        coefficients = self._explore(problem, places, np.resize(patients, explored), rng)
        ranked = [place for place in sorted(coefficients, key=lambda p: -coefficients[p]) if coefficients[place] > 0]
        rules = list(dict.fromkeys(tuple(ranked[:size]) for size in sizes if ranked))
        best = 0.0
        for number, rule in enumerate(rules):
            judged = patients[: meter.prompts_left // (len(rules) - number)]
            if not len(judged):
                break
            outcomes = self._judge(problem, judged, _apply(problem, judged, rule))
            whole = ~outcomes.failed
            if whole.any() and outcomes.delta[whole].mean() > best:
                best, self.rule = float(outcomes.delta[whole].mean()), rule

    def refine(self, problem: Problem) -> Edits:
        """Delete the rule's places from each prompt that has them and where this is legal; see ``Agent.refine``."""
        return edits_of(problem, _apply(problem, np.arange(len(problem.episodes)), self.rule))

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
            raise ValueError(f"rule is {shortened(rule)}: use a list of [role, place]")
        for each in rule:
            if not (isinstance(each, list) and len(each) == 2 and type(each[1]) is int):
                raise ValueError(f"rule holds {shortened(each)}: use [role, place]")
            if each[0] not in get_args(Role) or not 0 <= each[1] < self.shape.max_words:
                raise ValueError(
                    f"rule holds {shortened(each)}: use one of {get_args(Role)} and a whole number from 0 to "
                    f"{self.shape.max_words - 1}"
                )
        self.rule = tuple((role, place) for role, place in rule)
        if len(set(self.rule)) < len(self.rule):
            raise ValueError("rule holds the same place twice")

    def _explore(
        self,
        problem: Problem,
        places: Sequence[Sequence[RolePlace]],
        patients: npt.NDArray[np.int64],
        rng: np.random.Generator,
    ) -> dict[RolePlace, float]:
        """Estimate the effect of deleting each place, up to a constant, from random deletions in these prompts."""
        batch = problem.batch(patients)
        deletions = delete_greatest(batch, rng.random)
        if not deletions:
            return {}
        outcomes = self._judge(problem, patients, deletions)
        whole = np.flatnonzero(~outcomes.failed)
        names = sorted({place for i in patients.tolist() for place in places[i]})
        column = {place: j for j, place in enumerate(names)}
        gone = np.zeros((len(whole), len(names)))
        for row, i in enumerate(whole.tolist()):
            gone[row, [column[places[patients[i]][slot]] for slot in deletions[i]]] = 1.0
        if not len(whole):
            return {}
        deltas = outcomes.delta[whole]
        gone, deltas = gone - gone.mean(axis=0), deltas - deltas.mean()
        gram = gone.T @ gone
        ridge = self.config.penalty * max(1e-12, float(np.trace(gram)) / len(gram))
        solved = np.linalg.solve(gram + ridge * np.eye(len(gram)), gone.T @ deltas)
        return dict(zip(names, solved.tolist(), strict=True))

    def _judge(self, problem: Problem, patients: npt.NDArray[np.int64], deletions: Slots) -> Outcomes:
        return problem.judge(patients.tolist(), kept_after(problem, patients, deletions))


def _places(episodes: EpisodeSet) -> list[list[RolePlace]]:
    """Return the role and place of every word of every prompt."""
    return [role_places(episode.roles) for episode in episodes]


def role_places(roles: Sequence[str]) -> list[RolePlace]:
    """Return the role and place of each word of a prompt."""
    seen: dict[str, int] = {}
    places = []
    for role in roles:
        places.append((role, seen.get(role, 0)))
        seen[role] = seen.get(role, 0) + 1
    return places


def _apply(problem: Problem, patients: npt.NDArray[np.int64], rule: Sequence[RolePlace]) -> Slots:
    """Return the slots that a rule deletes from each prompt, within the edit budget."""
    deletions = []
    for index, legal in zip(patients.tolist(), problem.batch(patients).legal, strict=True):
        slot_of = {place: slot for slot, place in enumerate(role_places(problem.episodes[index].roles))}
        slots = [slot_of[place] for place in rule if place in slot_of]
        deletions.append(tuple([slot for slot in slots if legal[slot]][: problem.budgets[index]]))
    return deletions
