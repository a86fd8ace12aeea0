"""Show evaluated or refined patients in the terminal: ``pmlm show``."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.run_folder import RunFolder
from agents.serving.config import OUT
from agents.settings import refuse_idle
from pmlm_env.cohort.wording import bare, suggestion
from pmlm_env.io.text import printable

if TYPE_CHECKING:
    from agents.report.patients import ByVariant

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShowConfig:
    """Show what a run's agent did to a patient's prompt: deleted words, replies before and after, reference, scores.

    All of it comes from what ``pmlm evaluate`` and ``pmlm refine`` have written: nothing is loaded or asked. It
    contains texts of patients, so it must not leave the machine.

    Attributes:
        run: The run folder. Beside its evaluated patients, those whom its agent refined into ``refined.jsonl`` in the
            current folder are found, too.
        refined: Instead of a run, a file that ``pmlm refine`` wrote, whose patients have no scores.
        patient: The patient's ID; without it, all patients are listed, evaluated ones with the change of their score.
            Of a patient who was evaluated several times, the newest evaluation is shown.
    """

    run: Path = Path("runs/train")
    refined: Path | None = None
    patient: str | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: There is a run and a file.
        """
        if self.refined is not None:
            refuse_idle(self, {"run": "--refined names the file whose patients are shown"})


Config = ShowConfig


@dataclass(frozen=True)
class _Patients:
    """What there is to show.

    Attributes:
        evaluated: The traces of evaluated patients.
        refined: Those of patients whose prompts were refined and not scored.
        in_points: Whether the run's reward is a fraction, and is shown in points.
        where: The file that has them.
        list_all: The command that lists them.
    """

    evaluated: Mapping[str, ByVariant]
    refined: Mapping[str, ByVariant]
    in_points: bool
    where: Path
    list_all: str


def run(config: ShowConfig) -> int:
    """List the patients, or show one.

    Raises:
        ValueError: The folder contains no run, no patient was evaluated or refined, a file is damaged, or there is no
            such patient.
    """
    found = _of_run(config.run) if config.refined is None else _of_file(config.refined)
    if config.patient is None:
        print(_listed(found))
        print(f"\nOne patient, with prompt and replies: {found.list_all} --patient ID")
    else:
        print(_shown(found, config.patient))
    return 0


def _of_run(path: Path) -> _Patients:
    """Read the patients of a run, and those whom its agent refined."""
    from agents.report.patients import newest_traces, refined_traces
    from pmlm_env.rewards.registry import REWARDS

    folder = RunFolder(path)
    in_points = folder.settings()["models"].get("reward") in REWARDS.builtin
    evaluated, refined = newest_traces(folder.traces), {}
    try:
        refined = refined_traces(OUT, run=folder.path.resolve().name)
    except ValueError as error:  # nobody has asked for this file
        logger.warning("%s", error)
    if not evaluated and not refined:
        raise ValueError(f"{path} has no traces: evaluate it first with `pmlm evaluate --run {path}`")
    return _Patients(evaluated, refined, in_points, folder.traces.path, f"pmlm show --run {shlex.quote(str(path))}")


def _of_file(path: Path) -> _Patients:
    """Read the patients of a file of ``pmlm refine``."""
    from agents.report.patients import refined_traces

    if not (refined := refined_traces(path)):
        raise ValueError(f"{path} has no patient: name a file that `pmlm refine` wrote")
    return _Patients({}, refined, True, path, f"pmlm show --refined {shlex.quote(str(path))}")


def _listed(found: _Patients) -> str:
    """Return the tables of evaluated and of refined patients, and which rule the agent follows."""
    from agents.evaluation.variants import AGENT
    from agents.report.patients import list_patients
    from agents.serving.table import table

    parts = []
    if found.evaluated:
        parts += [list_patients(found.evaluated, found.in_points), *_rules(found)]
    if found.refined:
        traces = [variants[AGENT] for variants in found.refined.values()]
        with_replies = any(trace.replies or trace.error for trace in traces)
        parts.append(f"Refined and not scored: {len(traces)} patients\n\n{table(traces, with_replies)}")
    return "\n\n".join(parts)


def _shown(found: _Patients, patient: str) -> str:
    """Return one patient, and which rule the agent follows.

    Raises:
        ValueError: There is no such patient.
    """
    from agents.report.patients import show_patient

    everybody = {**found.refined, **found.evaluated}
    if patient not in everybody:
        close = suggestion(patient, everybody)
        listed = f"`{found.list_all}` lists all {len(everybody)}"
        if not found.refined:
            listed += "; patients that `pmlm refine` added are in the file that it wrote: name it with --refined"
        raise ValueError(f"{found.where} has no patient {bare(patient)}{close}: {listed}")
    rules = _rules(found) if patient in found.evaluated else []
    return "\n\n".join([show_patient(everybody[patient], found.in_points), *rules])


def _rules(found: _Patients) -> list[str]:
    from agents.evaluation.rules import rule_lines

    return [printable(line) for line in rule_lines(t for each in found.evaluated.values() for t in each.values())]
