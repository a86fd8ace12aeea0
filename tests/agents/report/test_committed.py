"""The committed report, and the tables in README and docs, match the committed runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from agents.evaluation.aggregate import crossed_bootstrap
from agents.report.report import ReportConfig, report
from agents.report.tables import in_points, points, table

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("no_figures")]

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs" / "results"
LLMS = sorted(path for path in (ROOT / "benchmarks" / "llms").iterdir() if path.is_dir())
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
    assert report(ReportConfig(RESULTS, out=tmp_path)) == committed


def _section(page: str, heading: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8").split(heading)[1].split("\n## ")[0]


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


@pytest.mark.parametrize("heading", ["## With the default LLM", "## On PMLMLite-v0"])
def test_a_table_of_agents_is_one_of_the_report_with_the_echo_in_it(heading: str) -> None:
    (shown,) = tables(_section("docs/agents/README.md", heading))
    assert shown in tables((RESULTS / "report.md").read_text(encoding="utf-8"))
    assert "| *echo* |" in shown


def test_the_rows_of_readme_are_those_of_the_whole_table_with_the_best_agent_and_the_controls_in_them() -> None:
    (whole,) = tables(_section("docs/agents/README.md", "## With the default LLM"))
    (shown,) = tables(_section("README.md", "## What agents reach"))
    columns = _cells(shown)[0]
    every = [[row[_cells(whole)[0].index(column)] for column in columns] for row in _cells(whole)]
    assert _cells(shown) == [row for row in every if row in _cells(shown)]
    rows = [row[0] for row in _cells(shown)]
    assert {"*random-letter*", "keep-all", "random-n", "*raw-data*", "*echo*"} <= {*rows}
    assert any(row.startswith("single-rule") for row in rows)
    assert any(row.startswith("**") for row in rows)
    assert next(row[0] for row in every[2:] if row[0].startswith("**") or not row[0].startswith("*")) in rows


@pytest.mark.parametrize(
    ("places", "said"), [("three", "which gain {:.2f} points"), ("ten", "gains {:.2f}\n    points")]
)
def test_a_template_without_the_places_of_a_rule_gains_what_the_page_says(places: str, said: str) -> None:
    f1 = []
    for folder in (RESULTS, DOCS / "mended" / places):
        lines = [json.loads(line) for line in (folder / "real" / "runs.jsonl").read_text().splitlines()]
        (line,) = [each for each in lines if each["agent"] == "keep-all"]
        f1.append(dict(zip(line["patients"], line["metrics"]["bertscore_f1"], strict=True)))
    assert f1[0].keys() == f1[1].keys()
    gain = 100 * sum(f1[1][name] - f1[0][name] for name in f1[0]) / len(f1[0])
    assert said.format(gain) in LEARNING


@pytest.mark.parametrize("folder", LLMS, ids=lambda path: path.name)
def test_the_tables_of_other_llms_are_what_their_runs_give(folder: Path, tmp_path: Path) -> None:
    assert LLMS
    made = [table for table in tables(report(ReportConfig(folder, out=tmp_path))) if table.startswith("| reply of |")]
    assert len(made) == 1
    assert made[0] in LEARNING
    assert "| *echo* |" in made[0]


#: Rules of the default agent's deletions -> what they delete from every prompt, as docs/learning.md says it.
_RULES = {
    "eight": "`eight`: the eight words of the template that it deletes most",
    "ten": "`ten`: the ten words that it deletes most",
    "commonest": "`commonest`: the ten that it deletes from 19 of the prompts",
    "second": "`second`: the ten that it deletes from 18",
}


def _line(folder: Path, agent: str, budget: int) -> dict[str, Any]:
    lines = map(json.loads, (folder / "real" / "runs.jsonl").read_text(encoding="utf-8").splitlines())
    (line,) = [each for each in lines if (each["agent"], each["budget"]) == (agent, budget)]
    return dict(line)


def _in_points(values: npt.NDArray[np.float64]) -> str:
    return in_points(crossed_bootstrap(values[None], np.random.default_rng(0)))


def rules_table() -> str:
    """Return the table of what the default agent gains with 2,000 calls, beside rules for everybody."""
    before, agent = _line(RESULTS, "keep-all", 0), _line(RESULTS, "leave-one-out", 2000)
    ruled = {said: _line(DOCS / "one-rule" / name, "keep-all", 0) for name, said in _RULES.items()}
    rows = {"by the agent, from each prompt": agent["metrics"], **{said: of["metrics"] for said, of in ruled.items()}}
    f1 = {name: np.array(metrics["bertscore_f1"]) for name, metrics in [("before", before["metrics"]), *rows.items()]}
    offline = json.loads((RESULTS / "offline_edits.json").read_text(encoding="utf-8"))
    for name in ("rule of 3", "rule of 10"):
        rows[f"{name}, of 22,235 replies"] = offline["editors"][name]["metrics"]
        f1[f"{name}, of 22,235 replies"] = f1["before"] + offline["editors"][name]["deltas"]
    assert all(each["patients"] == before["patients"] for each in (agent, offline, *ruled.values()))
    heads = ["words deleted", "change of F1", "the agent's minus this", "margin", "right / wrong, %", "cut, %"]
    cells = []
    for name, metrics in rows.items():
        minus = _in_points(f1["by the agent, from each prompt"] - f1[name]) if metrics is not agent["metrics"] else "-"
        right, wrong, margin = (
            100 * np.mean(metrics[key]) for key in ("diagnosis_named", "wrong_diagnosis_named", "margin")
        )
        cut = f"{100 * np.mean(metrics['cut']):.0f}" if "cut" in metrics else "-"
        change = f1[name] - f1["before"]
        shown = points(change.mean()) if name.startswith("rule") else _in_points(change)  # these have intervals above
        cells.append([name, shown, minus, f"{margin:.2f}", f"{right:.0f} / {wrong:.0f}", cut])
    return table(heads, cells)


def test_the_default_agent_and_rules_of_its_deletions_gain_what_the_page_says() -> None:
    assert all(f"    {line}\n" in LEARNING for line in rules_table().splitlines())
