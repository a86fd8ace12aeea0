"""Options that would have no effect are refused, in the command line's words, before anything is done."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from agents.cli.main import main


def refused(command: str, options: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(command, shlex.split(options))
    assert end.value.code == 2
    return capsys.readouterr().err


NETWORKS = ["--dropout 0.4", "--no-normalize", "--learning-rate 0.01", "--entropy 0.1", "--epochs 2", "--clip-norm 5"]


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command in ("train", "train --dry-run") for option in NETWORKS]
    + [("demo", option) for option in NETWORKS[2:]],
)
def test_a_lexicon_takes_no_option_of_a_network(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, _, more = command.partition(" ")
    said = refused(name, f"{option} {more}", capsys)
    assert f"{option.split()[0].replace('--no-', '--')} " in said
    assert "has no effect: only a network has it" in said
    assert "give --hidden N or --preset network" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["network", "paper"])
def test_a_network_alone_takes_no_option_of_a_lexicon(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused("train", f"--preset {preset} --penalty 5", capsys)
    assert "--penalty 5.0 has no effect: only a lexicon has it, and this policy has none" in said


def test_one_epoch_takes_no_clipping(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--clip-ratio 0.5 has no effect: it holds from the second epoch" in refused(
        "train", "--preset paper --clip-ratio 0.5", capsys
    )


@pytest.mark.parametrize(
    "options", ["--hidden 8 --dropout 0.4 --learning-rate 0.01", "--baseline critic --rollouts 1 --learning-rate 0.01"]
)
def test_an_option_that_has_an_effect_is_taken(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "/nowhere/episodes.jsonl is missing" in refused("train", f"{options} --episodes /nowhere", capsys)


@pytest.mark.parametrize("command", ["benchmark", "tune"])
@pytest.mark.parametrize(
    "option", ["--episodes elsewhere", "--run elsewhere", "--llm responder", "--max-llm-calls 5", "--n-edits 3"]
)
def test_lite_takes_no_option_of_real_patients_and_models(
    command: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(command, f"{option} --out {tmp_path}", capsys)
    assert f"{option.split()[0]} has no effect with --env lite" in said
    assert "give --env real" in said


def test_a_folder_is_not_made_public(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--public has no effect on a folder" in refused("publish", f"--out {tmp_path / 'a'} --public", capsys)


@pytest.mark.parametrize(
    "options",
    ["--llm responder --providers p.toml", "--llm responder --concurrency 4", "--llm local:smollm2-135m --llm-seed 3"],
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
