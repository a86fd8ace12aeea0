"""The tables of the page are made from the committed runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scripts import load_script

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]


def test_the_tables_of_the_page_are_those_of_the_committed_runs() -> None:
    script = load_script(ROOT / "docs" / "make_tables.py")
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert "| logistic | " in page
    assert script.page(page) == page, "run `python docs/make_tables.py`"


def test_the_comparison_of_the_two_light_predictors_has_the_means_of_the_committed_runs() -> None:
    lines = (ROOT / "docs" / "results" / "table-a1" / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    runs = [json.loads(line) for line in lines]
    section = (ROOT / "docs" / "predictors.md").read_text(encoding="utf-8").split("## Which one is the default")[1]
    table = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
    for column, predictor in ((1, "boosted-trees"), (2, "logistic")):

        def mean(data: str, name: str, predictor: str = predictor) -> float:
            cells = {"data": data, "predictor": predictor}
            own = [run["result"][name] for run in runs if cells.items() <= run["cell"].items()]
            assert len(own) == 5
            return sum(own) / 5

        real, paper, literature = "tongji_covid", "simulated-paper", "simulated-literature"
        assert [row[column].rstrip(" |") for row in table] == [
            predictor,
            f"{100 * mean(real, 'micro_f1'):.1f} %",
            f"{100 * mean(paper, 'micro_f1'):.1f} % / {100 * mean(literature, 'micro_f1'):.1f} %",
            f"{mean(real, 'brier'):.3f}",
            f"{mean(paper, 'brier'):.3f} / {mean(literature, 'brier'):.3f}",
            f"{mean(paper, 'fit_seconds'):.1f} s",
            f"{mean(paper, 'peak_mb'):.0f} MB",
        ]
