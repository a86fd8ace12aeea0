"""`torchrun ... -m agents.train`: the run folder of two processes is that of one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import registry
from agents.problem import Problem
from agents.run_folder import RunFolder
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.encoders.base import load_encoder
from tests import fresh
from tests.commands import pmlm
from tests.real.runs import prepare, small_bert, small_models

pytestmark = pytest.mark.real

#: Each update has 9 episodes, which two processes cannot divide equally.
_OPTIONS = ["--device", "cpu", "--n-edits", "2", "--patients", "3", "--rollouts", "3"]

#: What differs between two runs of the same, or depends on the process that says it.
_TIMES = ("seconds", "cached_replies")


def _arguments(episodes: Path, run: Path, *more: object, llm: str = "responder", budget: int = 42) -> list[str]:
    common = ["--episodes", episodes, "--run", run, "--llm", llm, *_OPTIONS, *small_models(), "--budget", budget]
    return list(map(str, [*common, *more]))


def _in_two(*arguments: object, command: str = "train") -> list[subprocess.CompletedProcess[str]]:
    """Run a command in two processes."""
    return fresh.run_together(2, "-m", "agents.cli", command, *arguments)


def _lines(ended: Sequence[subprocess.CompletedProcess[str]]) -> list[str]:
    """Return the error messages of all processes."""
    said = [line for each in ended for line in each.stderr.replace("\r", "\n").splitlines()]
    return [line for line in said if line.startswith("pmlm ") or "Error" in line]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("episodes") / "prepared", n_train=6)


@pytest.fixture(scope="module")
def one(episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("one") / "run"
    assert pmlm("train", *_arguments(episodes, run)) == 0
    return run


@pytest.fixture(scope="module")
def two(episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes, which ends after half of the updates and goes on."""
    run = tmp_path_factory.mktemp("two") / "run"
    for ended in _in_two(*_arguments(episodes, run, budget=25)):
        assert ended.returncode == 0, ended.stderr
    first, second = _in_two("--run", run, "--resume", "--budget", 42)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "The checkpoint is in" in first.stdout
    assert (second.stdout, second.stderr) == ("", "")
    return run


def test_metrics_and_spending_are_those_of_one_process(one: Path, two: Path) -> None:
    expected, found = RunFolder(one).metrics(), RunFolder(two).metrics()
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["deltas"] == pytest.approx(theirs["deltas"], abs=1e-5)
        for name in ours.keys() - {"deltas", "grad_norm", *_TIMES} - {name for name in ours if "share_" in name}:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


def _probabilities(run: Path, episodes: EpisodeSet) -> torch.Tensor:
    encoder = load_encoder(str(small_bert()), device="cpu")
    env = Problem(episodes, encoder, None, 2, episodes.max_words).env(len(episodes))
    observation, _ = env.reset(options={"episode": np.arange(len(episodes))})
    agent: Any = registry.load(run / "checkpoint")
    return agent.policy(observation).probs.detach()


def test_the_policy_gives_words_the_same_probabilities_as_that_of_one_process(
    one: Path, two: Path, episodes: Path
) -> None:
    everybody = EpisodeSet.load(episodes)
    found, expected = (_probabilities(run, everybody) for run in (two, one))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.max() > 1.1 * expected[expected > 0].min()  # it has learned to tell words apart


@pytest.mark.usefixtures("no_figures")
def test_the_evaluation_is_that_of_one_process(one: Path, two: Path) -> None:
    results = []
    for run in (one, two):
        assert pmlm("evaluate", "--run", run) == 0
        content = (run / "evaluation.json").read_text(encoding="utf-8")
        results.append(json.loads(content.replace(str(run), "RUN")))
    assert results[0] == results[1]
    assert results[0]["n_patients"] == 3


def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on(episodes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = _in_two(*_arguments(episodes, run, llm="tests.killed_process:Killed"))
    assert [each.returncode for each in ended] == [1, -9]
    (line,) = _lines(ended)
    assert "another process of the run has ended" in line
    assert f"continue with pmlm train --run {run} --resume" in line
    assert len(RunFolder(run).metrics()) == 1
    assert not [*run.glob("*.part"), *run.glob(".pmlm-*")]
    assert pmlm("train", "--run", run, "--resume", "--allow-import") == 0
    assert len(RunFolder(run).metrics()) == 4


@pytest.mark.parametrize(
    ("agent", "message"),
    [("dqn", "the agent dqn is trained by one process: start it without torchrun"), ("nobody", "nobody")],
)
def test_what_two_processes_cannot_do_is_said_once(episodes: Path, tmp_path: Path, agent: str, message: str) -> None:
    models = ["--llm", "responder", "--device", "cpu", *small_models()]
    ended = _in_two("--episodes", episodes, "--run", tmp_path / "run", "--agent", agent, *models)
    assert [each.returncode > 0 for each in ended] == [True, True]
    assert sum(message in each.stderr for each in ended) == 1, [each.stderr for each in ended]
    assert not (tmp_path / "run").exists()


#: Ends with options that are wrong in the second process alone, as they may be on another machine.
_SECOND_ALONE = """
import os, sys
from agents.cli.main import main
more = {more!r} if os.environ["RANK"] == "1" else []
main("train", [*sys.argv[1:], *more])
"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--patience", "3"], "Unrecognized"),
        (["--budget", "-1"], "budget is -1"),
        (["--help"], "it was asked for help only"),
    ],
)
def test_the_first_process_says_what_is_wrong_with_the_options_of_the_second(
    more: list[str], said: str, episodes: Path, tmp_path: Path
) -> None:
    arguments = _arguments(episodes, tmp_path / "run")
    first, second = fresh.run_together(2, "-c", _SECOND_ALONE.format(more=more), *arguments, cwd=tmp_path)
    assert first.returncode == 1
    (line,) = _lines([first])
    assert line.startswith("pmlm train: process 1: ")
    assert said in line
    assert (second.stdout, second.stderr) == ("", "")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--patience", 2)])
def test_what_tyro_prints_is_printed_once(option: str, code: int) -> None:
    first, second = _in_two(option)
    assert (first.returncode, second.returncode) == (code, code)
    assert option in first.stdout + first.stderr
    assert (second.stdout, second.stderr) == ("", "")


@pytest.mark.parametrize("command", ["evaluate", "experiment table-1"])
@pytest.mark.parametrize(("rank", "n_lines"), [(0, 1), (1, 0)])
def test_other_commands_run_in_one_process(
    command: str, rank: int, n_lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", 1)):
        monkeypatch.setenv(name, str(value))
    name, *arguments = command.split()
    assert pmlm(name, *arguments, "--run", "nowhere") == 2
    lines = capsys.readouterr().err.splitlines()
    message = f"pmlm {name}: this command runs in one process: start it without torchrun, which is for train, prepare "
    assert lines == [message + "and experiment table-2"] * n_lines
