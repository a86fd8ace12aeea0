"""What the tests of new patients have in common: two cohorts, a pipeline, a run, and the command that joins them."""

from __future__ import annotations

import atexit
import csv
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.traces import Trace, TraceFile
from tests.commands import pmlm
from tests.real.runs import small_bert

N_NEW = 20
PREPARE = ["--n-folds", 2, "--k", 4, "--device", "cpu"]
TRAIN = [
    "--agent", "lexicon", "--budget", 9, "--patients", 3, "--rollouts", 2, "--device", "cpu", "--n-edits", 3,
]  # fmt: skip

Rows = list[dict[str, str]]


def read_rows(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def changed(cohort: Path, folder: Path, change: Callable[[Rows, Rows], tuple[Rows, Rows]]) -> Path:
    """Write a cohort's patients and check-ups, changed, into another folder."""
    patients, checkups = change(read_rows(cohort / "patients.csv"), read_rows(cohort / "checkups.csv"))
    _write(folder / "patients.csv", patients)
    _write(folder / "checkups.csv", checkups)
    return folder


def _as_new(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
    """Give patients names of their own and a date after the last cut, and take their labels and replies away."""
    patients = [
        {**row, "patient_id": f"N{row['patient_id']}", "split_date": "2024-01-01", "label": "", "reference": ""}
        for row in patients
    ]
    return patients, [{**row, "patient_id": f"N{row['patient_id']}"} for row in checkups]


@cache
def made() -> Path:
    """Make, once, a cohort, its pipeline, a run on it, a second cohort of new patients, and both prepared as one."""
    scratch = tempfile.TemporaryDirectory()
    atexit.register(scratch.cleanup)
    folder = Path(scratch.name)
    write_cohort(simulate_cohort(60, seed=1), folder / "cohort")
    write_cohort(simulate_cohort(N_NEW, seed=2), folder / "second")
    changed(folder / "second", folder / "new", _as_new)

    def with_new(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return patients + read_rows(folder / "new" / "patients.csv"), checkups + read_rows(
            folder / "new" / "checkups.csv"
        )

    changed(folder / "cohort", folder / "both", with_new)
    for name, prepared in (("cohort", "prepared"), ("both", "prepared-both")):
        assert pmlm("prepare", "--cohort", folder / name, "--out", folder / prepared, *PREPARE) == 0
    more = ["--scorer", small_bert(), "--llm", "responder"]
    assert pmlm("train", "--episodes", folder / "prepared", "--run", folder / "run", *TRAIN, *more) == 0
    assert pmlm("publish", "--run", folder / "run", "--out", folder / "published") == 0
    return folder


def refine(work: Path, *more: object, code: int = 0, model: str = "run") -> list[Trace]:
    """Refine the new patients' prompts with the run's agent, and return what was written."""
    out = Path("out.jsonl").absolute()
    options = ["--model", work / model, "--out", out, "--device", "cpu", *more]
    cohort = [] if "--cohort" in more or "--episodes" in more else ["--cohort", work / "new"]
    assert pmlm("refine", *options, *cohort) == code
    return TraceFile(out).read() if out.exists() else []


def refused(capsys: pytest.CaptureFixture[str], work: Path, *more: object, model: str = "run") -> str:
    """What `pmlm refine` says in one line of what it refuses; nothing is written."""
    capsys.readouterr()
    assert refine(work, *more, code=2, model=model) == []
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert captured.out == ""
    return line.removeprefix("pmlm refine: ")
