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
        out: The folder to write.
        patients: How many women.
        seed: The same seed gives the same files.
        signal: ``paper``: labels about as predictable as in the paper's Table A1, a choice, not medicine;
            ``literature``: only what published sources support.
    """

    out: Path
    patients: int = 2373
    seed: int = 0
    signal: Signal = "paper"


Config = SimulateConfig


def run(config: SimulateConfig) -> int:
    """Simulate a cohort and write it.

    Raises:
        ValueError: Another command uses ``out``, or it is a file.
    """
    with locked(config.out):
        cohort = simulate_cohort(config.patients, seed=config.seed, signal=config.signal)
        write_cohort(cohort, config.out)
    print(f"{len(cohort)} simulated women with {cohort.n_checkups} check-ups are in {config.out}")
    return 0
