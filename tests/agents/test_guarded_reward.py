"""Evaluation and benchmark with a reward whose gates make it pay something else than the change of its score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.model_options import ModelOptions
from pmlm_env.core.traces import TraceFile
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.io.toml import read_toml
from pmlm_env.rewards.components import COMPONENTS
from pmlm_env.rewards.guarded import BUILT_IN
from tests.commands import pmlm
from tests.tiny_models import save_model

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("hashed_sentences", "no_figures")]

#: An echo has one word less than the LLM's reply.
SETTINGS = "penalty = 0.5\n[weights]\nwords = -1\n[gates.words]\nbelow = 1000\n"


@pytest.fixture
def options(tmp_path: Path) -> list[Any]:
    """Options of a prepared folder, models, and a reward with settings of its own."""
    lite_episodes({"train": 8, "test": 12}).save(tmp_path / "prepared")
    save_model(tmp_path / "scorer", "bert", 40)
    (tmp_path / "my.toml").write_text(SETTINGS)
    kwargs = [
        "--llm-kwargs",
        '{"end": " hush"}',
        "--reward-kwargs",
        json.dumps({"settings": f"{tmp_path / 'my.toml'}"}),
    ]
    models = ["--llm", "tests.own_parts:Shout", "--encoder", tmp_path / "scorer", "--scorer", tmp_path / "scorer"]
    rest = ["--episodes", tmp_path / "prepared", "--device", "cpu", "--n-edits", 1]
    return [*models, "--reward", "guarded", *kwargs, *rest]


def test_an_evaluation_holds_all_components_and_what_was_paid(
    tmp_path: Path, options: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert pmlm("train", "--agent", "keep-all", *options, "--run", run, "--budget", 20) == 0
    capsys.readouterr()
    assert pmlm("evaluate", "--run", run, "--allow-import") == 0
    said = capsys.readouterr().out
    echo = next(trace for trace in TraceFile(run / "traces.jsonl") if trace.variant == "echo")
    assert set(COMPONENTS) < set(echo.before) == set(echo.after)
    assert echo.after["reward"] - echo.before["reward"] == 1.0  # type: ignore[operator]
    assert echo.reward == 0.0 - 0.5
    evaluation = json.loads((run / "evaluation.json").read_text())["summary"]
    assert evaluation["reward_delta"]["echo"]["mean"] == -0.5
    assert evaluation["reward_delta"]["agent"]["mean"] == 0.0
    assert evaluation["echo"]["new_wrong_diagnosis"] == 0.0
    assert "all figures but words in %, margin in points" in said
    assert "Change of the reward guarded in points, mean and 95 % interval, paired by patient:" in said
    assert any(line.startswith("echo - keep all          -50.00  [-50.00, -50.00]") for line in said.splitlines())


def test_a_benchmark_counts_what_was_paid_for_controls_too(tmp_path: Path, options: list[Any]) -> None:
    where = ["--run", tmp_path / "run", "--out", tmp_path / "out"]
    assert pmlm("benchmark", "--env", "real", "--agents", "keep-all", "--seeds", 1, *options, *where) == 0
    lines = {line["agent"]: line for line in map(json.loads, (tmp_path / "out/real/runs.jsonl").open())}
    assert lines["echo"]["deltas"] == [-0.5] * 12
    assert lines["keep-all"]["deltas"] == [0.0] * 12
    assert set(COMPONENTS) < set(lines["echo"]["metrics"])


def test_settings_that_cannot_be_right_end_the_command_with_one_line(
    tmp_path: Path, options: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my.toml").write_text("[weights]\nf1 = 1")
    assert pmlm("train", "--agent", "keep-all", *options, "--run", tmp_path / "run", "--budget", 20) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"pmlm train: {tmp_path / 'my.toml'}: weights has an unknown name, 'f1': use bertscore_prec")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_keeps_the_settings_that_it_began_with(
    tmp_path: Path, options: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    options = [each.replace(f"{tmp_path}/", "") if "my.toml" in str(each) else each for each in options]
    assert pmlm("train", "--agent", "keep-all", *options, "--run", run, "--budget", 20) == 0
    (tmp_path / "my.toml").write_text(SETTINGS.replace("0.5", "0.9"))
    monkeypatch.chdir(elsewhere)
    assert pmlm("evaluate", "--run", run, "--allow-import") == 0
    assert json.loads((run / "evaluation.json").read_text())["summary"]["reward_delta"]["echo"]["mean"] == -0.5
    assert pmlm("train", "--run", run, "--resume", "--allow-import", "--budget", 30) == 0
    capsys.readouterr()
    other = json.dumps({"settings": "../my.toml"})
    assert pmlm("train", "--run", run, "--resume", "--allow-import", "--reward-kwargs", other) == 2
    assert "has other values of models.reward_kwargs" in capsys.readouterr().err


@pytest.mark.parametrize("as_text", [False, True])
def test_a_run_of_a_stranger_does_not_decide_which_file_is_read(
    tmp_path: Path, options: list[Any], capsys: pytest.CaptureFixture[str], as_text: bool
) -> None:
    run = tmp_path / "run"
    assert pmlm("train", "--agent", "keep-all", *options, "--run", run, "--budget", 20) == 0
    content = json.loads((run / "config.json").read_text())
    kwargs = {"settings": str(tmp_path / "my.toml")}
    content["settings"]["models"]["reward_kwargs"] = json.dumps(kwargs) if as_text else kwargs
    (run / "config.json").write_text(json.dumps(content))
    for command in (["evaluate", "--run", run, "--allow-import"], ["train", "--config", run / "config.json"]):
        capsys.readouterr()
        assert pmlm(*command) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert f"{run / 'config.json'}: the settings of the reward are not a table" in said[0]


@pytest.mark.parametrize("settings", [5, [], "", "\0", {"weights": {"margin": 10**400}}])
def test_settings_that_are_no_settings_end_the_command_with_one_line(
    tmp_path: Path, options: list[Any], capsys: pytest.CaptureFixture[str], settings: Any
) -> None:
    given = ["--reward-kwargs", json.dumps({"settings": settings})]
    assert pmlm("train", "--agent", "keep-all", *options, *given, "--run", tmp_path / "run", "--budget", 20) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_arguments_cannot_replace_what_a_built_in_reward_gets_from_elsewhere(
    tmp_path: Path, options: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--reward-kwargs", '{"training": 5}', "--run", tmp_path / "run"]
    assert pmlm("train", "--agent", "keep-all", *options, *given) == 2
    assert "the reward guarded gets training from elsewhere: leave it out" in capsys.readouterr().err


def test_the_built_in_settings_are_kept_too_as_a_later_version_may_have_others() -> None:
    assert ModelOptions(reward="guarded").reward_kwargs["settings"] == read_toml(BUILT_IN)
