"""Patients without a label or a reply, through the command line: refined, and neither trained nor judged on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from agents.run_folder import RunFolder
from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from tests.commands import pmlm
from tests.real.runs import small_bert

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages")]

TRAIN = [
    "--agent", "lexicon", "--budget", 9, "--patients", 3, "--rollouts", 2, "--llm", "responder", "--device", "cpu",
    "--n-edits", 3,
]  # fmt: skip


def _pmlm(command: str, *arguments: object) -> None:
    assert pmlm(command, *arguments) == 0


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a cohort in which some training and test patients lack their label or reply."""
    folder = tmp_path_factory.mktemp("new")
    write_cohort(simulate_cohort(60, seed=1), folder)
    with (folder / "patients.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for part in (
        [r for r in rows if r["split_date"] <= "2021-12-31"],
        [r for r in rows if r["split_date"] > "2022-06-30"],
    ):
        part[0]["label"] = part[1]["reference"] = ""
        part[2]["label"] = part[2]["reference"] = ""
    with (folder / "patients.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    _pmlm("prepare", "--cohort", folder, "--out", folder / "prepared", "--n-folds", 2, "--k", 2)
    _pmlm("train", "--episodes", folder / "prepared", "--run", folder / "run", "--scorer", small_bert(), *TRAIN)
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
def test_everybody_gets_a_refined_prompt(work: Path, split: str) -> None:
    out = work / f"{split}.jsonl"
    options = ["--episodes", work / "prepared", "--split", split, "--out", out]
    _pmlm("refine", "--model", work / "run" / "checkpoint", *options)
    refined = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
    theirs = [e for e in EpisodeSet.load(work / "prepared") if e.split == split]
    assert [line["patient_id"] for line in refined] == [e.patient_id for e in theirs]
    assert sum(not (e.label and e.reference) for e in theirs) == 3
    assert all(len(line["edits"]) == 3 for line in refined)


def test_the_evaluation_counts_who_cannot_be_judged(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    _pmlm("evaluate", "--run", work / "run")
    printed = capsys.readouterr().out
    evaluation = json.loads((work / "run" / "evaluation.json").read_text(encoding="utf-8"))
    everybody = [e for e in EpisodeSet.load(work / "prepared") if e.split == "test"]
    assert evaluation["without_label_or_reference"] == 3
    assert evaluation["n_patients"] == len(everybody) - 3
    assert "3 test patients without a label or a doctor's reply are not in this table." in printed
    assert all(trace.label and trace.reference for trace in RunFolder(work / "run").traces.read())
