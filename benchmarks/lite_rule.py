"""A rule for all patients of PMLMLite-v0 that has no budget: python -m benchmarks.lite_rule.

``single-rule`` has to find its rule with few replies. Here, hill climbing adds, leaves out and exchanges places by the
exact rewards of all training patients. What an agent has beyond this rule comes from treating patients differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tyro

from agents.baselines.single_rule import RolePlace, SingleRule, role_places
from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.bootstrap import Interval, mean_interval
from agents.problem import Problem
from agents.report.results import Runs, read_runs
from agents.report.summary import aligned
from pmlm_env.core.edits import apply_edits
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes
from pmlm_env.io.files import write_json

#: The rules that are compared: places, most promising first.
Rule = tuple[RolePlace, ...]


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        runs: The benchmark on Lite whose agents are compared with the rule.
        agents: The agents.
        n_edits: The edit budget, which is the greatest number of places.
        json: Output file.
    """

    runs: Path = Path("benchmarks/results/lite")
    agents: tuple[str, ...] = ("tree-surrogate", "leave-one-out", "single-rule")
    n_edits: int = 10
    json: Path | None = None


def follower(rule: Rule) -> SingleRule:
    """Return an agent that deletes the places of a rule."""
    agent = SingleRule()
    agent.rule = rule
    return agent


class Patients:
    """Patients whose prompts a rule edits.

    Args:
        episodes: The patients.
        n_edits: The edit budget.
    """

    def __init__(self, episodes: EpisodeSet, n_edits: int) -> None:
        """Store the arguments."""
        self.episodes, self._reward = episodes, LiteReward(episodes)
        self._problem = Problem(episodes, HashedEncoder(), None, n_edits)

    def rewards(self, rule: Rule) -> npt.NDArray[np.float64]:
        """Return the reward of each patient if the rule edits the prompts, float64 (N,)."""
        everybody, edits = range(len(self.episodes)), follower(rule).refine(self._problem)
        return self._reward(list(everybody), apply_edits(self.episodes, everybody, edits)).delta


def climb(gain: Callable[[Rule], float], places: Sequence[RolePlace], most: int) -> Rule:
    """Return a rule of at most ``most`` places that no addition, omission or exchange of a place improves."""
    rule: Rule = ()
    best = gain(rule)
    while True:
        others = [place for place in places if place not in rule]
        nearby = [(*rule, place) for place in others if len(rule) < most]
        for i in range(len(rule)):
            nearby += [(*rule[:i], *new, *rule[i + 1 :]) for new in ((), *((place,) for place in others))]
        reached = [gain(each) for each in nearby]
        if max(reached) <= best + 1e-9:
            return rule
        best, rule = max(reached), nearby[int(np.argmax(reached))]


def measure(options: Options) -> dict[str, Any]:
    """Find the rule, and compare agents with it.

    Returns:
        ``rule``: its places; ``train`` and ``test``: the mean reward in points, with a 95 % interval over patients;
        ``over``: for each agent and budget, its reward minus the rule's, with an interval over seeds and test patients.
    """
    everybody = lite_episodes()
    train, test = (Patients(everybody.of(split), options.n_edits) for split in ("train", "test"))
    places = sorted({place for episode in train.episodes for place in role_places(episode.roles)})
    rule = climb(lambda rule: float(train.rewards(rule).mean()), places, options.n_edits)
    of_rule = {"train": train.rewards(rule), "test": test.rewards(rule)}
    by_name = dict(zip((episode.patient_id for episode in test.episodes), of_rule["test"], strict=True))
    runs, over = Runs(run for run in read_runs(options.runs) if run.track != "oracle"), []
    for agent, budget in product(options.agents, runs.budgets):
        own = runs.of(agent, budget)
        theirs = [by_name[name] for name in sorted(own[0].patients)]
        beyond = crossed_bootstrap(aligned(own) - theirs, np.random.default_rng(0))
        over.append({"agent": agent, "budget": budget, "gain": _points(beyond)})
    found = {name: _points(mean_interval(values, np.random.default_rng(0))) for name, values in of_rule.items()}
    return {"rule": [list(place) for place in rule], **found, "over": over}


def _points(interval: Interval) -> list[float | None]:
    return [None if each is None else round(100 * each, 2) for each in (interval.mean, interval.low, interval.high)]


def main(options: Options) -> None:
    """Measure, print the results, and write them to a file if one is given."""
    results = measure(options)
    print(f"rule: {', '.join(f'{role} {number}' for role, number in results['rule'])}")
    for name in ("train", "test"):
        print("{}: {:+.2f} [{:+.2f}, {:+.2f}]".format(name, *results[name]))
    for each in results["over"]:
        print("{} with {:,} calls: {:+.2f} [{:+.2f}, {:+.2f}]".format(each["agent"], each["budget"], *each["gain"]))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main(tyro.cli(Options))
