"""Fit agents within equal budgets, judge them on held-out patients: ``pmlm benchmark``."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents.baselines import SEARCHES
from agents.benchmark.held_out import Ground, RealGround, check_env, check_identity, ground
from agents.evaluation.controls import CONTROLS
from agents.model_options import CallOptions, ModelOptions
from agents.registry import AGENTS, UNSEEDED, UNTRAINED, BenchmarkEnv
from agents.settings import made, plain, read_tuned
from pmlm_env.io.files import append, locked, write

_PACKAGES = ("pmlm-env", "torch", "transformers", "gymnasium", "numpy", "stable-baselines3", "sb3-contrib")


@dataclass(frozen=True)
class BenchmarkConfig:
    """Run agents with equal budgets on equal patients, and append a line for each run to OUT/ENV/runs.jsonl.

    What is there already is not run again, so that a benchmark that was stopped goes on. Every benchmark has the
    zero-call controls beside the agents: what replies score that need no LLM. The file names the test patients with
    each one's figures, and words deleted from three or more of their prompts; no prompt, no reply.

    Attributes:
        agents: Which; all of the inductive ones by default. Names: see ``agents/registry.py``.
        oracles: Searches of each test patient with her own reference, kept apart: names of
            ``agents.baselines.SEARCHES``.
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
        models: With ``real``.
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
        """Check the names.

        Raises:
            ValueError: There is no agent or search of that name, or a number is not positive.
        """
        for names, known in ((self.agents, AGENTS), (self.oracles, SEARCHES)):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"there is no agent {unknown[0]!r}: use some of {', '.join(known)}")
        if min(self.seeds, self.oracle_budget, *self.budget) < 1:
            raise ValueError("seeds, budget and oracle-budget must be 1 or more")
        check_env(self)


def benchmark(config: BenchmarkConfig) -> Path:
    """Run what is not there yet, and return the file of results.

    Raises:
        ValueError: The episodes, or the file of tuned settings, are not as they should be, or the results have runs
            with other episodes or models, or of an agent with other settings.
        BudgetExceededError: A limit in ``calls`` is reached; what is complete is kept.
    """
    with locked(config.out / config.env):
        return _benchmark(config, config.out / config.env / "runs.jsonl")


def _benchmark(config: BenchmarkConfig, file: Path) -> Path:
    """Run what is not there yet, into a file that is this process's own."""
    done = _complete(file)
    jobs = [job for job in _jobs(config) if job not in done]
    tuned = _tuned(config, done, file)
    place = ground(config.env, "test", config.episodes, config.run, config.models, config.calls, config.raw)
    identity = place.identity  # hashes every prompt: once is enough
    for line in done.values():
        check_identity(file, line.get("ground", {}), identity)
    with place.working(), tqdm(jobs, unit="run", dynamic_ncols=True) as bar:
        for track, name, budget, seed in bar:
            bar.set_postfix_str(f"{name}, {budget} calls, seed {seed}")
            started = time.perf_counter()
            line = _run(place, track, name, budget, seed, tuned)
            place.write_spent()
            head = {"agent": name, "track": track, "env": config.env, "budget": budget, "seed": seed}
            head |= {"seeded": track != "control" and name not in UNSEEDED, "ground": identity}
            tail = {"seconds": round(time.perf_counter() - started, 1), "versions": _versions(config)}
            append(file, json.dumps({**head, **line, **tail}, ensure_ascii=False))
    print(f"{len(jobs)} runs, {len(done)} were there before; results are in {file}. Next: pmlm report {config.out}")
    return file


#: The row of replies to untouched raw-data prompts.
_RAW = "raw-data"


def _run(place: Ground, track: str, name: str, budget: int, seed: int, tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Do one run and return what its line says of it."""
    if track == "oracle":
        return place.oracle(name, budget, seed)
    if track == "control":
        return place.raw_data() if name == _RAW and isinstance(place, RealGround) else place.control(name)
    return place.inductive(made(name, place.env, seed, tuned.get(name, {})), budget)


def _jobs(config: BenchmarkConfig) -> Iterator[tuple[str, str, int, int]]:
    """Name all runs: track, agent, budget, seed; controls first, then seed by seed, so that a part is fair to all."""
    yield from (("control", name, 0, 0) for name in CONTROLS)
    if config.raw is not None:
        yield "control", _RAW, 0, 0
    for seed in range(config.seeds):
        for name in config.agents:
            if name not in UNTRAINED:
                yield from (("inductive", name, budget, seed) for budget in config.budget)
            elif seed == 0 or name not in UNSEEDED:
                yield "inductive", name, 0, seed
        yield from (("oracle", name, config.oracle_budget, seed) for name in config.oracles)


def _complete(file: Path) -> dict[tuple[str, str, int, int], Any]:
    """Return the runs that a file has, and cut off a last line that was not written to its end."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write(file, whole)
    done = {}
    for number, text in enumerate(whole.split("\n")[:-1], start=1):
        try:
            line = json.loads(text)
            done[line["track"], line["agent"], line["budget"], line["seed"]] = line
            ground, config = line.get("ground", {}), line["config"]
            if not isinstance(ground, dict) or not isinstance(config, dict):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(
                f"{file}, line {number} is not what `pmlm benchmark` writes: restore the file from a copy, or take the "
                "line out, and its run is done again"
            ) from None
    return done


def _tuned(config: BenchmarkConfig, done: Mapping[tuple[str, str, int, int], Any], file: Path) -> dict[str, Any]:
    """Return the tuned settings by agent, once it is sure that earlier runs of our agents had the settings of now."""
    agents = {} if config.tuned is None else read_tuned(config.tuned)["agents"]
    tuned = {name: found["settings"] for name, found in agents.items()}
    for name in config.agents:
        settings = plain(made(name, config.env, 0, tuned.get(name, {})).config)
        if any(job[:2] == ("inductive", name) and line["config"] != settings for job, line in done.items()):
            raise ValueError(f"{file} has runs of {name} with other settings than those of now: choose another --out")
    return tuned


def _versions(config: BenchmarkConfig) -> dict[str, str]:
    installed = {}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    models = {"llm": config.models.llm, "encoder": config.models.encoder} if config.env == "real" else {}
    machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
    return {**machine, **installed, **models}
