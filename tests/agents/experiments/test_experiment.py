"""``pmlm experiment``: names, options, interrupted and repeated runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agents.experiments import EXPERIMENTS
from pmlm_env.io.files import locked
from tests.commands import pmlm

pytestmark = pytest.mark.once

SLEEPY = "tests.agents.experiments.sleepy:Sleepy"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two complete runs; not to be changed."""
    out = tmp_path_factory.mktemp("runs")
    assert pmlm("experiment", SLEEPY, "--out", out, "--nap", 0) == 0
    return out / "sleepy"


@pytest.fixture
def done(two_runs: Path, tmp_path: Path) -> Path:
    """A folder with two complete runs."""
    return shutil.copytree(two_runs, tmp_path / "sleepy")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def test_each_run_has_a_line_with_what_it_was_and_found_and_what_it_ran_on(done: Path) -> None:
    assert [line["cell"] for line in lines(done)] == [{"seed": 0}, {"seed": 1}]
    for line in lines(done):
        assert line["result"] == {"slept": 0.0}
        assert line["seconds"] > 0
        assert line["versions"].keys() == {"machine", "python", "numpy"}
    assert (done / "table.md").read_text() == "2 naps\n"


def test_complete_runs_are_not_repeated_and_a_torn_one_is(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (done / "runs.jsonl").read_bytes()
    assert pmlm("experiment", SLEEPY, "--out", done.parent, "--nap", 0) == 0
    assert (done / "runs.jsonl").read_bytes() == whole
    assert "new runs: 0, earlier ones: 2" in capsys.readouterr().out
    (done / "runs.jsonl").write_bytes(whole[:-30])
    assert pmlm("experiment", SLEEPY, "--out", done.parent, "--nap", 0) == 0
    assert "new runs: 1, earlier ones: 1" in capsys.readouterr().out
    assert [line["cell"] for line in lines(done)] == [{"seed": 0}, {"seed": 1}]


def test_runs_of_another_llm_are_missing_unless_they_do_not_say_which_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*more: object, **identity: str) -> str:
        cells = [{"seed": 0, "models": {"llm": "a", **identity}}]
        monkeypatch.setattr("tests.agents.experiments.sleepy.Sleepy.cells", lambda self: cells)
        assert pmlm("experiment", SLEEPY, "--out", tmp_path, "--nap", 0, *more) == 0
        return re.findall(r"^(?:missing|new) runs: (\d+)", capsys.readouterr().out, re.MULTILINE)[0]

    assert [missing(), missing(llm_identity="1"), missing("--dry-run", llm_identity="2")] == ["1", "0", "0"]
    shutil.rmtree(tmp_path / "sleepy")
    assert [missing(llm_identity="1"), missing(llm_identity="1"), missing(llm_identity="2")] == ["1", "0", "1"]


def test_a_dry_run_names_the_missing_runs_and_does_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("experiment", SLEEPY, "--out", tmp_path, "--dry-run") == 0
    assert capsys.readouterr().out == '{"seed": 0}\n{"seed": 1}\nmissing runs: 2, complete ones: 0\n'
    assert not (tmp_path / "sleepy").exists()


def test_a_dry_run_says_once_what_all_missing_runs_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("experiment", "figure-7", "--quick", "--llm", "responder", "--out", tmp_path, "--dry-run") == 0
    *runs, shared = [line for line in capsys.readouterr().out.splitlines() if "{" in line]
    assert shared.startswith('all of them: {"models": {')
    shared = json.loads(shared.removeprefix("all of them: "))
    assert shared["models"]["llm"] == "responder"
    for cell in map(json.loads, runs):
        assert "llm" not in cell["models"]
        assert cell["models"]["n_edits"] == cell["n"]


def test_a_line_that_no_experiment_wrote_is_named(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (done / "runs.jsonl").open("a") as file:
        file.write('{"agent": "lexicon"}\n')
    assert pmlm("experiment", SLEEPY, "--out", done.parent) == 2
    assert capsys.readouterr().err == (
        f"pmlm experiment: {done / 'runs.jsonl'}, line 3 was not written by `pmlm experiment sleepy`: restore the file "
        "from a copy, or remove the line, and its run will be repeated\n"
    )


@pytest.mark.parametrize("line", ['{"cell": {"seed": 7}}', '{"cell": "x", "result": {}}', "[1]"])
def test_a_line_without_a_cell_or_a_result_is_named(done: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    with (done / "runs.jsonl").open("a") as file:
        file.write(f"{line}\n")
    assert pmlm("experiment", SLEEPY, "--out", done.parent) == 2
    assert "runs.jsonl, line 3 was not written by `pmlm experiment sleepy`" in capsys.readouterr().err


def test_a_result_from_which_no_table_can_be_made_is_one_line_and_nothing_is_lost(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (done / "runs.jsonl").open("a") as file:
        file.write('{"cell": {"seed": 7}, "result": {}}\n')
    before = (done / "runs.jsonl").read_bytes()
    assert pmlm("experiment", SLEEPY, "--out", done.parent) == 2
    assert "runs.jsonl has a run from which no table can be made (KeyError: 'slept'): remove" in capsys.readouterr().err
    assert (done / "runs.jsonl").read_bytes() == before
    assert (done / "table.md").read_text() == "2 naps\n"


def test_two_commands_do_not_write_into_one_folder(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "agents.cli.main", "experiment", SLEEPY, "--out", str(done.parent)]
    with locked(done):
        other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert (
        other.stderr == f"pmlm experiment: {done} is in use by another pmlm command: wait until it ends, or stop it\n"
    )


def _ended_while_it_sleeps(folder: Path, number: int) -> tuple[int, str]:
    """Run the experiment until its second run, and return its exit code and what it said when it got a signal."""
    command = [sys.executable, "-m", "agents.cli.main", "experiment", SLEEPY, "--out", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 120
        while not (folder / "pid").exists() or not (folder / "pid").read_text():
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)  # until no process has the pipe
    return process.returncode, said


def test_a_command_that_is_killed_keeps_complete_runs_and_leaves_no_process(tmp_path: Path) -> None:
    assert _ended_while_it_sleeps(tmp_path, signal.SIGKILL)[0] == -signal.SIGKILL
    assert [line["cell"] for line in lines(tmp_path / "sleepy")] == [{"seed": 0}]


def test_a_command_that_is_ended_loses_the_run_in_progress_alone_and_leaves_no_process(tmp_path: Path) -> None:
    code, said = _ended_while_it_sleeps(tmp_path, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == (
        "pmlm experiment: stopped by SIGTERM; complete runs are kept: run the command again to continue"
    )
    assert [line["cell"] for line in lines(tmp_path / "sleepy")] == [{"seed": 0}]
    assert (tmp_path / "sleepy" / "table.md").read_text() == "1 naps\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_names_of_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("experiment", "--help") == 0
    assert "table-a1   The paper's Table A1:" in capsys.readouterr().out
    assert pmlm("experiment", "table-7") == 2
    known = ", ".join(EXPERIMENTS.names())
    assert capsys.readouterr().err == f"pmlm experiment: there is no 'table-7': use one of {known}\n"
    assert known.startswith("table-1, table-2, table-3, table-a1, figure-6, figure-7, cases, controls, transfer, ")


def test_help_shows_the_options_of_that_experiment_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("experiment", SLEEPY, "--help") == 0
    shown = capsys.readouterr().out
    assert "--nap" in shown
    assert "--quick" in shown
    assert "--rows" not in shown


def test_a_class_that_is_no_experiment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("experiment", "pathlib:Path", "--out", "x") == 2
    assert capsys.readouterr().err.startswith("pmlm experiment: the experiment pathlib:Path lacks cells, run, table")


def test_the_experiment_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert "\npmlm experiment mine:LearningCurve --quick\n" in page
    assert pmlm("experiment", "mine:LearningCurve", "--quick") == 0
    assert "new runs: 2" in capsys.readouterr().out
    table = (tmp_path / "results" / "learning-curve" / "table.md").read_text()
    few, more = (float(line.split(" | ")[2].rstrip(" |")) for line in table.splitlines()[2:])
    assert 40 < few < more < 90
