"""Tune agents with equal numbers of trials: ``pmlm tune``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from agents import registry
from agents.benchmark.config import TuneConfig, check_identity
from agents.benchmark.patients import patients_of
from agents.benchmark.tuned import draw, first_trial, read_tuned
from agents.evaluation.bootstrap import FEWEST
from pmlm_env.io.files import locked, write_json

logger = logging.getLogger(__name__)

#: First seed used in trials. Benchmark seeds start at 0, so that a benchmark repeats no fit from tuning.
_FIRST_SEED = 1_000


def tune(config: TuneConfig) -> Path:
    """Tune the agents that are not in the file yet, and return the file.

    Raises:
        RuntimeError: Optuna is not installed.
        ValueError: The episodes are invalid, or the file comes from a tuning with different options.
        BudgetExceededError: A limit in ``calls`` was reached; results of completed agents are kept.
    """
    try:
        import optuna
    except ImportError as error:
        raise RuntimeError(f"pmlm tune needs Optuna ({error}): pip install 'pmlm-env[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with locked(config.out / config.env):
        return _tune(config, optuna)


def _tune(config: TuneConfig, optuna: ModuleType) -> Path:
    """Tune the agents; the caller holds the lock on the output folder."""
    file = config.out / config.env / "tuned.json"
    numbers = {"budget": config.budget, "trials": config.trials, "seeds": config.seeds, "seed": config.seed}
    patients = patients_of(config.env, "validation", config.episodes, config.run, config.models, config.calls)
    numbers.update(patients.identity)
    found = _found(file, numbers)
    if len(patients.held_out) < FEWEST:
        logger.warning(
            "%d validation patients are too few for choosing settings: use %d or more", len(patients.held_out), FEWEST
        )
    defaults = {name: first_trial(name, config.env) for name in _chosen(config) if name not in found}

    def objective(name: str, settings: Mapping[str, Any]) -> float:
        seeds = range(_FIRST_SEED, _FIRST_SEED + config.seeds)
        config_of = registry.settings_of(name, config.env, settings)
        agents = [registry.make(name, config_of, seed) for seed in seeds]
        return float(np.mean([patients.deltas(agent, config.budget).mean() for agent in agents]))

    with patients.working(), tqdm(total=len(defaults) * config.trials, unit="trial", dynamic_ncols=True) as bar:
        for name, first in defaults.items():
            bar.set_postfix_str(name)
            sampler = optuna.samplers.TPESampler(seed=config.seed)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.enqueue_trial(first)
            tried = []
            for _ in range(config.trials):
                trial = study.ask()
                settings = draw(trial, name)
                tried.append((objective(name, settings), settings))
                study.tell(trial, tried[-1][0])
                bar.update()
            patients.write_spent()
            value, settings = max(tried, key=lambda one: one[0])  # the first one in case of ties
            found[name] = {"settings": settings, "value": round(value, 6), "default": round(tried[0][0], 6)}
            write_json(file, {**numbers, "agents": found})
            bar.write(f"{name:14} {100 * tried[0][0]:+.2f} -> {100 * value:+.2f}  {_as_text(settings)}")
    print(
        f"agents tuned: {len(defaults)} (deltas in points); the settings are in {file}. "
        f"Next: pmlm benchmark --env {config.env} --tuned {file}"
    )
    return file


def _chosen(config: TuneConfig) -> list[str]:
    """Return the agents to tune.

    Raises:
        ValueError: A chosen agent has no tunable settings.
    """
    names = config.agents or tuple(registry.AGENTS)
    tunable = [name for name in names if registry.class_of(name).space]
    if fixed := [name for name in config.agents if name not in tunable]:
        raise ValueError(f"the agent {fixed[0]!r} has no settings to tune, its class has no `space`: leave it out")
    return tunable


def _found(file: Path, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an earlier tuning found, by agent."""
    if not file.is_file():
        return {}
    content = read_tuned(file)
    check_identity(file, {key: value for key, value in content.items() if key != "agents"}, numbers)
    return content["agents"]


def _as_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
    )
