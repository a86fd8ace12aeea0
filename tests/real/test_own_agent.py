"""An agent of one's own, from training to a published folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.serving.refine import Refiner
from pmlm_env import EpisodeSet
from tests.agents.own_agent import install, write_module
from tests.agents.test_options import in_one_line
from tests.commands import pmlm
from tests.real.runs import prepare, small_models

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("no_figures")]

PATH = "stranger:FirstWords"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_module(tmp_path)
    install(tmp_path, "first-words", PATH)
    prepare(tmp_path / "prepared")
    yield tmp_path
    sys.modules.pop("stranger", None)


def _train(name: str, *more: object) -> int:
    models = ["--llm", "responder", "--device", "cpu", "--n-edits", 2, *small_models()]
    return pmlm("train", "--agent", name, "--run", "mine", "--skip", 3, *models, *more)


@pytest.mark.parametrize(("name", "allow"), [(PATH, ["--allow-import"]), ("first-words", [])])
def test_every_command_takes_it(name: str, allow: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(name) == 0
    assert capsys.readouterr().out.endswith(f"Next: pmlm evaluate --run mine{' --allow-import' * len(allow)}\n")
    assert pmlm("train", "--run", "mine", "--resume", *allow) == 0
    assert pmlm("evaluate", "--run", "mine", *allow) == 0
    assert json.loads(Path("mine/evaluation.json").read_text())["agent"] == name
    assert pmlm("refine", "--model", "mine/checkpoint", "--out", "refined.jsonl", *allow) == 0
    episodes = EpisodeSet.load(here / "prepared").of("test")
    lines = [json.loads(line) for line in Path("refined.jsonl").read_text().splitlines()]
    assert [[edit["slot"] for edit in line["edits"]] for line in lines] == [[3, 4]] * len(episodes)
    capsys.readouterr()
    assert pmlm("publish", "--run", "mine", "--out", "published", *allow) == 0
    following = (
        f"pmlm refine --model published --pipeline {here / 'prepared'} --cohort NEW{' --allow-import' * len(allow)}\n"
    )
    assert capsys.readouterr().out.endswith(following)
    card = Path("published/README.md").read_text()
    assert f"| agent | `{name}` |" in card
    assert "install the package that has the module `stranger`" in card
    assert ("allow_import=True" in card) == ("only with `--allow-import`" in card) == bool(allow)
    refiner = Refiner.from_pretrained("published", allow_import=bool(allow))
    assert [each.prompt for each in refiner.refine_all(episodes)] == [line["prompt"] for line in lines]


def test_nothing_of_a_run_is_imported_without_allow_import(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(PATH) == 0
    sys.modules.pop("stranger")
    Path("stranger.imported").unlink()
    capsys.readouterr()
    for command, options in (
        ("train", "--run mine --resume"),
        ("evaluate", "--run mine"),
        ("refine", "--model mine/checkpoint"),
        ("publish", "--run mine --out published"),
    ):
        assert "--allow-import" in in_one_line(command, options, capsys)
    assert not Path("stranger.imported").exists()


def test_prompts_that_the_edit_budget_can_empty_are_counted_in_training_and_when_refining(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = [len(episode.words) for episode in EpisodeSet.load("prepared").of("train")]
    assert _train(PATH, "--protect", "background", "--n-edits", max(lengths)) == 0
    said = [message for message in caplog.messages if "edit budget" in message]
    assert said == [
        f"{len(lengths)} of {len(lengths)} prompts have no more words that may be edited than the edit budget, "
        f"{max(lengths)}: an agent can delete all of these words, which leaves 0 of the prompts empty. Train with a "
        "smaller --n-edits, or leave these patients out"
    ]
    caplog.clear()
    assert pmlm("refine", "--model", "mine/checkpoint", "--allow-import") == 0
    assert len([message for message in caplog.messages if message.startswith("3 of 3 prompts have no more")]) == 1


def test_of_prompts_that_are_long_enough_nothing_is_said(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _train(PATH) == 0
    assert "edit budget" not in caplog.text
