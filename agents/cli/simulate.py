"""Simulate a cohort: ``pmlm simulate``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pmlm_env.cohort import Cohort, write_cohort, write_parts
from pmlm_env.cohort.simulator import PART, Language, Signal, simulate_parts
from pmlm_env.cohort.sources.assembly import PATIENT_COLUMNS
from pmlm_env.cohort.sources.tables import files_of_tables
from pmlm_env.io.files import locked

#: As many characters of a table's first line are read.
_LONGEST_HEADER = 1_000


@dataclass(frozen=True)
class SimulateConfig:
    """Simulate a cohort like the paper's and write patients.csv and checkups.csv.

    Of more than 20,000 patients, the tables of each 20,000 are in a folder of their own, part-00000 and so on.

    Attributes:
        out: Output folder.
        patients: Number of patients.
        seed: Random seed; the same seed gives the same files.
        signal: ``paper``: labels are about as predictable as in the paper's Table A1, which is a design choice and not
            medical knowledge; ``literature``: only associations that published sources support.
        personal: Share of each letter's findings and advice that is about the patient's own latest values, from 0 to 1;
            above 0, the column ``personal`` of patients.csv names these values' indicators; see docs/simulator.md.
        language: Language of labels and letters: ``en``, or ``zh`` for Chinese, which also writes schema.json.
    """

    out: Path
    patients: int = 2373
    seed: int = 0
    signal: Signal = "paper"
    personal: float = 0.0
    language: Language = "en"

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: A number is out of range.
        """
        for name, least in (("patients", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}: use a whole number of at least {least}")
        if not 0 <= self.personal <= 1:
            raise ValueError(f"--personal is {self.personal:g}: use a number from 0 to 1")


Config = SimulateConfig


def run(config: SimulateConfig) -> int:
    """Simulate a cohort and write it.

    Raises:
        ValueError: Another command uses ``out``, ``out`` is a file, or it has tables that are not simulated.
    """
    parts = simulate_parts(config.patients, config.seed, config.signal, config.personal, config.language)
    with locked(config.out):
        if config.patients > PART:
            _, n_checkups = write_parts(parts, config.out)
        else:
            cohort = next(parts)
            _check_replaceable(config.out, cohort)
            write_cohort(cohort, config.out)
            n_checkups = cohort.n_checkups
    print(f"{config.patients} simulated patients with {n_checkups} check-ups are in {config.out}")
    return 0


def _check_replaceable(folder: Path, cohort: Cohort) -> None:
    """Check that the tables in a folder, if there are any, are those of an earlier simulated cohort.

    Raises:
        ValueError: They are not, and would be replaced.
    """
    tables, header = {*files_of_tables(folder)}, ""
    with suppress(OSError, UnicodeError), (folder / "patients.csv").open(encoding="utf-8") as file:
        header = file.readline(_LONGEST_HEADER).strip()
    ours = [*PATIENT_COLUMNS, *(name for name in cohort[0].extra if name != "personal")]
    if tables and (tables - {"patients.csv", "checkups.csv"} or header.split(",")[: len(ours)] != ours):
        raise ValueError(f"{folder} has tables that `pmlm simulate` did not write: choose another folder with --out")
