"""What ``pmlm benchmark`` and ``pmlm tune`` can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.model_options import CallOptions, ModelOptions
from agents.registry import AGENTS, BenchmarkEnv, entry
from agents.search.searches import SEARCHES
from agents.settings import changed, option


@dataclass(frozen=True)
class BenchmarkConfig:
    """Run agents with equal budgets on equal patients, and append a line for each run to OUT/ENV/runs.jsonl.

    Runs that the file has already are not repeated, so that a benchmark that was stopped goes on. Every benchmark has
    the zero-call controls beside the agents: what replies score that need no LLM. The file names the test patients with
    each one's figures, and words deleted from three or more of their prompts; no prompt, no reply.

    Attributes:
        agents: Which agents; all by default. Names: see ``agents/registry.py``.
        oracles: Searches of each test patient with their own reference, kept apart: names of
            ``agents.search.searches.SEARCHES``.
        env: ``lite``: PMLMLite-v0's patients. ``real``: a prepared folder, the LLM and BERTScore.
        budget: Completions for fitting, one run for each.
        oracle_budget: Completions for each test patient's search.
        seeds: How many, from 0.
        tuned: Settings that `pmlm tune` found; agents that the file does not name keep their defaults.
        episodes: With ``real``, a folder that ``pmlm prepare`` wrote.
        raw: With ``real``, a folder of the same patients prepared with ``--template raw``: the LLM's replies to these
            untouched prompts, the paper's "before", become a row. They hold laboratory values, and the LLM gets them.
        out: Where results go.
        run: With ``real``, the folder for replies and spending. Replies are shared by all runs: a budget is what an
            agent would have spent alone.
        models: With ``real``; ``n_edits`` and ``protect`` with ``lite`` too.
        calls: With ``real``: limits on what all runs together may spend.
    """

    agents: tuple[str, ...] = tuple(AGENTS)
    oracles: tuple[str, ...] = ()
    env: BenchmarkEnv = "lite"
    budget: tuple[int, ...] = (600, 2_000)
    oracle_budget: int = 60
    seeds: int = 10
    tuned: Path | None = None
    episodes: Path = Path("prepared")
    raw: Path | None = None
    out: Path = Path("results")
    run: Path = Path("runs/benchmark")
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)

    def __post_init__(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: There is no agent or search of that name, or a number is not positive.
        """
        for name in self.agents:
            entry(name)
        if unknown := [name for name in self.oracles if name not in SEARCHES]:
            raise ValueError(f"there is no search {unknown[0]!r}: use some of {', '.join(SEARCHES)}")
        if min(self.seeds, self.oracle_budget, *self.budget) < 1:
            raise ValueError("seeds, budget and oracle-budget must be 1 or more")
        check_env(self)


@dataclass(frozen=True)
class TuneConfig:
    """Try settings of each agent, equally many, on the validation patients, and write the best to OUT/ENV/tuned.json.

    The first trial is of the defaults, so that the result is no worse than they are on these patients. Agents that the
    file has already are not tuned again, so that a tuning that was stopped goes on. Test patients have no part in it.
    `pmlm benchmark --tuned FILE` takes the settings.

    Attributes:
        agents: Which agents; all that have something to tune by default.
        env: ``lite``: PMLMLite-v0's patients. ``real``: a prepared folder, the LLM and BERTScore.
        budget: Completions for each fit.
        trials: Settings tried of each agent, the defaults among them.
        seeds: Fits in each trial; what counts is the mean of their mean deltas.
        episodes: With ``real``, a folder that ``pmlm prepare`` wrote.
        out: Where results go.
        run: With ``real``, the folder for replies and spending; replies are shared by all fits.
        models: With ``real``; ``n_edits`` and ``protect`` with ``lite`` too.
        calls: With ``real``: limits on what all fits together may spend.
        seed: The sampler's.
    """

    agents: tuple[str, ...] = ()
    env: BenchmarkEnv = "lite"
    budget: int = 600
    trials: int = 20
    seeds: int = 2
    episodes: Path = Path("prepared")
    out: Path = Path("results")
    run: Path = Path("runs/tune")
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: There is no agent of that name, or a number is not positive.
        """
        for name in self.agents:
            entry(name)
        if min(self.budget, self.trials, self.seeds) < 1:
            raise ValueError("budget, trials and seeds must be 1 or more")
        check_env(self)


def check_env(config: Any) -> None:
    """Check that nothing is asked of PMLMLite-v0 that only real patients and models have.

    Args:
        config: A dataclass with ``env``, and options that have an effect with ``real`` alone.

    Raises:
        ValueError: Something is.
    """
    needs, has = {"episodes", "raw", "run", "models", "calls"}, {"models.n_edits", "models.protect"}
    idle = [option(name) for name in changed(config) if name.partition(".")[0] in needs and name not in has]
    if config.env == "lite" and idle:
        raise ValueError(
            f"{', '.join(idle)} has no effect with --env lite, whose patients and replies are made up: "
            "leave it out, or give --env real"
        )


def check_identity(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that results in a file are of the same patients and models.

    Raises:
        ValueError: They are not.
    """
    other = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if other:
        differences = ", ".join(f"{name} {before.get(name)!r} and not {now.get(name)!r}" for name in other)
        raise ValueError(f"{file} has results with {differences}: use the same, or another --out")
