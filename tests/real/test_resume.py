"""A run that goes on: alone in its folder, with its own episodes and settings, wherever the folder is by now."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.run_folder import RunFolder
from pmlm_env.llm import ReplyCache
from pmlm_env.llm.responder import Responder
from pmlm_env.llm.storage.budget import Account
from tests.commands import pmlm
from tests.real.runs import (
    check_same_checkpoint,
    error,
    evaluation,
    prepare,
    small_bert,
    small_models,
    train,
)

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("hashed_sentences", "no_figures")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("work") / "prepared")


@pytest.fixture(scope="module")
def whole(prepared: Path) -> str:
    """The evaluation of a run of four updates that nothing has disturbed."""
    run = prepared.parent / "runs" / "whole"
    assert train(prepared, run, budget=20) == 0
    return evaluation(run)


@pytest.fixture(scope="module")
def half(prepared: Path) -> Path:
    """A run of two updates; not to be changed."""
    run = prepared.parent / "runs" / "half"
    assert train(prepared, run) == 0
    return run


@pytest.fixture
def run(half: Path) -> Path:
    """A copy of the run of two updates, beside it."""
    copy = half.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(half, copy)


# Its own episodes


def test_a_run_does_not_go_on_with_other_episodes_than_it_was_begun_with(
    run: Path, prepared: Path, tmp_path: Path, capsys: Any
) -> None:
    other = prepare(tmp_path / "other", seed=1)
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    for command, arguments in {
        "train": ["--run", run, "--episodes", other, "--budget", 20, "--resume"],
        "evaluate": ["--run", run, "--episodes", other],
    }.items():
        assert pmlm(command, *arguments) == 2
        line = error(capsys)
        assert f"these are not the episodes that {run} was started with" in line
        assert "start a new run with another --run" in line
    assert {name: (run / name).read_bytes() for name in before} == before


def test_a_reference_alone_that_has_changed_is_noticed(prepared: Path, tmp_path: Path, capsys: Any) -> None:
    episodes = shutil.copytree(prepared, tmp_path / "episodes")
    assert train(episodes, tmp_path / "run", budget=6) == 0
    file = episodes / "episodes.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    row = json.loads(lines[-1])
    file.write_text("".join([*lines[:-1], json.dumps({**row, "reference": row["reference"] + " Rest."}) + "\n"]))
    assert pmlm("evaluate", "--run", tmp_path / "run") == 2
    assert "these are not the episodes that" in error(capsys)


def test_refining_other_episodes_than_the_runs_own_is_done_with_a_word(
    half: Path, prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = prepare(tmp_path / "other", seed=1)
    options = ["--model", half / "checkpoint", "--encoder", small_bert()]
    assert pmlm("refine", *options, "--episodes", prepared) == 0
    assert "other episodes" not in caplog.text
    assert pmlm("refine", *options, "--episodes", other) == 0
    assert f"{other} holds other episodes than {half} was trained on" in caplog.text


# Wherever the folder is


@pytest.mark.parametrize("how", ["moved", "copied with its episodes", "by a relative path", "through a link", "at ~"])
def test_a_run_goes_on_and_is_evaluated_wherever_it_is_and_however_it_is_spelled(
    how: str, run: Path, prepared: Path, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled: str | Path = run
    if how == "moved":
        spelled = tmp_path / "deep" / "er" / "moved"
        spelled.parent.mkdir(parents=True)
        shutil.move(run, spelled)
    elif how == "copied with its episodes":
        assert train(shutil.copytree(prepared, tmp_path / "a" / "prepared"), tmp_path / "a" / "runs" / "r") == 0
        shutil.move(tmp_path / "a", tmp_path / "b")
        spelled = tmp_path / "b" / "runs" / "r"
    elif how == "by a relative path":
        monkeypatch.chdir(run.parent)
        spelled = f"./{run.name}/"
    elif how == "through a link":
        spelled = tmp_path / "link"
        spelled.symlink_to(run)
    else:
        monkeypatch.setenv("HOME", str(run.parent))
        spelled = f"~/{run.name}"
    assert pmlm("train", f"--run={spelled}", "--budget=20", "--resume") == 0
    assert pmlm("evaluate", f"--run={spelled}") == 0
    assert (Path(os.path.expanduser(spelled)) / "evaluation.json").read_text() == whole
    assert not Path("~").exists()


def test_replies_kept_beside_the_run_are_found_after_a_move_and_asked_for_by_no_other_name(
    prepared: Path, tmp_path: Path, capsys: Any
) -> None:
    assert train(prepared, tmp_path / "a" / "run", "--cache", tmp_path / "a" / "kept.sqlite", budget=6) == 0
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert pmlm("train", "--run", tmp_path / "b" / "run", "--budget", 12, "--resume") == 0
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b" / "run" / "replies.sqlite").exists()
    other = ["--cache", tmp_path / "other.sqlite"]
    assert pmlm("train", "--run", tmp_path / "b" / "run", "--budget", 16, "--resume", *other) == 2
    assert "kept.sqlite: leave out --cache" in error(capsys)


def test_where_neither_place_has_the_episodes_the_option_that_names_them_is_named(
    prepared: Path, tmp_path: Path, capsys: Any
) -> None:
    episodes = shutil.copytree(prepared, tmp_path / "episodes")
    assert train(episodes, tmp_path / "run", budget=6) == 0
    shutil.move(episodes, tmp_path / "elsewhere")
    assert pmlm("evaluate", "--run", tmp_path / "run") == 2
    assert "--episodes" in error(capsys)
    assert pmlm("evaluate", "--run", tmp_path / "run", "--episodes", tmp_path / "elsewhere") == 0


# With its own settings


def test_a_run_goes_on_with_a_larger_budget_and_ends_like_one_that_had_it_from_the_beginning(
    run: Path, prepared: Path, whole: str
) -> None:
    assert train(prepared, run, "--resume", budget=20) == 0
    assert [line["update"] for line in RunFolder(run).metrics()] == [1, 2, 3, 4]
    assert RunFolder(run).settings()["budget"] == 20
    check_same_checkpoint(run, run.with_name("whole"))
    assert evaluation(run) == whole


def test_an_agent_without_updates_is_fitted_again_with_the_cached_replies(prepared: Path, tmp_path: Path) -> None:
    common = ["--agent", "surrogate", "--episodes", prepared, "--llm", "responder", "--device", "cpu", "--n-edits", 2]
    common += [*small_models(), "--rows", 4]
    for name, budget in (("small", 24), ("large", 36)):
        assert pmlm("train", *common, "--budget", budget, "--run", tmp_path / name) == 0
    run = tmp_path / "cut"
    assert pmlm("train", *common, "--budget", 24, "--run", run, "--max-llm-calls", 13) == 1
    assert not (run / "checkpoint").exists()
    for name, more in (("small", []), ("large", ["--budget", 36])):
        assert pmlm("train", "--run", run, "--resume", "--max-llm-calls", 1000, *more) == 0
        check_same_checkpoint(run, tmp_path / name)
    assert Account(path=run / "spent.sqlite").usage.calls == len(ReplyCache(run / "replies.sqlite"))


def test_an_agent_that_is_fitted_again_keeps_its_metrics_until_that_ends(prepared: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    common = ["--agent", "surrogate", "--episodes", prepared, "--llm", "responder", "--device", "cpu", "--n-edits", 2]
    assert pmlm("train", *common, *small_models(), "--rows", 4, "--budget", 24, "--run", run.path) == 0
    before, calls = run.metrics(), Account(path=run.spending).usage.calls
    more = ["--run", run.path, "--resume", "--budget", 48]
    assert pmlm("train", *more, "--max-llm-calls", calls + 1) == 1
    assert run.metrics() == before
    assert pmlm("train", *more, "--max-llm-calls", 1000) == 0
    assert [line["deltas"] for line in run.metrics()[: len(before)]] == [line["deltas"] for line in before]
    assert len(run.metrics()) > len(before)
    assert not list(run.path.glob("*.part"))


def test_a_run_does_not_go_back(run: Path, prepared: Path, capsys: Any) -> None:
    assert train(prepared, run, "--resume", budget=6) == 2
    assert error(capsys) == f"pmlm train: {run} has already spent 12 completions: give --budget 12 or more"
    assert len(RunFolder(run).metrics()) == 2


def test_the_folder_alone_says_how_to_go_on(run: Path, whole: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert pmlm("train", "--run", run, "--resume", "--budget", 20, "--max-failures", 64) == 0
    assert evaluation(run) == whole


@pytest.mark.parametrize("option", ["--seed=1", "--n-edits=3", "--n-edits=0.2", "--rollouts=3", "--temperature=0.5"])
def test_what_decides_the_figures_may_not_change(option: str, run: Path, capsys: Any) -> None:
    if option == "--temperature=0.5":
        option = "--llm=local:smollm2-135m"
    assert pmlm("train", "--run", run, "--resume", option) == 2
    assert "resume with the settings that the run was started with" in error(capsys)


def test_a_run_keeps_its_agent(run: Path, capsys: Any) -> None:
    assert pmlm("train", "--run", run, "--resume", "--agent", "sparsemax") == 2
    assert error(capsys) == (
        f"pmlm train: {run} is a run of leave-one-out: leave out --agent sparsemax, or choose another --run"
    )


@pytest.mark.parametrize(("name", "value", "was"), [("seed", 7, 0), ("n_edits", 4, 2), ("rollouts", 3, 2)])
def test_settings_that_were_changed_by_hand_do_not_go_on_with_the_checkpoint(
    name: str, value: Any, was: Any, run: Path, capsys: Any
) -> None:
    file = run / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    settings = content["settings"]
    (table,) = [table for table in (settings, settings["models"], settings["settings"]) if name in table]
    table[name] = value
    file.write_text(json.dumps(content), encoding="utf-8")
    assert pmlm("train", "--run", run, "--resume", "--budget", 20) == 2
    assert error(capsys) == (
        f"pmlm train: {file} has other values of {name} than the agent in checkpoint: change them back to "
        f"{name} = {json.dumps(was)}, or start a new run with --run"
    )
    assert len(RunFolder(run).metrics()) == 2


# Damage

DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "config.json without agent": (
        "config.json", lambda f: f.write_text(f.read_text().replace('"agent"', '"agnt"')), "agent is missing"
    ),
    "config.json without settings": ("config.json", lambda f: f.write_text("{}"), "--run"),
    "config.json of an earlier version": (
        "config.json", lambda f: f.write_text(f.read_text().replace("episodes_sha256", "versions")), "--run",
    ),
    "config.json that is no JSON": ("config.json", lambda f: f.write_bytes(b"\xff{"), "--run"),
    "config.json that is a list": ("config.json", lambda f: f.write_text("[]"), "--run"),
    "config.json with a text for a number": (
        "config.json", lambda f: f.write_text(f.read_text().replace('"n_edits": 2', '"n_edits": "2"')), "restore",
    ),
    "config.json with an unknown setting": (
        "config.json", lambda f: f.write_text(f.read_text().replace('"n_edits"', '"n_editz"')), "restore",
    ),
    "trainer.json that is empty": ("checkpoint/trainer.json", lambda f: f.write_text("{}"), "--run"),
    "trainer.json that is gone": ("checkpoint/trainer.json", lambda f: f.unlink(), "--run"),
    "spent.sqlite that is gone": ("spent.sqlite", lambda f: f.unlink(), "--cache"),
    "spent.sqlite that is empty": ("spent.sqlite", lambda f: f.write_bytes(b""), "--cache"),
    "spent.sqlite that is garbage": ("spent.sqlite", lambda f: f.write_bytes(b"garbage" * 999), "restore"),
    "replies.sqlite that is garbage": ("replies.sqlite", lambda f: f.write_bytes(b"garbage" * 999), "restore"),
    "replies.sqlite that is gone": ("replies.sqlite", lambda f: f.unlink(), "touch"),
}  # fmt: skip
DAMAGE_TO_TRAINING: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "half a trainer.safetensors": (
        "checkpoint/trainer.safetensors", lambda f: f.write_bytes(f.read_bytes()[:-9]), "--run",
    ),
    "trainer.json that does not say what was asked": (
        "checkpoint/trainer.json", lambda f: f.write_text(f.read_text().replace("asked", "told")), "--run",
    ),
    "trainer.json without generators": (
        "checkpoint/trainer.json", lambda f: f.write_text(f.read_text().replace("patients_rng", "rng")), "--run",
    ),
    "garbage in metrics.jsonl": ("metrics.jsonl", lambda f: f.write_bytes(b"\xff\n" + f.read_bytes()), "line 1"),
    "a number in metrics.jsonl": ("metrics.jsonl", lambda f: f.write_text("3\n" + f.read_text()), "line 1"),
}  # fmt: skip
DAMAGE_TO_THE_AGENT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "half a model.safetensors": (
        "checkpoint/model.safetensors", lambda f: f.write_bytes(f.read_bytes()[:9]), "copy it again",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "damage"),
    [("train", each) for each in (*DAMAGE, *DAMAGE_TO_TRAINING)]
    + [("evaluate", each) for each in (*DAMAGE, *DAMAGE_TO_THE_AGENT)],
)
def test_a_damaged_file_and_its_cure_are_named_in_one_line_and_nothing_is_spent(
    command: str, damage: str, run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, harm, cure = {**DAMAGE, **DAMAGE_TO_TRAINING, **DAMAGE_TO_THE_AGENT}[damage]
    harm(run / name)
    monkeypatch.setattr(Responder, "replies", None)
    assert pmlm(command, "--run", run, *(["--resume", "--budget", 20] if command == "train" else [])) in (1, 2)
    line = error(capsys)
    assert str(run / name) in line
    assert cure in line
    assert "remove" not in line


def test_half_a_last_line_in_the_metrics_is_as_a_kill_leaves_it(run: Path, whole: str) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"update": 3, "del')
    assert pmlm("train", "--run", run, "--resume", "--budget", 20) == 0
    assert [line["update"] for line in RunFolder(run).metrics()] == [1, 2, 3, 4]
    assert evaluation(run) == whole


@pytest.mark.parametrize("command", ["train", "evaluate", "publish"])
def test_a_run_that_is_a_file_or_an_empty_folder_is_one_line(command: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    more = {"train": ["--resume"], "publish": ["--out", tmp_path / "policy"]}.get(command, [])
    for name in ("file", "empty"):
        assert pmlm(command, "--run", tmp_path / name, *more) == 2
        assert f"{tmp_path / name} contains no run: train first" in error(capsys)


def test_a_new_run_at_a_files_place_is_one_line(prepared: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").touch()
    assert train(prepared, tmp_path / "file") == 2
    assert f"{tmp_path / 'file'} is a file, or is inside one: choose a folder" in error(capsys)


@pytest.mark.parametrize("content", ["{", "[]", '{"updates": 2, "split": "test"}'])
def test_a_damaged_evaluation_is_made_again_and_not_published(
    content: str, run: Path, tmp_path: Path, capsys: Any
) -> None:
    (run / "evaluation.json").write_text(content)
    assert pmlm("publish", "--run", run, "--out", tmp_path / "policy") == 2
    assert f"make it again with `pmlm evaluate --run {run}`" in error(capsys)


def test_training_goes_on_from_a_checkpoint_that_a_kill_left_between_two_names(run: Path, whole: str) -> None:
    (run / "checkpoint").rename(run / "checkpoint.old")
    assert pmlm("train", "--run", run, "--resume", "--budget", 20) == 0
    assert evaluation(run) == whole
