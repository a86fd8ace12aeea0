"""``pmlm experiment controls``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agents.evaluation.controls import CONTROLS
from tests.agents.experiments.quick import command, prepared, runs, table
from tests.commands import pmlm

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences")]

LETTERS = "tests.agents.experiments.test_controls:Letters"


class Letters:
    """Pays for the number of letters of a reply."""

    def score(self, replies: list[str], episodes: object) -> list[int]:
        return [len(reply) for reply in replies]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, men: Path, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert pmlm(*command("controls", men, "--rewards", "bertscore", "margin", LETTERS, "--out", out)) == 0
    return out / "controls"


def test_each_reward_has_all_controls(results: Path) -> None:
    assert [(run["cell"]["reward"], run["cell"]["row"]) for run in runs(results)] == [
        (reward, row) for reward in ("bertscore", "margin", LETTERS) for row in (*CONTROLS, "keep-all", "random-n")
    ]


def test_what_a_control_earns_is_its_score_minus_that_of_the_reply_to_the_unedited_prompt(results: Path) -> None:
    of = {(run["cell"]["reward"], run["cell"]["row"]): run["result"] for run in runs(results)}
    for reward in ("bertscore", "margin", LETTERS):
        change = np.subtract(of[reward, "echo"]["scores"], of[reward, "keep-all"]["scores"])
        assert of[reward, "echo"]["deltas"] == pytest.approx(change, abs=1e-4)
        assert set(of[reward, "keep-all"]["deltas"]) == {0}
    (episodes,) = prepared(results)
    assert of[LETTERS, "echo"]["scores"] == [len(episode.prompt) for episode in episodes.of("test")]


def test_the_table_has_two_columns_for_each_reward_and_own_rewards_in_their_own_unit(results: Path) -> None:
    rows = {row["reply"]: row for row in table((results / "table.md").read_text(), "| reply | bertscore |")}
    assert list(rows) == ["our prompt, unedited", "our prompt, edited by random-n", *(f"*{name}*" for name in CONTROLS)]
    echo = {run["cell"]["reward"]: run["result"] for run in runs(results) if run["cell"]["row"] == "echo"}
    assert rows["*echo*"]["bertscore"].startswith(f"{100 * np.mean(echo['bertscore']['scores']):.2f} [")
    assert rows["*echo*"]["margin, earned"].startswith(f"{100 * np.mean(echo['margin']['deltas']):+.2f} [")
    assert rows["*echo*"][LETTERS].startswith(f"{np.mean(echo[LETTERS]['scores']):.2f} [")


def test_there_is_a_figure_for_each_reward(results: Path) -> None:
    names = {file.stem for file in results.glob("*.svg")}
    assert names == {"bertscore", "margin", LETTERS.replace(":", ".")}


def test_the_built_in_rewards_are_the_default(men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm(*command("controls", men, "--dry-run", "--out", tmp_path)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert list(dict.fromkeys(cell["reward"] for cell in lines)) == ["bertscore", "margin", "guarded"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--reward", "margin"), "--reward has no effect: --rewards names the rewards"),
        (("--rewards", "no-such"), "there is no reward 'no-such'"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], said: str, men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm(*command("controls", men, *options, "--out", tmp_path / "out")) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"pmlm experiment: {said}")
    assert not (tmp_path / "out").exists()


def test_a_budget_without_an_agent_that_learns_is_refused(men: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("experiment", "controls", "--cohort", men, "--budget", "5") == 2
    assert capsys.readouterr().err == ("pmlm experiment: --budget has no effect: --agents names no agent that learns\n")
