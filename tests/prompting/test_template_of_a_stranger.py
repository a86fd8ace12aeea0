"""A template that somebody else made is refused in one line, before stages 1 and 2 are fitted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.schema import Patient
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.prompting import InitialPrompt
from tests.commands import pmlm
from tests.schemas import N_INDICATORS

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(simulate_cohort(80, seed=1), folder)
    return folder


def _refused(template: Path, cohort: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``pmlm prepare`` says of a template that it does not take; nothing is fitted or written for it."""
    never = [lambda *_, **__: pytest.fail("something was fitted")] * 2
    monkeypatch.setattr("pmlm_env.predictors.BoostedTrees.fit", never[0])
    monkeypatch.setattr("pmlm_env.retrieval.NetworkEncoder.fit", never[1])
    out = template.parent / "out"
    assert pmlm("prepare", "--cohort", cohort, "--out", out, "--template", template) == 2
    assert not out.exists()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pmlm prepare: ")]
    assert len(lines) == 1
    assert len(lines[0]) < 1_000
    return lines[0].removeprefix("pmlm prepare: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self: {predicted.foo}", "line 1: cannot fill {predicted.foo}; the fields are predicted"),
        ("self: {predicted.__class__.__mro__}", "cannot fill {predicted.__class__.__mro__}"),
        ("self: {peers[0]}", "cannot fill {peers[0]}"),
        ("self: {0}", "cannot fill {0}"),
        ("self: {}", "cannot fill {}"),
        ("self: {predicted!r:>1000000000}", "cannot fill {predicted!r:>1000000000}"),
        ("self: {predicted:>1000000000}", "{predicted:>1000000000} has an unknown format"),
        ("self: {k:1000000000d}", "{k:1000000000d} has an unknown format"),
        ("self: {age:>1000000000}", "{age:>1000000000} has an unknown format"),
        ("self: {labs:{k}}", "{labs:{k}} has an unknown format"),
        ("self: {labs:" + "9" * 5_000 + "}", "9... has an unknown format"),
        ("self: {labs:1٣}", "has an unknown format"),
        ("self: {" + "x" * 5_000 + ".y}", "x...; the fields are"),
        ("self: {weight}", "cannot fill {weight}; the fields are"),
        ("self: {patient_id}", "cannot fill {patient_id}; the fields are"),
        ("self: { predicted }", "cannot fill { predicted }; the fields are"),
        ("self: {predicted", "line 1: expected '}' before end of string"),
        ("self: predicted}", "line 1: Single '}' encountered in format string"),
        ("self: a\x1b[2Jb", r"line 1: 'self: a\\x1b[2Jb' contains an invisible character"),
        ("self: a\u202eb", r"line 1: 'self: a\\u202eb' contains an invisible character"),
        ("self: a\u2028peer: b", r"line 1: 'self: a\\u2028peer: b' contains an invisible character"),
        ("self: ok\n# \x1b]0;title\x07", "line 2: "),
        ("self: " + "{labs:all} " * 5_000, "is longer than 50,000 characters"),
        ("self: " + "word " * 20_000, "is larger than 64 KiB"),
    ],
)
def test_a_template_that_cannot_be_filled_is_one_line_before_anything_is_fitted(
    cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    message: str,
) -> None:
    template = tmp_path / "mine.txt"
    template.write_text(text + "\n", encoding="utf-8")
    error = _refused(template, cohort, capsys, monkeypatch)
    assert error.startswith(f"template {template}")
    assert message in error


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 5 * 2**30)  # a hole: it takes no disk


def _no_text(path: Path) -> None:
    path.write_bytes(b"self: \xff\xfe")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_folder, "is not a file: use default, short, paper, raw, personal or a file"),
        (_pipe, "is not a file"),
        (_endless, "is not a file"),
        (_huge, "is larger than 64 KiB"),
        (_no_text, "is not UTF-8 text"),
        (lambda path: None, "there is no template"),
    ],
)
def test_what_is_no_template_file_is_one_line(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, make, message
) -> None:
    make(tmp_path / "mine.txt")
    assert message in _refused(tmp_path / "mine.txt", cohort, capsys, monkeypatch)


def test_the_demo_refuses_a_template_before_it_removes_an_earlier_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("an earlier run")
    assert pmlm("demo", "--run", tmp_path, "--template", "long", "--llm", "responder") == 2
    assert capsys.readouterr().err.startswith("pmlm demo: there is no template 'long'")
    assert (tmp_path / "config.json").read_text() == "an earlier run"


def test_a_mark_of_byte_order_and_line_ends_of_windows_are_no_part_of_a_template(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbfself: one\r\npeer: two {k}\r\n")
    prompt = InitialPrompt(tmp_path / "mine.txt").fill("normal", ("normal",))
    assert (prompt.texts, prompt.roles) == (("one", "two", "1"), ("self", "peer", "peer"))


def test_of_a_long_history_a_prompt_takes_no_more_memory_than_is_allowed(tmp_path: Path) -> None:
    n = 3_000
    dates = np.datetime64("2020-01-01") + np.arange(n)
    values = np.full((n, N_INDICATORS), 7.0)
    patient = Patient("P1", "normal", "She is well.", dates[-1], dates, values)
    (tmp_path / "mine.txt").write_text("self: " + "{labs:all}" * 100 + "\n")
    with pytest.raises(ValueError, match="the prompt of patient P1 is longer than 50,000 characters"):
        InitialPrompt(tmp_path / "mine.txt").fill("normal", (), None, patient)
