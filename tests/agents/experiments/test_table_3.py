"""``pmlm experiment table-3``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agents.evaluation.controls import CONTROLS
from tests.agents.experiments.quick import command, prepared, runs, table
from tests.commands import pmlm

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences")]

ALL, NO_PREDICTION, NO_PEERS = "all stages", "without stage 1", "without stage 2"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, men: Path, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert pmlm(*command("table-3", men, "--agents", "surrogate", "--out", out)) == 0
    return out / "table-3"


def test_each_stage_is_left_out_of_prompts_with_agents_of_their_own(results: Path) -> None:
    assert [(run["cell"]["prompt"], run["cell"]["row"]) for run in runs(results)] == [
        *((ALL, row) for row in (*CONTROLS, "keep-all", "random-n", "surrogate")),
        *((prompt, row) for prompt in (NO_PREDICTION, NO_PEERS) for row in ("keep-all", "surrogate")),
    ]
    assert len({tuple(run["result"]["patients"]) for run in runs(results)}) == 1


def test_prompts_lack_the_words_of_a_stage_and_nothing_else(results: Path) -> None:
    by_roles = {frozenset(episodes[0].roles): episodes for episodes in prepared(results)}
    every = by_roles[frozenset({"background", "self", "peer", "instruction"})]
    assert len(by_roles) == 3
    for role in ("self", "peer"):
        shorter = by_roles[frozenset({"background", "self", "peer", "instruction"} - {role})]
        for long, short in zip(every, shorter, strict=True):
            assert long.patient_id == short.patient_id
            kept = [(word, of) for word, of in zip(long.words, long.roles, strict=True) if of != role]
            assert kept == list(zip(short.words, short.roles, strict=True))


def test_the_table_says_what_each_stage_is_worth_beside_the_papers(results: Path) -> None:
    text = (results / "table.md").read_text()
    rows = {row["minus"]: row for row in table(text, "| minus | F1 |")}
    of_paper = {name: row["the paper's F1"] for name, row in rows.items() if row["the paper's F1"]}
    assert of_paper == {  # 70.50 - 64.83, 70.50 - 62.99, 70.50 - 67.24
        "without refinement: all stages, unedited": "+5.67",
        "without stage 1, edited by surrogate (16 calls)": "+7.51",
        "without stage 2, edited by surrogate (16 calls)": "+3.26",
    }
    f1 = {
        (run["cell"]["prompt"], run["cell"]["row"]): 100 * np.mean(run["result"]["metrics"]["bertscore_f1"])
        for run in runs(results)
    }
    shown = rows["without stage 1, edited by surrogate (16 calls)"]["F1"]
    assert shown.startswith(f"{f1[ALL, 'surrogate'] - f1[NO_PREDICTION, 'surrogate']:+.2f} [")
    assert rows["*echo*"]["F1"].startswith(f"{f1[ALL, 'surrogate'] - f1[ALL, 'echo']:+.2f} [")


@pytest.mark.parametrize("figure", ["f1", "margin"])
def test_there_is_a_figure_of_the_differences(results: Path, figure: str) -> None:
    assert "without stage 2" in (results / f"{figure}.svg").read_text()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("raw", "template raw has no part of the role peer, so it cannot be left out"),
        (
            "background: We suspect {predicted}.\nself: See below.\npeer: Of {k}, {peers}.\n",
            "mine.txt: {predicted} is in a part that is not of the role self, so it cannot be left out: use a template "
            "with a part of its own for it",
        ),
    ],
)
def test_a_template_that_cannot_be_taken_apart_is_refused(
    template: str, said: str, men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if template != "raw":
        (tmp_path / "mine.txt").write_text(template)
        template = str(tmp_path / "mine.txt")
    assert pmlm(*command("table-3", men, "--template", template, "--out", tmp_path / "out")) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)
    assert not (tmp_path / "out").exists()
