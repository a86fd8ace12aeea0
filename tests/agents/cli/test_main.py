"""How commands end: their exit codes and one-line messages."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.cli import prepare
from agents.cli.errors import Attempt, exit_code
from agents.cli.main import main
from agents.model_options import ModelOptions
from agents.training.config import TrainConfig
from pmlm_env.llm import ReplyCache
from tests.commands import pmlm

pytestmark = pytest.mark.once

FORK = multiprocessing.get_context("fork")


def ended(task: Callable[[], object]) -> int | None:
    """Return the exit code of a forked child."""
    child = FORK.Process(target=task)
    child.start()
    child.join(300)
    if child.exitcode is None:
        child.kill()
    return child.exitcode


#: A command that needs long to end when it is told to, in a process of its own: what other tests have done to the
#: signals of this one plays no part.
STUBBORN = """
import signal, sys, time
from pathlib import Path
import agents.cli.prepare
from agents.cli.errors import Attempt, exit_code
from agents.cli.main import main
from agents.model_options import ModelOptions
from agents.training.config import TrainConfig

def run(config):
    try:
        Path("began").touch()
        time.sleep(600)
    except KeyboardInterrupt:
        Path("told").touch()
        time.sleep(600)
    return 0

agents.cli.prepare.run = run
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "nohup" else signal.SIG_DFL)
main("prepare", ["--cohort", "here"])
"""


@contextmanager
def stubborn(folder: Path, how: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start it in a folder, and kill it in the end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, "-c", STUBBORN, how], cwd=folder, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_for(file: Path, child: subprocess.Popen[bytes]) -> None:
    """Wait until a child has made a file; one that ends before must not make the tests hang."""
    limit = time.monotonic() + 120
    while not file.exists():
        assert child.poll() is None, f"the child ended with {child.returncode}"
        assert time.monotonic() < limit, f"{file.name} is still missing"
        time.sleep(0.005)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with stubborn(tmp_path, "terminal") as child:
        for file in ("began", "told"):
            wait_for(tmp_path / file, child)
            child.send_signal(signal.SIGINT)
        assert child.wait(120) == -signal.SIGINT


def test_what_is_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    with stubborn(tmp_path, "nohup") as child:
        wait_for(tmp_path / "began", child)
        child.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert not (tmp_path / "told").exists()
        assert child.poll() is None


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("simulate", "run the command again"),
        ("evaluate", "all replies are kept: run the command again"),
        ("benchmark", "complete runs and all replies are kept: run the command again"),
        ("train", "the run had not started: run the command again"),
    ],
)
def test_every_command_says_in_one_line_how_to_go_on_after_ctrl_c(
    command: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(config: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
        return 0

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(f"agents.cli.{command}.run", stop)
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(SystemExit) as end:
            main(command, ["--out", "here"] if command == "simulate" else [])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    (line,) = capsys.readouterr().err.split("\n")[1:-1]
    assert line.startswith(f"pmlm {command}: stopped by SIGINT; {advice}")


def test_a_reader_who_has_seen_enough_ends_a_command_without_a_word(tmp_path: Path) -> None:
    ReplyCache(tmp_path / "replies.sqlite").check_writable()

    def task() -> None:
        here, there = os.pipe()
        os.close(here)
        sys.stdout = os.fdopen(there, "w")
        sys.stderr = (tmp_path / "said").open("w")
        main("cache", ["stats", str(tmp_path / "replies.sqlite")])

    assert ended(task) == 128 + signal.SIGPIPE
    assert (tmp_path / "said").read_text() == ""


def test_a_full_disk_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ReplyCache(tmp_path / "replies.sqlite").check_writable()
    assert pmlm("cache", "export", tmp_path / "replies.sqlite", "/dev/full") == 2  # the output file exists already
    monkeypatch.setattr(os, "fsync", lambda file: os.write(os.open("/dev/full", os.O_WRONLY), b"0"))
    assert pmlm("cache", "export", tmp_path / "replies.sqlite", tmp_path / "out") == 1
    assert f"{tmp_path / 'out'}: No space left on device: free some disk space" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".pmlm*"))


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_a_stop_while_libraries_are_still_loading_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "transformers.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}"}
    done = subprocess.run(
        [sys.executable, "-m", "agents.cli", command, *(["--cohort", "here"] if command == "prepare" else [])],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 128 + signal.SIGTERM
    (line,) = done.stderr.split("\n")[1:-1]
    assert line.startswith(f"pmlm {command}: stopped by SIGTERM; ")
    assert line.endswith("run the command again")


def test_a_run_whose_providers_file_is_gone_ends_in_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(attempt: Attempt) -> int:
        raise KeyboardInterrupt

    (tmp_path / "config.json").touch()
    models = ModelOptions(llm="mine:model", providers=str(tmp_path / "gone.toml"))
    assert exit_code(Attempt("train", TrainConfig(run=tmp_path, models=models)), stopped) == 128 + signal.SIGINT
    assert capsys.readouterr().err.endswith(f"continue with pmlm train --run {tmp_path} --resume\n")


def test_the_demo_looks_for_the_llm_before_it_simulates_anybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("demo", "--run", tmp_path / "run", "--llm", "local:smolm2-135m") == 2
    assert "there is no model smolm2-135m (did you mean 'smollm2-135m'?): name a bundled" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_demo_takes_the_options_of_a_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[prepare.Config] = []

    def stop(config: prepare.Config) -> int:
        given.append(config)
        raise ValueError("read")

    monkeypatch.setattr(prepare, "run", stop)
    options = ("--drop-bad-rows", "--keep-later", "--schema", "common", "--encoding", "cp1252", "--llm", "responder")
    assert pmlm("demo", "--run", tmp_path / "run", "--cohort", tmp_path, *options) == 2
    files = given[0].files
    assert (files.cohort, files.drop_bad_rows, files.keep_later) == (tmp_path, True, True)
    assert (files.schema, files.encoding) == ("common", "cp1252")


def test_options_of_a_cohort_need_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("demo", "--run", tmp_path / "run", "--drop-bad-rows") == 2
    said = capsys.readouterr().err
    assert "--drop-bad-rows has no effect: it is for your own patients: name their folder with --cohort" in said
    assert not (tmp_path / "run").exists()
