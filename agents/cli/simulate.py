"""Simulate a cohort: ``pmlm simulate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.simulator import Signal, simulate_cohort
from pmlm_env.io.files import locked


@dataclass(frozen=True)
class SimulateConfig:
    """Simulate a cohort like the paper's and write patients.csv and checkups.csv.

    Attributes:
        out: Output folder.
        patients: Number of patients.
        seed: Random seed; the same seed gives the same files.
        signal: ``paper``: labels are about as predictable as in the paper's Table A1, which is a design choice and not
            medical knowledge; ``literature``: only associations that published sources support.
    """

    out: Path
    patients: int = 2373
    seed: int = 0
    signal: Signal = "paper"


Config = SimulateConfig


def run(config: SimulateConfig) -> int:
    """Simulate a cohort and write it.

    Raises:
        ValueError: Another command uses ``out``, or ``out`` is a file.
    """
    with locked(config.out):
        cohort = simulate_cohort(config.patients, seed=config.seed, signal=config.signal)
        write_cohort(cohort, config.out)
    print(f"{len(cohort)} simulated patients with {cohort.n_checkups} check-ups are in {config.out}")
    return 0
