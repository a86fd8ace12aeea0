"""Read the benchmark's ``runs.jsonl``: one line for each run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from agents.benchmark.config import differences
from agents.registry import NAME
from pmlm_env.core.words import Role

Track = Literal["inductive", "control", "oracle"]

_log = logging.getLogger(__name__)

_RUNS = "runs.jsonl"


@dataclass(frozen=True, slots=True)
class Run:
    """One agent's run with one seed.

    Attributes:
        env: The environment.
        track: "inductive" if test patients' references are never read, "control" if there is no agent either,
            or "oracle" if edits are searched with the reference.
        agent: Name of the agent or control.
        budget: Maximum number of completions; 0 = the agent does not learn, so its run counts for every budget.
        seed: The seed.
        calls: Number of completions requested.
        patients: IDs of the test patients.
        deltas: Change of F1 for each test patient, as a fraction.
        history: For each batch on training patients: calls so far, episodes, mean delta.
        claimed: Mean delta found during an oracle's search, before finalists were scored with new replies.
        metrics: Metrics of the replies, one value per test patient; NaN where undefined.
        deleted: Words most often deleted: word, role, count.
        edits: Number of different ways in which prompts were edited; None if unknown.
        versions: The machine and the versions of installed packages.
        identity: The episodes, and the models with their settings.
        seeded: Whether the result may depend on the seed.
        failed: Number of episodes that were left out of fitting or searching because they got no reply.
    """

    env: str
    track: Track
    agent: str
    budget: int
    seed: int
    calls: int
    patients: tuple[str, ...]
    deltas: tuple[float, ...]
    history: tuple[tuple[float, float, float], ...]
    claimed: float | None
    metrics: dict[str, tuple[float, ...]]
    deleted: tuple[tuple[str, str, int], ...]
    edits: int | None
    versions: dict[str, str]
    identity: dict[str, Any]
    seeded: bool
    failed: int

    @property
    def score(self) -> float:
        """Mean delta over test patients."""
        return float(np.mean(self.deltas))


class Runs:
    """The runs of one environment: agents and zero-call controls, or oracles.

    Args:
        runs: The runs.

    Attributes:
        agents: Names of agents and controls, sorted.
        controls: Names of the controls.
        budgets: Budgets in ascending order; 0 is included only if there is no other.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        """Sort the runs by agent, budget and seed.

        Raises:
            ValueError: There are agents, but the echo control is missing, without which an agent's gain means little;
                or agents' runs have metrics and the echo has none.
        """
        runs = sorted(runs, key=lambda run: (run.agent, run.budget, run.seed))
        controls = {run.agent: run for run in runs if run.track == "control"}
        self.controls = {*controls}
        inductive = [run for run in runs if run.track == "inductive"]
        if inductive and "echo" not in controls:
            raise ValueError(
                f"the runs of {runs[0].env} have no echo (the untouched prompt as the reply) beside the agents: run "
                "`pmlm benchmark` with the same settings and --out again, which adds the controls without an LLM call"
            )
        if any(run.metrics for run in inductive) and not controls["echo"].metrics:
            raise ValueError(
                f"the echo in the runs of {runs[0].env} has no metrics, and agents have: remove its line and run "
                "`pmlm benchmark` again"
            )
        self._runs: dict[tuple[str, int], dict[int, Run]] = {}
        for run in runs:
            self._runs.setdefault((run.agent, run.budget), {})[run.seed] = run
        self.agents = sorted({agent for agent, _ in self._runs})
        self.budgets = sorted({budget for _, budget in self._runs if budget}) or [0]

    def of(self, agent: str, budget: int) -> dict[int, Run]:
        """Return an agent's runs with this budget, by seed; its runs without a budget if it does not learn."""
        return self._runs.get((agent, budget)) or self._runs.get((agent, 0), {})

    def last(self, agent: str) -> dict[int, Run]:
        """Return an agent's runs with its largest budget, by seed."""
        return self.of(agent, self.largest(agent))

    def largest(self, agent: str) -> int:
        """Return the largest budget of an agent's runs; 0 if it does not learn, or has none."""
        return max(self.budgets_of(agent), default=0)

    def budgets_of(self, agent: str) -> list[int]:
        """Return the budgets of an agent's runs in ascending order; none if it does not learn."""
        return sorted(budget for name, budget in self._runs if name == agent and budget)

    def learns(self, agent: str) -> bool:
        """Return whether an agent has runs with a nonzero budget."""
        return bool(self.budgets_of(agent))

    def scores(self, agent: str) -> npt.NDArray[np.float64]:
        """Return the scores of an agent's runs with the largest budget, (runs,); empty if it has none."""
        return np.array([run.score for run in self.of(agent, self.budgets[-1]).values()])


def experiment_tables(folder: Path) -> list[Path]:
    """Return the tables of the experiments in a folder and its subfolders."""
    return sorted(path for path in folder.rglob("table.md") if path.with_name(_RUNS).is_file())


def run_files(folder: Path) -> list[Path]:
    """Return every ``runs.jsonl`` of a benchmark in a folder and its subfolders; an experiment's has a table beside."""
    return sorted(path for path in folder.rglob(_RUNS) if not path.with_name("table.md").is_file())


def read_runs(folder: Path) -> list[Run]:
    """Read every ``runs.jsonl`` of a benchmark in a folder and its subfolders.

    If two lines of a file have the same env, track, agent, budget and seed, the later one is used. An incomplete last
    line, as in a file that is being written, is skipped with a warning.

    Raises:
        ValueError: There are no runs, a line is invalid, or files cannot be combined: two have the same run, or
            different patients or models in the same env.
    """
    found: dict[tuple[Any, ...], Run] = {}
    files: dict[tuple[Any, ...], Path] = {}
    identities: dict[str, tuple[Any, Path]] = {}
    for path in run_files(folder):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                run = _run(_object(line))
            except _NotJSONError as error:
                if number == len(lines):  # no newline: it is still being written, or writing was interrupted
                    _log.warning("%s, line %d is incomplete, and is skipped", path, number)
                    continue
                raise ValueError(f"{path}, line {number}: {error}: correct or remove the line") from None
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}: correct or remove the line") from None
            key = (run.env, run.track, run.agent, run.budget, run.seed)
            if files.setdefault(key, path) != path:
                same = f"{run.agent} with {run.budget} calls and seed {run.seed}"
                raise ValueError(f"{files[key]} and {path} both have {same}: make a report of each folder")
            identity, where = identities.setdefault(run.env, (run.identity, path))
            if differences(identity, run.identity):
                raise ValueError(
                    f"{path}, line {number} has other episodes or models than {where}: make a report of each folder"
                )
            found[key] = run
    if not found:
        raise ValueError(f"{folder} contains no runs: name the folder where `pmlm benchmark` wrote runs.jsonl")
    return list(found.values())


class _NotJSONError(ValueError):
    pass


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise _NotJSONError("it is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("it should be an object")
    return value


def _run(line: dict[str, Any]) -> Run:
    missing = [name for name in _NEEDED if name not in line]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    env, track, agent = (_name(line, key) for key in ("env", "track", "agent"))
    if track not in get_args(Track):
        raise ValueError(f"track is {track!r}: use one of {', '.join(get_args(Track))}")
    budget, seed, calls = (_count(line, key) for key in ("budget", "seed", "calls"))
    patients, deltas = line["patients"], line["deltas"]
    if not isinstance(patients, list) or not patients or not all(isinstance(patient, str) for patient in patients):
        raise ValueError("patients should be a list of names, one or more")
    if len(set(patients)) < len(patients):
        raise ValueError("patients has the same name twice")
    if not isinstance(deltas, list) or not all(map(_is_number, deltas)):
        raise ValueError("deltas should be a list of finite numbers")
    if len(deltas) != len(patients):
        raise ValueError(f"it has {len(deltas)} deltas for {len(patients)} patients: use one for each")
    history = line.get("history") or []
    if not isinstance(history, list) or not all(_is_row(row, 3) and all(map(_is_number, row)) for row in history):
        raise ValueError("history should be a list of [calls, episodes, mean delta]")
    claimed = line.get("claimed")
    if claimed is not None and not _is_number(claimed):
        raise ValueError(f"claimed is {claimed!r}: use a finite number or null")
    metrics = line.get("metrics") or {}
    if not isinstance(metrics, dict) or not all(_is_column(column, len(patients)) for column in metrics.values()):
        raise ValueError("metrics should be an object of lists, each with a finite number or null for every patient")
    edits = line.get("edits")
    if edits is not None and (not isinstance(edits, int) or isinstance(edits, bool) or edits < 1):
        raise ValueError(f"edits is {edits!r}: use a whole number of 1 or more, or null")
    deleted = line.get("deleted") or []
    if not isinstance(deleted, list) or not all(_is_row(row, 3) and _is_number(row[2]) for row in deleted):
        raise ValueError("deleted should be a list of [word, role, times]")
    if wrong := [role for _, role, _ in deleted if role not in get_args(Role)]:
        raise ValueError(f"deleted has the role {wrong[0]!r}: the roles are {', '.join(get_args(Role))}")
    versions, identity = line.get("versions") or {}, line.get("identity") or {}
    if not isinstance(versions, dict) or not isinstance(identity, dict):
        raise ValueError("versions and identity should be objects")
    return Run(
        env=env,
        track=track,  # type: ignore[arg-type]
        agent=agent,
        budget=budget,
        seed=seed,
        calls=calls,
        patients=tuple(patients),
        deltas=tuple(map(float, deltas)),
        history=tuple((float(calls), float(episodes), float(delta)) for calls, episodes, delta in history),
        claimed=claimed,
        metrics={name: tuple(math.nan if v is None else float(v) for v in values) for name, values in metrics.items()},
        deleted=tuple((str(word), str(role), int(times)) for word, role, times in deleted),
        edits=edits,
        versions={name: str(version) for name, version in versions.items()},
        identity=identity,
        seeded=line.get("seeded", True) is not False,
        failed=_count(line, "failed") if "failed" in line else 0,
    )


_NEEDED = ("env", "track", "agent", "budget", "seed", "calls", "patients", "deltas")


def _name(line: dict[str, Any], key: str) -> str:
    in_file_names = key == "env"  # of figures; other systems than Linux allow no ":" there
    if not isinstance(line[key], str) or not NAME.fullmatch(line[key]) or (in_file_names and ":" in line[key]):
        raise ValueError(f"{key} is {line[key]!r}: use letters, digits, spaces and any of _.,=+()-")
    return line[key]


def _count(line: dict[str, Any], key: str) -> int:
    if not isinstance(line[key], int) or isinstance(line[key], bool) or line[key] < 0:
        raise ValueError(f"{key} is {line[key]!r}: use a whole number of 0 or more")
    return line[key]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_column(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(v is None or _is_number(v) for v in value)


def _is_row(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length
