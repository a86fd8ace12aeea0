"""Output of commands: data cannot control the terminal, progress bars can."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tqdm import tqdm

from agents import registry
from agents.cli.main import main
from agents.cli.terminal import PrintableStream, printable_output
from agents.problem import BudgetSpentError
from tests.commands import pmlm
from tests.problems import make_problem

pytestmark = pytest.mark.once

EVIL = "\x1b[2J\x1b]0;title\x07\r\x08\u202e\x9b"
SAFE = r"\x1b[2J\x1b]0;title\x07\r\x08\u202e\x9b"


def _bars(file: object) -> None:
    """Two bars one above the other, moved, and removed in turn."""
    with tqdm(total=3, file=file, ascii=True, mininterval=0, ncols=60, desc="outer") as outer:  # type: ignore[call-overload]
        for _ in range(3):
            with tqdm(total=2, file=file, ascii=True, mininterval=0, ncols=60, desc="inner", leave=False) as inner:  # type: ignore[call-overload]
                inner.update(2)
            outer.set_postfix(calls=3)
            outer.update()


def _moves(text: str) -> str:
    """A text without the figures that depend on the clock."""
    return "".join(c for c in text if c in "\r\n\x1b[A")


def test_progress_bars_come_through_as_they_are() -> None:
    plain, behind = io.StringIO(), io.StringIO()
    _bars(plain)
    _bars(PrintableStream(behind, bars=True))
    assert "\x1b[A" in plain.getvalue()
    assert _moves(behind.getvalue()) == _moves(plain.getvalue())
    assert "\\" not in behind.getvalue()


def test_what_a_bar_says_of_others_is_written_out() -> None:
    behind = io.StringIO()
    with tqdm(total=1, file=PrintableStream(behind, bars=True), desc=f"judging {EVIL}", ascii=True) as bar:
        bar.update()
    assert SAFE in behind.getvalue()
    assert EVIL not in behind.getvalue()


@pytest.mark.parametrize("bars", [True, False])
def test_in_a_line_with_text_nothing_goes_back(bars: bool) -> None:
    behind = io.StringIO()
    print("error:", "\rall is well", "\x1b[A", file=PrintableStream(behind, bars=bars))  # type: ignore[call-overload]
    assert behind.getvalue() == "error: \\rall is well \\x1b[A\n"


def test_at_the_beginning_of_a_line_nothing_goes_up() -> None:
    behind = io.StringIO()
    stream = PrintableStream(behind, bars=True)
    for text in ("one\n", "\x1b[A", "\n", "\x1b[A\x1b[A"):
        stream.write(text)
    assert behind.getvalue() == "one\n\\x1b[A\n\\x1b[A\\x1b[A"


def test_without_bars_it_is_no_terminal_and_no_line_is_begun_anew() -> None:
    behind = io.StringIO()
    behind.isatty = lambda: True  # type: ignore[method-assign]
    stream = PrintableStream(behind, bars=False)
    stream.writelines(["\rone", "\n"])
    assert behind.getvalue() == "\\rone\n"
    assert not stream.isatty()
    assert PrintableStream(behind, bars=True).isatty()


def test_prints_and_logs_go_through_and_the_streams_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before, logger = (sys.stdout, sys.stderr), logging.getLogger("a logger of this test")
    with printable_output():
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        print(EVIL)
        logger.warning("log %s", EVIL)
    logger.removeHandler(handler)
    assert (sys.stdout, sys.stderr) == before
    out, error = capsys.readouterr()
    assert out == SAFE + "\n"
    assert error == f"log {SAFE}\n"


def _fail(error: Exception) -> Callable[[object], int]:
    def fail(config: object) -> int:
        raise error

    return fail


@pytest.mark.parametrize(("error", "code"), [(ValueError, 2), (OSError, 1), (RuntimeError, 1)])
def test_an_error_is_written_out(
    error: type[Exception], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.cli.doctor.run", _fail(error(f"a server said {EVIL}")))
    assert pmlm("doctor") == code
    assert capsys.readouterr().err == f"pmlm doctor: a server said {SAFE}\n"


def test_an_error_that_nobody_foresaw_is_written_out_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # so that monkeypatch restores it
    monkeypatch.setattr("agents.cli.doctor.run", _fail(TypeError(f"a server said {EVIL}")))
    with pytest.raises(TypeError) as caught:
        main("doctor", [])
    sys.excepthook(caught.type, caught.value, caught.tb)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == f"TypeError: a server said {SAFE}"


def test_arguments_that_cannot_be_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--split", EVIL], [f"--{EVIL}"], ["--cases", EVIL]):
        assert pmlm("evaluate", *arguments) == 2
    assert pmlm(EVIL) == 2
    out, error = capsys.readouterr()
    assert "\x1b" not in out + error
    assert "\x07" not in out + error


@pytest.mark.real
def test_refined_prompts_are_printed_for_people_and_written_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = make_problem(limit=8)
    agent = registry.make("lexicon")
    with suppress(BudgetSpentError):  # its words are enough
        agent.fit(problem)
    agent.save(tmp_path / "agent")
    problem.episodes.save(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    for line in lines:
        line["words"][5:8] = ["\x1b[2J", "<script>", "ab\u202ecd"]
    (tmp_path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--model", tmp_path / "agent", "--episodes", tmp_path, "--split", "train"]
    assert pmlm("refine", *options) == 0
    printed = capsys.readouterr().out
    assert r"\x1b[2J <script> ab\u202ecd" in printed
    assert "\x1b" not in printed
    assert pmlm("refine", *options, "--out", tmp_path / "out.jsonl") == 0
    prompts = [json.loads(line)["prompt"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all("\x1b[2J <script> ab\u202ecd" in prompt for prompt in prompts)


def test_in_a_real_terminal_errors_have_no_colors_which_would_be_written_out() -> None:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "agents.cli", "cache", "stats", "x", "--nonsense"]
    process = subprocess.Popen(command, stdout=child, stderr=child, env={**os.environ, "TERM": "xterm-256color"})
    os.close(child)
    shown = b""
    while True:
        try:
            shown += os.read(parent, 4096)
        except OSError:  # the other end of the terminal is closed
            break
    os.close(parent)
    assert process.wait() == 2
    assert b"nonsense" in shown
    assert b"\x1b" not in shown
    assert b"x1b" not in shown
