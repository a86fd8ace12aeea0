"""Tune agents under equal numbers of trials: ``pmlm tune``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from agents.benchmark.held_out import check_env, check_identity, ground
from agents.benchmark.spaces import SPACES, draw, first_of
from agents.evaluation.bootstrap import FEWEST
from agents.model_options import CallOptions, ModelOptions
from agents.registry import BenchmarkEnv
from agents.run_folder import write_json
from agents.settings import made, read_tuned
from pmlm_env.io.files import locked

logger = logging.getLogger(__name__)

#: Trials' agents have seeds from here on: a benchmark, whose seeds begin at 0, repeats none of their fits.
_FIRST_SEED = 1_000


@dataclass(frozen=True)
class TuneConfig:
    """Try settings of each agent, equally many, on the validation patients, and write the best to OUT/ENV/tuned.json.

    The first trial is of the defaults, so that what comes out is no worse than they are on these patients. Agents that
    the file has already are not tuned again, so that a tuning that was stopped goes on with the agent it was at. Test
    patients have no part in it. `pmlm benchmark --tuned FILE` takes the settings.

    Attributes:
        agents: Which; all that have a search space by default: see ``agents/benchmark/spaces.py``.
        env: ``lite``: PMLMLite-v0's patients. ``real``: a prepared folder, the LLM and BERTScore.
        budget: Completions for each fit.
        trials: Settings tried of each agent, the defaults among them.
        seeds: Fits in each trial; what counts is the mean of their mean deltas.
        episodes: With ``real``, a folder that ``pmlm prepare`` wrote.
        out: Where results go.
        run: With ``real``, the folder for replies and spending; replies are shared by all fits.
        models: With ``real``.
        calls: With ``real``: limits on what all fits together may spend.
        seed: The sampler's.
    """

    agents: tuple[str, ...] = tuple(SPACES)
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
            ValueError: There is nothing to tune of an agent, or a number is not positive.
        """
        if unknown := [name for name in self.agents if name not in SPACES]:
            raise ValueError(f"there is nothing to tune of {unknown[0]!r}: use some of {', '.join(SPACES)}")
        if min(self.budget, self.trials, self.seeds) < 1:
            raise ValueError("budget, trials and seeds must be 1 or more")
        check_env(self)


def tune(config: TuneConfig) -> Path:
    """Tune the agents that are not in the file yet, and return the file.

    Raises:
        RuntimeError: Optuna is not installed.
        ValueError: The episodes are not as they should be, or the file is of a tuning with other numbers.
        BudgetExceededError: A limit in ``calls`` is reached; agents that are done are kept.
    """
    try:
        import optuna
    except ImportError as error:
        raise RuntimeError(f"pmlm tune needs Optuna ({error}): pip install 'pmlm-env[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with locked(config.out / config.env):
        return _tune(config, optuna)


def _tune(config: TuneConfig, optuna: ModuleType) -> Path:
    """Tune into a file that is this process's own."""
    file = config.out / config.env / "tuned.json"
    numbers = {"budget": config.budget, "trials": config.trials, "seeds": config.seeds, "seed": config.seed}
    place = ground(config.env, "validation", config.episodes, config.run, config.models, config.calls)
    numbers.update(place.identity)
    found = _found(file, numbers)
    if len(place.held_out) < FEWEST:
        logger.warning(
            "%d validation patients are too few to choose settings by: use %d or more", len(place.held_out), FEWEST
        )
    jobs = [name for name in dict.fromkeys(config.agents) if name not in found]

    def objective(name: str, settings: Mapping[str, Any]) -> float:
        seeds = range(_FIRST_SEED, _FIRST_SEED + config.seeds)
        agents = [made(name, config.env, seed, settings) for seed in seeds]
        return float(np.mean([place.deltas(agent, config.budget).mean() for agent in agents]))

    with place.working(), tqdm(total=len(jobs) * config.trials, unit="trial", dynamic_ncols=True) as bar:
        for name in jobs:
            bar.set_postfix_str(name)
            sampler = optuna.samplers.TPESampler(seed=config.seed)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.enqueue_trial(first_of(name, config.env))
            tried = []
            for _ in range(config.trials):
                trial = study.ask()
                settings = draw(trial, name)
                tried.append((objective(name, settings), settings))
                study.tell(trial, tried[-1][0])
                bar.update()
            place.write_spent()
            value, settings = max(tried, key=lambda one: one[0])  # the first of those that are equally good
            found[name] = {"settings": settings, "value": round(value, 6), "default": round(tried[0][0], 6)}
            write_json(file, {**numbers, "agents": found})
            bar.write(f"{name:14} {100 * tried[0][0]:+.2f} -> {100 * value:+.2f}  {_told(settings)}")
    print(f"{len(jobs)} agents tuned, deltas in points; {file}. Next: pmlm benchmark --env {config.env} --tuned {file}")
    return file


def _found(file: Path, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an earlier tuning found, by agent."""
    if not file.is_file():
        return {}
    content = read_tuned(file)
    check_identity(file, {key: value for key, value in content.items() if key != "agents"}, numbers)
    return content["agents"]


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
    )
