"""Reading the lines of ``runs.jsonl``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from agents.report.report import ReportConfig, report
from agents.report.results import read_runs
from tests.agents.report.runs import line, write

pytestmark = pytest.mark.once


def test_of_two_lines_for_one_run_the_last_counts(tmp_path: Path) -> None:
    write(tmp_path, [line("leave-one-out", 100, mean=0.5), line("leave-one-out", 100, mean=0.25)])
    (run,) = read_runs(tmp_path)
    assert run.score == pytest.approx(0.25)


def test_a_last_line_cut_short_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [line("leave-one-out", 100)], end='{"agent": "rloo", "tra')
    with caplog.at_level(logging.WARNING):
        assert [run.agent for run in read_runs(tmp_path)] == ["leave-one-out"]
    assert f"{tmp_path / 'lite' / 'runs.jsonl'}, line 2 is incomplete, and is skipped" in caplog.text


def test_a_last_line_without_line_end_is_read_if_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path, [line("leave-one-out", 100)], end=json.dumps(line("rloo", 100)))
    assert [run.agent for run in read_runs(tmp_path)] == ["leave-one-out", "rloo"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": None}, "budget is None"),
        ({"seed": True}, "seed is True"),
        ({"track": "both"}, "'both': use one of inductive, control, oracle"),
        ({"env": "../lite"}, "env is '../lite'"),
        ({"deltas": [0.1]}, "1 deltas for 12 patients"),
        ({"deltas": [float("nan")] * 12}, "finite"),
        ({"patients": ["test-0"] * 12}, "twice"),
        ({"history": [[1, 2]]}, "history"),
        ({"claimed": "much"}, "claimed"),
        ({"metrics": {"rougeL": "high"}}, "metrics"),
        ({"metrics": {"rougeL": 0.25}}, "metrics should be an object of lists"),
        ({"metrics": {"rougeL": [0.25] * 11}}, "metrics should be an object of lists"),
        ({"metrics": {"rougeL": [float("inf")] * 12}}, "metrics should be an object of lists"),
        ({"edits": 0}, "edits is 0"),
        ({"deleted": [["word", "role"]]}, "deleted"),
        ({"deleted": [["word", "<script>", 3]]}, "deleted has the role '<script>': the roles are"),
        ({"versions": ["torch"]}, "versions"),
    ],
)
def test_a_line_that_is_wrong_is_named_with_file_and_number(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = tmp_path / "runs.jsonl"
    wrong = json.dumps({**line("leave-one-out", 100), **change})
    file.write_text(f"{json.dumps(line('leave-one-out', 100))}\n{wrong}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2: .*correct or remove the line") as caught:
        read_runs(tmp_path)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "message"), [('{"agent":', "not JSON"), ("[1]", "an object"), ("{}", "no env, track")]
)
def test_a_broken_line_before_the_last_is_refused(tmp_path: Path, broken: str, message: str) -> None:
    (tmp_path / "runs.jsonl").write_text(f"{broken}\n{json.dumps(line('leave-one-out', 100))}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"line 1: .*{message}"):
        read_runs(tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains no runs"):
        report(ReportConfig(tmp_path))
