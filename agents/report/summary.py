"""Summary statistics for each agent at each budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agents.evaluation.aggregate import crossed_bootstrap
from agents.evaluation.bootstrap import Interval
from agents.report.results import Run, Runs


@dataclass(frozen=True, slots=True)
class Cell:
    """Statistics of one agent at one budget; deltas are fractions of F1.

    Attributes:
        delta: Mean over seeds and test patients, with its crossed-bootstrap interval.
        over_default: Difference to the default agent, paired by seed and patient; None if not compared.
        personal: Difference to the best single rule, paired by seed and patient: the gain from treating patients
            differently. None if not compared.
        n_paired: Number of seeds shared with the default agent.
        seeds: The seeds, sorted.
        n_patients: Number of test patients present in the runs of all seeds.
        calls: Mean number of completions spent.
        claimed: Mean over seeds of the delta found during an oracle's search; None if no run has one.
    """

    delta: Interval
    over_default: Interval | None
    personal: Interval | None
    n_paired: int
    seeds: tuple[int, ...]
    n_patients: int
    calls: float
    claimed: float | None


#: Cells by agent and budget.
Cells = dict[tuple[str, int], Cell]


def summarise(runs: Runs, default: str | None, seed: int, rule: str | None = None) -> Cells:
    """Summarize all agents at all budgets.

    Each interval is resampled with a new generator of the same seed, so it does not depend on which agents are present.

    Args:
        runs: Runs of one environment and track.
        default: The agent that all others are compared with; None = no comparison.
        seed: Seed of the resamples.
        rule: The agent that applies one rule to all prompts; None = no comparison with it.
    """
    cells: Cells = {}
    for agent in runs.agents:
        for budget in runs.budgets:
            by_seed = runs.of(agent, budget)
            if not by_seed:
                continue
            deltas = aligned(by_seed)
            difference = beyond = None
            if default is not None and agent != default:
                difference = paired_difference(by_seed, runs.of(default, budget))
            if rule is not None and agent != rule and agent not in runs.controls:
                beyond = paired_difference(by_seed, runs.of(rule, budget))
            claims = [run.claimed for run in by_seed.values() if run.claimed is not None]
            paired = None if difference is None else crossed_bootstrap(difference, np.random.default_rng(seed))
            cells[agent, budget] = Cell(
                delta=crossed_bootstrap(deltas, np.random.default_rng(seed)),
                over_default=paired,
                personal=None if beyond is None else crossed_bootstrap(beyond, np.random.default_rng(seed)),
                n_paired=0 if difference is None else len(difference),
                seeds=tuple(sorted(by_seed)),
                n_patients=deltas.shape[1],
                calls=float(np.mean([run.calls for run in by_seed.values()])),
                claimed=float(np.mean(claims)) if claims else None,
            )
    return cells


def aligned(
    runs: dict[int, Run], others: dict[int, Run] | None = None, metric: str | None = None
) -> npt.NDArray[np.float64]:
    """Return the deltas of the patients that all runs share, sorted by patient ID, float64 (seeds, patients).

    Args:
        runs: Runs by seed.
        others: Another agent's runs; patients must be in these too.
        metric: Return this metric, which all runs must have, instead of the deltas.

    Raises:
        ValueError: The runs have no patient in common.
    """
    every = [*runs.values(), *(others or {}).values()]
    names = sorted(set.intersection(*(set(run.patients) for run in every)))
    if not names:
        agents = " and ".join(dict.fromkeys(run.agent for run in every))
        raise ValueError(f"the runs of {agents} in {every[0].env} have no test patient in common")
    rows = [
        dict(zip(run.patients, run.deltas if metric is None else run.metrics[metric], strict=True))
        for run in runs.values()
    ]
    return np.array([[row[name] for name in names] for row in rows])


def paired_difference(ours: dict[int, Run], theirs: dict[int, Run]) -> npt.NDArray[np.float64] | None:
    """Return the differences between two agents, paired by seed and patient.

    The single run of an agent that ignores the seed is paired with every seed.

    Returns:
        float64 (seeds, patients); None if the agents have no seed in common.

    Raises:
        ValueError: The agents have no patient in common.
    """
    ours, theirs = _spread(ours, theirs), _spread(theirs, ours)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    first, second = ({seed: runs[seed] for seed in seeds} for runs in (ours, theirs))
    return aligned(first, second) - aligned(second, first)


def _spread(runs: dict[int, Run], others: dict[int, Run]) -> dict[int, Run]:
    """Repeat the single run of an agent that ignores the seed for each of the other agent's seeds."""
    only = next(iter(runs.values())) if len(runs) == 1 else None
    return dict.fromkeys(others, only) if only is not None and not only.seeded and others else runs
