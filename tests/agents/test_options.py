"""Options that do not exist, are not allowed, or would have no effect are rejected before anything is done."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from agents.registry import AGENTS, settings_of
from agents.settings import option
from tests.commands import pmlm


def ended(command: str, options: str) -> int:
    return pmlm(command, *shlex.split(options))


def refused(command: str, options: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert ended(command, options) == 2
    return capsys.readouterr().err


def in_one_line(command: str, options: str, capsys: pytest.CaptureFixture[str]) -> str:
    said = refused(command, options, capsys)
    assert said.startswith(f"pmlm {command}: ")
    assert said.count("\n") == 1
    return said


def options_of(command: str, agent: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options that help shows."""
    assert ended(command, f"--agent {agent} --help") == 0
    return set(re.findall(r"^. (--[a-z0-9-]+)", capsys.readouterr().out, re.MULTILINE))


@pytest.mark.parametrize("command", ["train", "demo"])
@pytest.mark.parametrize("agent", AGENTS)
def test_an_agents_help_shows_that_agents_own_settings_and_no_others(
    command: str, agent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    without = options_of(command, "keep-all", capsys)  # keep-all has no settings of its own
    shown = options_of(command, agent, capsys)
    assert {"--agent", "--run", "--llm", "--max-cost", "--protect"} <= without <= shown
    assert shown - without == {option(each.name) for each in fields(settings_of(agent))}


def test_an_agent_is_known_by_default_and_by_its_name_in_either_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("train", "--help") == 0
    assert "--dropout" in capsys.readouterr().out
    assert ended("train", "--help --agent=lexicon") == 0
    assert "--penalty" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "demo"])
def test_an_unknown_agent_is_one_line_with_the_names(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = in_one_line(command, "--agent lexikon", capsys)
    assert "there is no agent 'lexikon' (did you mean lexicon?): use lexicon, leave-one-out, " in said


@pytest.mark.parametrize("command", ["train", "demo"])
@pytest.mark.parametrize("option", ["--dropout 0.4", "--no-normalize", "--epochs 2", "--temperature 3 --n-step 2"])
def test_an_agent_takes_no_option_of_another(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(command, f"--agent lexicon {option}", capsys)
    assert option.split()[-2 if " " in option else 0] in said
    assert not list(tmp_path.iterdir())


def test_settings_that_do_not_fit_together_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = in_one_line("train", "--agent leave-one-out --epochs 1 --clip-ratio 0.5", capsys)
    assert "clip_ratio 0.5 has no effect: it is for the second epoch and later ones" in said


def test_a_number_out_of_range_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hidden is 0: use 1 to 4,096" in in_one_line("train", "--hidden 0", capsys)
    for n_edits in ("-1", "0.0", "1.5", "-0.1", "nan", "'20%'"):
        said = in_one_line("train", f"--n-edits {n_edits.strip(chr(39))}", capsys)
        assert f"n_edits is {n_edits}: use a whole number, 0 or more, or a share of the prompt's words" in said
    for budget in (0, 10_000_001):
        said = in_one_line("train", f"--budget {budget}", capsys)
        assert f"budget is {budget}: use a whole number from 1 to 10,000,000" in said


def test_an_option_that_has_an_effect_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--hidden 8 --dropout 0.4 --learning-rate 0.01 --baseline critic --rollouts 1 --protect self digits"
    assert "/nowhere/episodes.jsonl is missing" in in_one_line("train", f"{options} --episodes /nowhere", capsys)


@pytest.mark.parametrize("command", ["train", "train --dry-run", "demo", "benchmark --env real", "tune --env real"])
def test_what_cannot_be_protected_is_one_line_before_anything_is_done(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, _, more = command.partition(" ")
    said = in_one_line(name, f"{more} --protect self names", capsys)
    assert (
        "protect names 'names': use some of ('background', 'self', 'peer', 'instruction', 'digits', 'negations')"
        in said
    )
    assert not list(tmp_path.iterdir())


def test_what_a_whole_run_costs_is_not_asked_of_one_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from agents.run_folder import RunFolder
    from agents.training.config import TrainConfig

    run = RunFolder(tmp_path)
    run.start(TrainConfig(run=tmp_path), "the LLM", "the episodes")
    assert "--resume has no effect with --dry-run" in in_one_line(
        "train", f"--run {tmp_path} --resume --dry-run", capsys
    )


@pytest.mark.parametrize("option", ["--base-url http://localhost", "--max-new-tokens 7", "--device cpu"])
def test_options_of_an_llm_need_one(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = in_one_line("doctor", option, capsys)
    assert f"{option.split()[0]} has no effect: no LLM is asked. Name one with --llm" in said


@pytest.mark.parametrize("command", ["benchmark", "tune"])
@pytest.mark.parametrize(
    "option", ["--episodes elsewhere", "--run elsewhere", "--llm responder", "--max-llm-calls 5", "--n-samples 3"]
)
def test_lite_takes_no_option_of_real_patients_and_models(
    command: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = in_one_line(command, f"{option} --out {tmp_path}", capsys)
    assert f"{option.split()[0]} has no effect with --env lite" in said
    assert "give --env real" in said


def test_a_folder_is_not_made_public(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--public has no effect on a folder" in refused("publish", f"--out {tmp_path / 'a'} --public", capsys)


@pytest.mark.parametrize(
    "options",
    [
        *("--llm responder --providers p.toml", "--llm responder --concurrency 4", "--llm responder --llm-seed 3"),
        *("--llm responder --temperature 0.5", "--llm responder --max-new-tokens 9"),
        "--llm local:smollm2-135m --llm-seed 3",
    ],
)
def test_an_llm_in_this_process_takes_no_option_of_an_endpoint_and_a_greedy_one_no_seed(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.toml").touch()
    from pmlm_env.envs.lite import lite_episodes

    lite_episodes({"train": 2, "test": 2}).save("prepared")
    said = refused("train", options, capsys)
    assert f"{options.split()[2]} has no effect with" in said
    assert not (tmp_path / "runs" / "train" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("cache stat x", "there is no 'stat': use one of stats, prune, export, import"),
        ("train --agent", "--agent needs a value"),
        ("train --config", "--config needs a value"),
    ],
)
def test_what_is_cut_short_or_misspelled_is_one_line(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, _, rest = arguments.partition(" ")
    assert said in in_one_line(command, rest, capsys)
