"""Training, evaluation, benchmark and publishing with a reward, an encoder and an LLM of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.core.traces import TraceFile
from pmlm_env.envs.lite import lite_episodes
from tests.commands import pmlm
from tests.tiny_models import save_model

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("no_figures")]

REWARD, HUSH = "tests.own_parts:WordCount", "hushhush"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared episodes, and a run whose parts are all one's own."""
    folder = tmp_path_factory.mktemp("own")
    lite_episodes({"train": 8, "test": 4}).save(folder / "prepared")
    save_model(folder / "scorer", "bert", 40)
    assert (
        pmlm("train", *_models(folder), "--episodes", folder / "prepared", "--run", folder / "run", "--budget", 60) == 0
    )
    return folder


def _models(folder: Path, **more: Any) -> list[Any]:
    options = {
        "llm": "tests.own_parts:Shout",
        "llm-kwargs": json.dumps({"end": f" {HUSH}"}),
        "encoder": "tests.own_parts:LetterEncoder",
        "encoder-kwargs": '{"size": 6}',
        "reward": REWARD,
        "reward-kwargs": json.dumps({"word": HUSH, "weight": 0.25}),
        "scorer": folder / "scorer",
        "n-edits": 2,
        "device": "cpu",
        **more,
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def test_an_evaluation_shows_the_reward_beside_bertscore(folder: Path, capsys: Any) -> None:
    assert pmlm("evaluate", "--run", folder / "run", "--allow-import", "--cases", 1) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == "4 held-out patients; all figures but words and reward in %, margin in points"
    assert lines[1].split()[:2] == ["reward", "BLEU-4"]
    rows = {line[:20].strip(): line[20:].split() for line in lines[2:]}
    assert rows["before (keep all)"][0] == "0.25"
    assert rows["control: echo"][0] == "0"  # the prompt without the word that the LLM adds
    start = lines.index(f"Change of the reward {REWARD}, mean and 95 % interval, paired by patient:")
    assert lines[start + 2].startswith("agent - keep all             +0  too few patients (4)")
    assert lines[start + 4].startswith("echo - keep all           -0.25  too few")
    assert "Change of BERTScore F1 in points, mean and 95 % interval, paired by patient:" in lines
    assert "0 of 4 patients' reward fell." in lines
    echo = next(trace for trace in TraceFile(folder / "run" / "traces.jsonl") if trace.variant == "echo")
    assert [echo.before["reward"], echo.after["reward"], echo.reward] == [0.25, 0.0, -0.25]
    assert "bertscore_f1" in echo.after


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--reward-kwargs", '{"word": "rest", "weight": 0.25}'], "models.reward_kwargs"),
        (["--reward-kwargs", f'{{"word": "{HUSH}"}}'], "models.reward_kwargs"),
        (["--reward", "bertscore", "--reward-kwargs", "{}"], "models.reward, models.reward_kwargs"),
        (["--encoder-kwargs", '{"size": 7}'], "models.encoder_kwargs"),
    ],
)
def test_a_run_is_not_resumed_with_another_part(folder: Path, capsys: Any, options: list[str], named: str) -> None:
    assert pmlm("train", "--run", folder / "run", "--resume", "--allow-import", *options) == 2
    said = capsys.readouterr().err
    assert f"config.json has other values of {named}:" in said
    assert HUSH not in said


def test_a_run_from_before_there_were_other_rewards_is_not_resumed_with_one(
    folder: Path, tmp_path: Path, capsys: Any
) -> None:
    run = ["--run", tmp_path / "run", "--budget", 24]
    plain = ["--episodes", folder / "prepared", "--llm", "responder", "--encoder", folder / "scorer"]
    assert pmlm("train", *plain, "--scorer", folder / "scorer", "--n-edits", 1, *run, "--device", "cpu") == 0
    config = tmp_path / "run" / "config.json"
    content = json.loads(config.read_text())
    for name in ("reward", "reward_kwargs", "encoder_kwargs", "llm_kwargs"):
        del content["settings"]["models"][name]
    content["settings"]["models"]["chat_template_kwargs"] = None
    config.write_text(json.dumps(content))
    capsys.readouterr()
    assert pmlm("train", *run, "--resume", "--reward", REWARD, "--reward-kwargs", '{"word": "a"}') == 2
    assert "config.json has other values of models.reward, models.reward_kwargs:" in capsys.readouterr().err
    assert pmlm("train", *run, "--resume") == 0


def test_a_resumed_run_whose_arguments_are_the_same_goes_on(folder: Path, capsys: Any) -> None:
    same = ["--reward-kwargs", json.dumps({"weight": 0.25, "word": HUSH})]
    assert pmlm("train", "--run", folder / "run", "--resume", "--allow-import", *same) == 0


def test_a_benchmarks_lines_say_under_which_reward(folder: Path, tmp_path: Path, capsys: Any) -> None:
    paths = ["--episodes", folder / "prepared", "--run", tmp_path / "run", "--out", tmp_path / "out"]
    how = ["--env", "real", "--agents", "keep-all", "--seeds", 1]
    assert pmlm("benchmark", *how, *paths, *_models(folder)) == 0
    lines = {line["agent"]: line for line in map(json.loads, (tmp_path / "out/real/runs.jsonl").open())}
    for line in lines.values():
        assert line["identity"]["reward"] == REWARD
        assert line["identity"]["reward_kwargs"] == {"word": HUSH, "weight": 0.25}
    assert lines["keep-all"]["metrics"]["reward"] == [0.25] * 4
    assert lines["echo"]["metrics"]["reward"] == [0.0] * 4
    assert lines["echo"]["deltas"] == [-0.25] * 4
    capsys.readouterr()
    assert pmlm("benchmark", *how, *paths, *_models(folder, **{"reward-kwargs": '{"word": "hush2"}'})) == 2
    said = capsys.readouterr().err
    assert "runs.jsonl has results with other reward_kwargs: use the same, or another --out" in said
    assert "hush" not in said
    assert pmlm("report", tmp_path / "out", "--default", "keep-all") == 0
    said = capsys.readouterr().out
    assert f"judged by another reward, `{REWARD}`: deltas are changes of" in said
    assert "| reply of | reward | change | personal | F1 | margin |" in said
    assert "| *echo* | 0.00 | -25.00 | - |" in said


def test_a_published_card_names_the_reward_without_its_arguments(folder: Path, tmp_path: Path) -> None:
    assert pmlm("publish", "--run", folder / "run", "--out", tmp_path / "published", "--allow-import") == 0
    card = (tmp_path / "published" / "README.md").read_text()
    assert f"| reward | change of the score of `{REWARD}` from the reply to the initial prompt |" in card
    assert "`tests.own_parts:Shout`" in card
    assert HUSH not in card


def test_arguments_in_a_file_are_a_table_whose_names_stay_as_they_are(
    folder: Path, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "train.toml"
    file.write_text(
        f'episodes = "{folder / "prepared"}"\nrun = "{tmp_path / "run"}"\nllm = "responder"\n'
        f'reward = "{REWARD}"\nencoder = "tests.own_parts:LetterEncoder"\nscorer = "{folder / "scorer"}"\n'
        'dry-run = true\n[reward-kwargs]\nthe-word = "rest"\n[models.encoder-kwargs]\nsize = 5\n'
    )
    assert pmlm("train", "--config", file, "--reward-kwargs", '{"word": "rest"}') == 0
    file.write_text(file.read_text().replace("dry-run = true\n", ""))
    assert pmlm("train", "--config", file) == 2
    assert "WordCount does not take these arguments" in (said := capsys.readouterr().err)
    assert "the_word" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{word: hush}", '--reward-kwargs is not JSON, at character 2: give an object, such as {"weight": 0.5}'),
        ('{"word": "sk-abcdefghijklmnop1234"}', "--reward-kwargs: word contains what looks like a key: put it into"),
    ],
)
def test_arguments_that_are_refused_are_not_quoted(text: str, message: str, capsys: Any) -> None:
    assert pmlm("train", "--reward", REWARD, "--reward-kwargs", text) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"pmlm train: {message}")
    assert "hush" not in said
    assert "sk-" not in said
    assert len(said.splitlines()) == 1


def test_a_class_that_ends_the_program_does_not_make_a_failed_command_look_well(folder: Path, capsys: Any) -> None:
    leaves = {"llm": "tests.own_parts:Leaves", "llm-kwargs": "{}"}
    files = ["--episodes", folder / "prepared", "--run", folder / "left"]
    assert pmlm("train", *_models(folder, **leaves), *files, "--budget", 60) == 1
    assert "pmlm train: a class that the command uses called sys.exit(0): it must not" in capsys.readouterr().err
