"""The committed report, and the tables in README and docs, match the committed runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.report.report import ReportConfig, report

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results"
LLMS = sorted(path for path in (ROOT / "benchmarks" / "llms").iterdir() if path.is_dir())
README = (ROOT / "README.md").read_text(encoding="utf-8").split("## What agents reach")[1].split("\n## ")[0]
LEARNING = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")


def tables(text: str) -> list[str]:
    """Return every table of a page, as it stands there."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ["\n".join(lines) for lines in found if lines]


def test_the_runs_give_the_report(tmp_path: Path) -> None:
    committed = (RESULTS / "report.md").read_text(encoding="utf-8")
    assert report(ReportConfig(RESULTS, tmp_path)) == committed


def test_every_table_of_agents_in_readme_is_one_of_the_report_with_the_echo_in_it() -> None:
    committed = tables((RESULTS / "report.md").read_text(encoding="utf-8"))
    shown = tables(README)
    assert len(shown) == 2
    for table in shown:
        assert table in committed
        assert "| *echo* |" in table


@pytest.mark.parametrize("folder", LLMS, ids=lambda path: path.name)
def test_the_tables_of_other_llms_are_what_their_runs_give(folder: Path, tmp_path: Path) -> None:
    assert LLMS
    made = [table for table in tables(report(ReportConfig(folder, tmp_path))) if table.startswith("| reply of |")]
    assert len(made) == 1
    assert made[0] in LEARNING
    assert "| *echo* |" in made[0]
