"""The tables of new patients: what is not needed may be missing, and nothing is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import pmlm
from tests.real.new_patients import N_NEW, Rows, changed, refine
from tests.real.runs import small_bert

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages", "elsewhere")]


@pytest.mark.parametrize("missing", [{"label", "reference", "split_date"}, {"label"}, {"reference"}, {"split_date"}])
def test_columns_that_new_patients_do_not_need_may_be_missing(work: Path, tmp_path: Path, missing: set[str]) -> None:
    def without(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return [{name: cell for name, cell in row.items() if name not in missing} for row in patients], checkups

    assert refine(work, "--cohort", changed(work / "new", tmp_path / "few", without)) == refine(work)


def test_their_dates_may_be_empty_but_not_wrong(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def undated(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return [{**row, "split_date": ""} for row in patients], checkups

    assert refine(work, "--cohort", changed(work / "new", tmp_path / "undated", undated)) == refine(work)

    def wrong(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return [{**patients[0], "split_date": "yesterday"}, *patients[1:]], checkups

    cohort = changed(work / "new", tmp_path / "wrong", wrong)
    capsys.readouterr()
    assert pmlm("refine", "--model", work / "run", "--cohort", cohort) == 2
    said = capsys.readouterr().err
    assert "patients.csv, line 2, column split_date: 'yesterday'" in said
    assert "leave out the bad rows with --drop-bad-rows" in said


def test_only_what_matters_for_new_patients_is_reported(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    refine(work)
    report = [record.getMessage() for record in caplog.records if record.name == "agents.model_options"]
    (line,) = report[0].splitlines()
    assert line.startswith(f"patients: {N_NEW}, check-ups: ")


def test_a_patient_without_a_laboratory_value_is_named_once(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def without_first(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return patients, [row for row in checkups if row["patient_id"] != patients[0]["patient_id"]]

    refine(work, "--cohort", changed(work / "new", tmp_path / "without", without_first))
    assert caplog.text.count("without a laboratory value") == 1


def test_pmlm_prepare_still_needs_the_columns(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def undated(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return [{name: cell for name, cell in row.items() if name != "split_date"} for row in patients], checkups

    cohort = changed(work / "cohort", tmp_path / "undated", undated)
    assert pmlm("prepare", "--cohort", cohort) == 2
    assert "no column 'split_date'" in capsys.readouterr().err


def test_a_class_of_the_run_that_refine_does_not_use_asks_for_no_permission(work: Path, tmp_path: Path) -> None:
    train = ["--episodes", work / "prepared", "--agent", "lexicon", "--budget", 9, "--patients", 3, "--rollouts", 2]
    models = ["--reward", "tests.own_parts:LabelLength", "--scorer", small_bert(), "--llm", "responder"]
    run = tmp_path / "run"
    assert pmlm("train", *train, *models, "--run", run, "--device", "cpu", "--n-edits", 3) == 0
    assert len(refine(tmp_path, "--cohort", work / "new", "--reply")) == N_NEW


def test_a_limit_of_refine_does_not_send_its_reader_to_training(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    refine(work, "--reply", "--cache", "none.sqlite", "--max-llm-calls", 5, code=1)
    assert "the next LLM call would exceed the LLM call limit of 5" in caplog.text
    assert "raise it and run the command again" in caplog.text
    assert "pmlm train" not in caplog.text
