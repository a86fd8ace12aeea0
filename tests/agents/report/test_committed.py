"""The report in the repository, and README's numbers, are those of the runs beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agents.report.report import ReportConfig, report

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results"
COMMITTED = (RESULTS / "report.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
INTERVAL = re.compile(r"[+-]\d+\.\d\d \[[^]]+\](?: ▼)?")
NAME = re.compile(r"\| \W*([a-z][a-z0-9-]*)\W")


def rows(text: str) -> dict[str, list[str]]:
    """Return each agent's intervals, as they stand in the first table with its name."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name = NAME.match(line)
        if name and INTERVAL.search(line):
            found.setdefault(name[1], INTERVAL.findall(line.replace("**", "")))
    return found


def test_the_runs_give_the_report(tmp_path: Path) -> None:
    assert report(ReportConfig(RESULTS, tmp_path)) == COMMITTED


@pytest.mark.parametrize(("env", "place"), [("real", 0), ("lite", 1)])
def test_the_tables_in_readme_have_the_numbers_of_the_report(env: str, place: int) -> None:
    section = COMMITTED.split(f"\n## {env}\n")[1].split("### Oracle")[0]
    theirs = rows(section if env == "lite" else section.replace(" ▼", ""))  # README has no marks in the first one
    ours = rows(README.split("## What agents reach")[1].split("\n## ")[0].split("On `PMLMLite-v0`")[place])
    ours.pop("oracle", None)
    assert ours.keys() == theirs.keys()
    for agent, intervals in ours.items():
        assert intervals == [interval for interval in theirs[agent] if interval in intervals], agent


def test_the_oracle_in_readme_is_that_of_the_report() -> None:
    oracles = rows(COMMITTED.split("\n## real\n")[1].split("### Oracle")[1])
    assert rows(README.split("## What agents reach")[1])["oracle"] == oracles["tapruning"]
