"""How commands end: their exit codes and one-line messages."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import agents.cli.prepare
from agents.cli.main import main
from pmlm_env.llm import ReplyCache

FORK = multiprocessing.get_context("fork")


def ended(task: Callable[[], object], during: Callable[[int], None] = lambda pid: None) -> int | None:
    """Return the exit code of a forked child."""
    child = FORK.Process(target=task)
    child.start()
    during(child.pid or 0)
    child.join(300)
    if child.exitcode is None:
        child.kill()
    return child.exitcode


def wait_for(file: Path) -> None:
    """Wait until a file is there; a child that ends before must not make the tests hang."""
    limit = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < limit, f"{file.name} is still missing"
        time.sleep(0.005)


@pytest.fixture
def stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A command that needs long to end when it is told to."""

    def run(config: object) -> int:
        try:
            (tmp_path / "began").touch()
            time.sleep(600)
        except KeyboardInterrupt:
            (tmp_path / "told").touch()
            time.sleep(600)
        return 0

    monkeypatch.setattr(agents.cli.prepare, "run", run)

    def task() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main("prepare", ["--cohort", "here"])

    return task


def test_a_second_ctrl_c_ends_at_once(stubborn: Callable[[], None], tmp_path: Path) -> None:
    def twice(pid: int) -> None:
        for file in ("began", "told"):
            wait_for(tmp_path / file)
            os.kill(pid, signal.SIGINT)

    assert ended(stubborn, twice) == -signal.SIGINT


def test_what_is_to_outlive_its_terminal_does(
    stubborn: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nohup has it."""

    def hang_up(pid: int) -> None:
        wait_for(tmp_path / "began")
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.2)
        assert not (tmp_path / "told").exists()
        os.kill(pid, signal.SIGKILL)

    def task() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stubborn()

    assert ended(task, hang_up) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("simulate", "run the command again"),
        ("evaluate", "replies are kept: run it again"),
        ("benchmark", "complete runs and all replies are kept: run it again"),
        ("train", "nothing was begun: run the command again"),
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
    with pytest.raises(SystemExit) as end:
        main("cache", ["export", str(tmp_path / "replies.sqlite"), "/dev/full"])
    assert end.value.code == 2  # the output file exists already
    monkeypatch.setattr(os, "fsync", lambda file: os.write(os.open("/dev/full", os.O_WRONLY), b"0"))
    with pytest.raises(SystemExit) as end:
        main("cache", ["export", str(tmp_path / "replies.sqlite"), str(tmp_path / "out")])
    assert end.value.code == 1
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
