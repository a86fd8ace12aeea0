"""Fit agents with equal budgets and evaluate them on held-out patients: ``pmlm benchmark``."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from agents import registry
from agents.benchmark.config import RAW, BenchmarkConfig, check_identity
from agents.benchmark.held_out import MissingRepliesError
from agents.benchmark.patients import RealPatients, patients_of
from agents.benchmark.runs_file import complete_runs, put_in_order, versions
from agents.benchmark.tuned import read_tuned
from agents.cluster.pool import finished
from agents.evaluation.controls import CONTROLS
from agents.settings import plain
from pmlm_env.io.files import append, locked
from pmlm_env.rewards.base import BERTSCORE

logger = logging.getLogger(__name__)

#: A run: its track, its agent, the budget and the seed.
Job: TypeAlias = tuple[str, str, int, int]

#: The key of what says, in place of a line, why a run has no result.
_INCOMPLETE = "incomplete"

_PACKAGES = ("pmlm-env", "torch", "transformers", "gymnasium", "numpy", "stable-baselines3", "sb3-contrib")


def benchmark(config: BenchmarkConfig) -> Path:
    """Do the runs that are not in the results file yet, and return the file.

    Raises:
        ValueError: The episodes or the file of tuned settings are invalid, or the file has runs with different
            episodes or models, or runs of an agent with different settings.
        MissingRepliesError: Test patients' replies are missing; the other runs are complete, unless every run needs
            these replies.
        BudgetExceededError: A limit in ``calls`` was reached; complete runs are kept.
    """
    if not config.agents:
        others = "the controls and oracles" if config.oracles else "the controls, which need no agent,"
        logger.warning("--agents names no agent: only %s are run", others)
    with locked(config.out / config.env):
        return _benchmark(config, config.out / config.env / "runs.jsonl")


def _benchmark(config: BenchmarkConfig, file: Path) -> Path:
    """Do the missing runs; the caller holds the lock on the file."""
    done = _complete(file)
    jobs = [job for job in _jobs(config) if job not in done]
    tuned = _tuned(config, done, file)
    runs = BenchmarkRuns(config, tuned)
    for line in done.values():
        check_identity(file, line.get("identity", {}), runs.identity)
    _check_raw(config, runs, done, file)
    incomplete = 0
    with runs.patients.working(), tqdm(total=len(jobs), unit="run", dynamic_ncols=True) as bar:

        def begun(job: Job) -> None:
            _, name, budget, seed = job
            bar.set_postfix_str(f"{name}, {budget} calls, seed {seed}")

        results = finished(deque(jobs), runs, BenchmarkRuns, (config, tuned), config.cluster, begun)
        with closing(results):
            for job, line in results:
                runs.patients.write_spent()
                if _INCOMPLETE in line:
                    incomplete += 1
                    _, name, budget, seed = job
                    logger.warning("%s, %d calls, seed %d has no result: %s", name, budget, seed, line[_INCOMPLETE])
                    continue
                append(file, json.dumps(line, ensure_ascii=False))
                done[job] = line
                bar.update()
    put_in_order(file, done, (job for job in _jobs(config) if job in done))
    if incomplete:
        raise MissingRepliesError(
            f"{incomplete} of {len(jobs)} runs have no result, the others are in {file}: see to what the warnings say, "
            "then run the command again"
        )
    print(
        f"new runs: {len(jobs)}, earlier ones: {len(done) - len(jobs)}; the results are in {file}. "
        f"Next: pmlm report {config.out}"
    )
    return file


class BenchmarkRuns:
    """Does runs of a benchmark, in the command's process or in a worker; see ``agents.cluster.worker.Runs``.

    Args:
        config: The options.
        tuned: Settings of agents that differ from their defaults.

    Attributes:
        patients: The patients.
        identity: The patients and the models.
    """

    def __init__(self, config: BenchmarkConfig, tuned: Mapping[str, Any]) -> None:
        """Read the patients."""
        self._config, self._tuned = config, tuned
        self.patients = patients_of(
            config.env, "test", config.episodes, config.run, config.models, config.calls, config.raw,
            bool(config.asking),
        )  # fmt: skip
        self.identity = self.patients.identity  # computed once, because it hashes every prompt

    def __call__(self, job: Job) -> dict[str, Any]:
        """Do a run, and return its line of the results file, or only why it has no result.

        Raises:
            MissingRepliesError: A reply to a test patient's initial prompt is missing, which every run needs.
        """
        track, name, budget, seed = job
        started = time.perf_counter()
        try:
            line = self._run(track, name, budget, seed)
        except MissingRepliesError as error:
            if track == "control" and name != RAW:
                raise
            return {_INCOMPLETE: str(error)}
        return {
            **{"agent": name, "track": track, "env": self._config.env, "budget": budget, "seed": seed},
            **{"seeded": _seeded(track, name), "identity": self.identity},
            **line,
            **{"seconds": round(time.perf_counter() - started, 1), "versions": _versions(self._config)},
        }

    def _run(self, track: str, name: str, budget: int, seed: int) -> dict[str, Any]:
        patients = self.patients
        if track == "oracle":
            return patients.oracle(name, budget, seed)
        if track == "control":
            return patients.raw_data() if name == RAW and isinstance(patients, RealPatients) else patients.control(name)
        settings = registry.settings_of(name, patients.env, self._tuned.get(name))
        return patients.inductive(registry.make(name, settings, seed), budget)


def _seeded(track: str, name: str) -> bool:
    """Return whether results depend on the seed; those of oracles always do, those of controls never."""
    return track == "oracle" or (track == "inductive" and registry.class_of(name).seeded)


def _jobs(config: BenchmarkConfig) -> Iterator[Job]:
    """Yield all runs as (track, agent, budget, seed).

    Controls come first, then one seed after another, so that an incomplete benchmark still treats agents equally.
    """
    yield from (("control", name, 0, 0) for name in CONTROLS)
    if config.raw is not None:
        yield "control", RAW, 0, 0
    for seed in range(config.seeds):
        for name in dict.fromkeys(config.agents):
            if registry.class_of(name).learns:
                yield from (("inductive", name, budget, seed) for budget in dict.fromkeys(config.budget))
            elif seed == 0 or _seeded("inductive", name):
                yield "inductive", name, 0, seed
        yield from (("oracle", name, config.oracle_budget, seed) for name in dict.fromkeys(config.oracles))


def _complete(file: Path) -> dict[Job, Any]:
    """Return the runs in a file by job, and remove an incomplete last line from it."""

    def job(line: Any) -> Job:
        identity, config = line.get("identity", {}), line["config"]
        if not isinstance(identity, dict) or not isinstance(config, dict):
            raise ValueError
        return line["track"], line["agent"], line["budget"], line["seed"]

    return complete_runs(file, job, "pmlm benchmark")


def _check_raw(config: BenchmarkConfig, runs: BenchmarkRuns, done: Mapping[Job, Any], file: Path) -> None:
    """Check that an earlier run of raw data had the same prompts; older lines do not say which they were."""
    kept = done.get(("control", RAW, 0, 0), {"config": {}})["config"].get("prompts")
    if kept is not None and isinstance(runs.patients, RealPatients) and runs.patients.raw_digest not in (None, kept):
        raise ValueError(f"{file} has a run with other raw-data prompts than {config.raw}: use those, or another --out")


def _tuned(config: BenchmarkConfig, done: Mapping[Job, Any], file: Path) -> dict[str, Any]:
    """Return the settings by agent that are not its defaults, after checking that its earlier runs had them, too."""
    agents = {} if config.tuned is None else read_tuned(config.tuned)["agents"]
    tuned = {name: found["settings"] for name, found in agents.items()}
    if config.editor is not None:
        tuned |= {name: {**tuned.get(name, {}), "editor": config.editor} for name in config.asking}
    for name in config.agents:
        settings = plain(registry.settings_of(name, config.env, tuned.get(name)))
        if any(job[:2] == ("inductive", name) and line["config"] != settings for job, line in done.items()):
            raise ValueError(f"{file} has runs of {name} with other settings: use those, or another --out")
    return tuned


def _versions(config: BenchmarkConfig) -> dict[str, str]:
    named = {"llm": config.models.llm, "encoder": config.models.encoder, "reward": config.models.reward}
    models = {name: value for name, value in named.items() if config.env == "real" and value != BERTSCORE}
    return {**versions(_PACKAGES), **models}
