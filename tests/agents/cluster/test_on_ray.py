"""Runs on a Ray cluster of two nodes, one worker on each.

With the lowest version of Ray, experiments with a warning and with an error are enough: the other tests are ``once``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.cluster.connection import connected
from agents.cluster.worker import Worker
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.llm.storage.budget import Account
from tests.agents.cluster.parts import FOLDER, Named, asked
from tests.agents.experiments.quick import command
from tests.commands import pmlm
from tests.real.runs import evaluation, options, prepare, small_models

pytest.importorskip("ray", reason="needs Ray: pip install 'pmlm-env[ray]'")

BEHAVING = "tests.agents.cluster.parts:Behaving"
LLM = "tests.agents.cluster.parts:Recorded"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # by default, workers wait for all other processes of this machine
        patch.setenv(FOLDER, str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)
        yield cluster.address
        cluster.shutdown()


def lines(file: Path) -> list[dict[str, Any]]:
    """The runs in a file, in order, without their time and, of an experiment, the calls meanwhile."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    without = ("seconds", "calls") if "cell" in found[0] else ("seconds",)
    return [{name: value for name, value in line.items() if name not in without} for line in found]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.once
def test_two_workers_one_of_them_killed_have_the_results_of_one_process_and_keep_its_budget(
    address: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    episodes = prepare(folder / "prepared")

    def benchmark(name: str, *more: object) -> int:
        agents = ["--agents", "surrogate", "single-rule", "random-n", "--budget", 12, "--seeds", 2]
        models = ["--llm", LLM, "--device", "cpu", "--n-edits", 2, *small_models()]
        where = ["--episodes", episodes, "--out", folder / name, "--run", folder / f"{name}-run"]
        return pmlm("benchmark", "--env", "real", *agents, *models, *where, *more)

    def calls() -> int:
        return Account(path=folder / "ray-run" / "spent.sqlite").usage.calls

    results = folder / "ray" / "real" / "runs.jsonl"
    assert benchmark("ray", "--ray", address, "--max-llm-calls", 20) == 1
    assert "the next LLM call would exceed the LLM call limit of 20 (20 spent" in last_line(capsys)
    assert calls() == len(asked(folder)) == 20
    complete = results.read_text()
    (folder / "kill").touch()
    assert benchmark("ray", "--ray", address) == 0
    assert [text for text in caplog.messages if text.endswith("has ended; another one takes its place, and its run")]
    assert not (folder / "kill").exists()
    assert all(line in results.read_text() for line in complete.splitlines())

    record = asked(folder)
    assert calls() == len(record)
    twice = {prompt for prompt, n in Counter(prompt for _, prompt in record).items() if n > 1}
    killed = record[[prompt for _, prompt in record].index(min(twice, key=[p for _, p in record].index))][0]
    assert twice <= {prompt for pid, prompt in record if pid == killed}  # under way when its process was killed
    assert len({pid for pid, _ in record}) >= 4  # two workers of either command, and one in the place of the killed one

    monkeypatch.setenv(FOLDER, str(folder / "one"))
    (folder / "one").mkdir()
    assert benchmark("one") == 0
    assert lines(folder / "one" / "real" / "runs.jsonl") == lines(results)
    assert {prompt for _, prompt in asked(folder / "one")} == {prompt for _, prompt in record}
    assert benchmark("again", "--replay", "--cache", folder / "ray-run" / "replies.sqlite") == 0
    assert lines(folder / "again" / "real" / "runs.jsonl") == lines(results)


@pytest.mark.once
def test_an_evaluation_of_replies_from_two_workers_one_of_them_killed_is_that_of_one_process(
    address: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    lite_episodes({"train": 4, "test": 24}).save(tmp_path / "prepared")
    one, ray = tmp_path / "one", tmp_path / "ray"
    given = ["--episodes", tmp_path / "prepared", "--run", one, "--llm", LLM, "--budget", 6, *options()]
    with monkeypatch.context() as patch:
        patch.setenv(FOLDER, str(tmp_path))
        assert pmlm("train", *given) == 0
        shutil.copytree(one, ray)
        trained = Account(path=one / "spent.sqlite").usage.calls
        live = evaluation(one, "--allow-import")
        needed = [prompt for _, prompt in asked(tmp_path)[trained:]]

    monkeypatch.setattr("agents.serving.prefill._CHUNK", 4)
    before = len(asked(folder)) if (folder / "asked.jsonl").exists() else 0
    (folder / "kill").touch()
    assert pmlm("prefill", "evaluate", "--run", ray, "--allow-import", "--ray", address) == 0
    assert [text for text in caplog.messages if text.endswith("has ended; another one takes its place, and its run")]
    assert ", 0 missing, the others were stored before" in capsys.readouterr().out
    record = asked(folder)[before:]
    assert {prompt for _, prompt in record} == set(needed)
    assert Account(path=ray / "spent.sqlite").usage.calls == trained + len(record)
    assert evaluation(ray, "--allow-import", "--replay") == live


@pytest.mark.once
def test_workers_stop_when_too_many_replies_in_a_row_are_missing(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agents.serving.prefill._CHUNK", 2)
    llm = ["--llm", "tests.agents.cluster.parts:Refusing", "--budget", 6, "--max-failures", 3]
    given = ["--episodes", prepare(tmp_path / "prepared"), "--run", tmp_path / "run", *llm, *options()]
    assert pmlm("prefill", "train", *given, "--ray", address, "--ray-workers", 1) == 1
    assert "4 replies in a row are missing, the last because: no reply to anybody. See to that" in last_line(capsys)


@pytest.mark.once
def test_workers_tune_to_the_settings_of_one_process(address: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs Optuna: pip install 'pmlm-env[tune]'")
    options = ["--agents", "surrogate", "random-p", "--budget", 100, "--trials", 5, "--batch", 2, "--seeds", 1]
    files = {}
    for name, where in (("one", []), ("ray", ["--ray", address])):
        assert pmlm("tune", *options, "--out", tmp_path / name, *where) == 0
        files[name] = (tmp_path / name / "lite" / "tuned.json").read_text()
    assert files["ray"] == files["one"]
    assert json.loads(files["one"])["batch"] == 2


@pytest.mark.once
def test_workers_do_an_experiment_as_one_process(
    address: str, men: Path, tmp_path: Path, quick_stages: None, hashed_sentences: None
) -> None:
    options = command("table-3", men, "--agents", "random-n", "--out", tmp_path)
    assert pmlm(*options) == 0
    results = tmp_path / "table-3" / "runs.jsonl"
    table, one = (tmp_path / "table-3" / "table.md").read_text(), lines(results)
    results.unlink()
    (tmp_path / "replies.sqlite").unlink()
    assert pmlm(*options, "--ray", address) == 0
    assert lines(results) == one
    assert (tmp_path / "table-3" / "table.md").read_text() == table


def test_a_warning_of_workers_is_shown_once_and_each_had_a_run(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert pmlm("experiment", BEHAVING, "--out", tmp_path, "--ray", address, "--ray-workers", 2) == 0
    assert caplog.messages.count("mind the gap") == 1
    assert list(tmp_path.glob("behaving/.shared-*")) == []


def test_after_an_error_the_other_worker_has_time_to_store_what_is_under_way(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--first", "stand", "--second", "fail", "--ray", address]
    assert pmlm("experiment", BEHAVING, "--out", tmp_path, *options) == 1
    said = last_line(capsys)
    assert said.startswith(f"pmlm experiment: the experiment {BEHAVING} failed in run (")
    assert said.endswith('): KeyError: "a mistake in the user\'s class"')
    assert (tmp_path / "stored").exists()


@pytest.mark.once
def test_a_run_that_ends_every_worker_is_given_up_in_one_line(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("experiment", BEHAVING, "--out", tmp_path, "--first", "die", "--ray", address) == 1
    said = last_line(capsys)
    assert said.startswith('pmlm experiment: 3 workers ended in the run {"run": 0, "does": "die"}, the last on ')
    assert "see whether memory ran out" in said


@pytest.mark.once
def test_other_patients_versions_and_folders_of_a_worker_are_one_line(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(command: str, *more: object) -> str:
        assert pmlm(command, *more, "--out", tmp_path, "--ray", address) != 0
        return last_line(capsys)

    with monkeypatch.context() as patch:
        patch.setattr("agents.benchmark.patients.lite_episodes", lambda: lite_episodes({"train": 8, "test": 4}))
        assert "has other patients or models than this machine (data, episodes)" in said("benchmark", "--agents")
    with monkeypatch.context() as patch:
        patch.setattr("pmlm_env.__version__", "9.9")
        assert "has other pmlm-env than this machine (" in (error := said("experiment", BEHAVING))
        assert ", not 9.9): install the same version" in error

    @contextmanager
    def unseen(folders: list[Path]) -> Iterator[list[str]]:
        yield ["/only/here/.shared-1"]

    monkeypatch.setattr("agents.cluster.pool._seen_by_all", unseen)
    assert "does not have the files of /only/here here: choose a folder on a drive" in said("experiment", BEHAVING)
    assert "the cluster has 2 CPUs, one for each worker" in said("experiment", BEHAVING, "--ray-workers", 3)


def test_a_class_that_calls_sys_exit_in_a_worker_is_an_error_and_ends_no_worker() -> None:
    answer = Worker().prepare(sys.exit, (3,), [])
    assert isinstance(answer.error, RuntimeError)
    assert str(answer.error) == "a class that the command uses called sys.exit(3): it must not"


@pytest.mark.once
def test_on_a_machine_without_the_commands_folder_its_files_of_replies_are_the_same(address: str) -> None:
    with connected(address) as ray:
        worker = ray.remote(Worker).remote()
        node = ray.get_runtime_context().get_node_id()
        assert ray.get(worker.start.remote("/not/here", node)).lacks == ("/not/here",)
        named = ray.get(worker.prepare.remote(Named, ("runs/replies.sqlite",), [])).value
        assert named == {"name": "/not/here/runs/replies.sqlite"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: nothing answers there (Connection refused): start the cluster"),
        (["--ray", "ray://head:10001"], "--ray ray://head:10001: pmlm takes no address of Ray Client: run the command"),
        (["--ray", "head"], "--ray is 'head': it should be local, auto, or HOST:PORT of the cluster's head"),
        (["--ray", "head:70000"], "--ray is 'head:70000': it should be local, auto, or HOST:PORT"),
        (["--ray-workers", 2], "--ray-workers has no effect without --ray: leave it out, or give --ray"),
        (["--ray", "auto", "--ray-workers", 0], "--ray-workers is 0: use a whole number from 1 to 10,000"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(
    options: list[object], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("experiment", BEHAVING, "--out", tmp_path, *options) in (1, 2)
    assert f"pmlm experiment: {error}" in last_line(capsys)
    assert not (tmp_path / "behaving").exists() or list((tmp_path / "behaving").glob(".shared-*")) == []


def test_without_ray_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert pmlm("experiment", BEHAVING, "--out", tmp_path, "--ray", "local") == 1
    assert "--ray needs Ray (" in (said := last_line(capsys))
    assert said.endswith("): pip install 'pmlm-env[ray]'")
