"""Show evaluated patients in the terminal: ``pmlm show``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from agents.run_folder import RunFolder
from pmlm_env.cohort.wording import bare, suggestion


@dataclass(frozen=True)
class ShowConfig:
    """Show what a run's agent did to a patient's prompt: deleted words, replies before and after, reference, scores.

    All of it comes from the traces that ``pmlm evaluate`` has written: nothing is loaded or asked. It contains texts of
    patients, so it must not leave the machine.

    Attributes:
        run: The run folder.
        patient: The patient's ID; without it, all evaluated patients are listed with the change of their score. Of a
            patient who was evaluated several times, the newest evaluation is shown.
    """

    run: Path = Path("runs/train")
    patient: str | None = None


Config = ShowConfig


def run(config: ShowConfig) -> int:
    """List the patients, or show one.

    Raises:
        ValueError: The folder contains no run, the run was not evaluated, its traces are damaged, or there is no such
            patient.
    """
    from agents.report.patients import list_patients, newest_traces, show_patient
    from pmlm_env.rewards.registry import REWARDS

    folder = RunFolder(config.run)
    in_points = folder.settings()["models"].get("reward") in REWARDS.builtin
    patients = newest_traces(folder.traces)
    if not patients:
        raise ValueError(f"{config.run} has no traces: evaluate it first with `pmlm evaluate --run {config.run}`")
    list_all = f"pmlm show --run {shlex.quote(str(config.run))}"
    if config.patient is None:
        print(list_patients(patients, in_points))
        print(f"\nOne patient, with prompt and replies: {list_all} --patient ID")
        return 0
    if config.patient not in patients:
        close = suggestion(config.patient, patients)
        raise ValueError(
            f"{folder.traces.path} has no patient {bare(config.patient)}{close}: `{list_all}` lists all {len(patients)}"
        )
    print(show_patient(patients[config.patient], in_points))
    return 0
