"""Tune agents with equal numbers of trials: ``pmlm tune``."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from agents import registry
from agents.benchmark.config import TuneConfig, check_identity
from agents.benchmark.patients import patients_of
from agents.benchmark.tuned import draw, first_trial, read_tuned
from agents.cluster.pool import finished
from agents.evaluation.bootstrap import FEWEST
from pmlm_env.io.files import locked, write_json

logger = logging.getLogger(__name__)

#: A fit: the agent, the number of the trial, its settings and the seed.
Fit: TypeAlias = tuple[str, int, dict[str, Any], int]

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
    fits = Fits(config)
    numbers = {"budget": config.budget, "trials": config.trials, "seeds": config.seeds, "seed": config.seed}
    numbers |= {**({"batch": config.batch} if config.batch > 1 else {}), **fits.identity}
    found = _found(file, numbers)
    if len(fits.patients.held_out) < FEWEST:
        logger.warning(
            "%d validation patients are too few for choosing settings: use %d or more",
            len(fits.patients.held_out), FEWEST,
        )  # fmt: skip
    names = _chosen(config)
    studies = {name: _Study(name, config, optuna) for name in names if name not in found}
    jobs = deque(job for study in studies.values() for job in study.batch())
    with fits.patients.working(), tqdm(total=len(studies) * config.trials, unit="trial", dynamic_ncols=True) as bar:
        results = finished(jobs, fits, Fits, (config,), config.cluster, lambda job: bar.set_postfix_str(job[0]))
        with closing(results):
            for (name, trial, _, seed), value in results:
                study = studies[name]
                if not study.take(trial, seed, value):
                    continue
                bar.update(study.told())
                if len(study.tried) < config.trials:
                    jobs.extendleft(reversed(study.batch()))  # first, so that agents are completed one after another
                    continue
                fits.patients.write_spent()
                best, settings = max(study.tried, key=lambda one: one[0])  # the first one in case of ties
                default = study.tried[0][0]
                found[name] = {"settings": settings, "value": round(best, 6), "default": round(default, 6)}
                order = [*(other for other in found if other not in names), *(name for name in names if name in found)]
                write_json(file, {**numbers, "agents": {name: found[name] for name in order}})
                bar.write(f"{name:14} {100 * default:+.2f} -> {100 * best:+.2f}  {_as_text(settings)}")
    print(
        f"agents tuned: {len(studies)} (deltas in points); the settings are in {file}. "
        f"Next: pmlm benchmark --env {config.env} --tuned {file}"
    )
    return file


class Fits:
    """Fits agents and returns their mean deltas, in the command's process or in a worker; see ``Runs``.

    Args:
        config: The options.

    Attributes:
        patients: The patients.
        identity: The patients and the models.
    """

    def __init__(self, config: TuneConfig) -> None:
        """Read the patients."""
        self._config = config
        self.patients = patients_of(config.env, "validation", config.episodes, config.run, config.models, config.calls)
        self.identity = self.patients.identity

    def __call__(self, job: Fit) -> float:
        """Fit an agent with a seed, and return its mean delta on the validation patients."""
        name, _, settings, seed = job
        agent = registry.make(name, registry.settings_of(name, self._config.env, settings), seed)
        return float(self.patients.deltas(agent, self._config.budget).mean())


class _Study:
    """The trials of an agent. Optuna chooses them in batches, in this process, whoever does the fits.

    The sampler sees the results in the order of the trials, so the settings it chooses do not depend on which fit ends
    first.

    Args:
        name: The agent.
        config: The options.
        optuna: The module.

    Attributes:
        tried: The mean delta and the settings of each complete trial, in order.
    """

    def __init__(self, name: str, config: TuneConfig, optuna: ModuleType) -> None:
        sampler = optuna.samplers.TPESampler(seed=config.seed, constant_liar=config.batch > 1)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._study.enqueue_trial(first_trial(name, config.env))
        self._name, self._config = name, config
        self._asked: list[tuple[Any, dict[str, Any]]] = []
        self._values: dict[tuple[int, int], float] = {}
        self.tried: list[tuple[float, dict[str, Any]]] = []

    def batch(self) -> list[Fit]:
        """Choose the next trials, and return their fits."""
        first, config = len(self.tried), self._config
        for _ in range(min(config.batch, config.trials - first)):
            trial = self._study.ask()
            self._asked.append((trial, draw(trial, self._name)))
        seeds = range(_FIRST_SEED, _FIRST_SEED + config.seeds)
        return [
            (self._name, number, settings, seed)
            for number, (_, settings) in enumerate(self._asked, start=first)
            for seed in seeds
        ]

    def take(self, trial: int, seed: int, value: float) -> bool:
        """Store the mean delta of a fit, and return whether the batch is complete."""
        self._values[trial, seed] = value
        return len(self._values) == len(self._asked) * self._config.seeds

    def told(self) -> int:
        """Tell the sampler about the batch, and return how many trials it had."""
        asked, self._asked = self._asked, []
        values, self._values = self._values, {}
        for number, (trial, settings) in enumerate(asked, start=len(self.tried)):
            value = float(np.mean([each for (of, _), each in sorted(values.items()) if of == number]))
            self.tried.append((value, settings))
            self._study.tell(trial, value)
        return len(asked)


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
