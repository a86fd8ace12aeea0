"""Every command in the documents exists and takes the options that are given to it."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tyro
from packaging.requirements import Requirement

from agents.cli.main import COMMANDS
from agents.cli.reading import read
from agents.run_folder import RunFolder
from agents.training.config import TrainConfig
from tests.pages import PAGES, ROOT, blocks, commands

pytestmark = pytest.mark.once

#: These pages' commands name parts that the page itself defines, and are run by other tests.
RUN_ELSEWHERE = {"docs/write-your-own.md": "tests/plugin", "docs/experiments.md": "mine:LearningCurve"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the pages assume it: the repository's scripts, the settings that pages show, and a run."""
    for name in ("benchmarks", "docs", "examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    for page in PAGES:
        for text in blocks(page, "toml"):
            if name := re.match(r"# ([\w-]+\.toml)\b", text):
                (tmp_path / name[1]).write_text(text)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    RunFolder(tmp_path / "runs" / "mine").start(TrainConfig(run=tmp_path / "runs" / "mine"), "", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(words: list[str]) -> None:
    """Check a command of ours, or an installation of ours."""
    program, rest = words[0], words[1:]
    if program == "pmlm":
        read(rest[0], import_module(f"agents.cli.{rest[0]}").Config, rest[1:])
    elif program in ("python", "python3"):
        check_python(rest)
    elif program == "torchrun":
        module, *options = rest[rest.index("--") + 1 :]
        check(["pmlm", *(["train"] if module == "agents.train" else []), *options])
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in rest if "=" not in word]
        assert [target for target in targets if re.search(rf"^{target}:", makefile, re.MULTILINE)] == targets != []
    elif program == "pytest":
        assert all((ROOT / path).exists() for path in rest if not path.startswith("-"))
    elif program == "pip":
        check_pins(rest)


def check_python(rest: list[str]) -> None:
    if rest[0] == "-c":
        compile(rest[1], "-c", "exec")
    elif rest[0] != "-m":
        assert (ROOT / rest[0]).is_file(), rest[0]
    elif rest[1] == "pytest":
        check(rest[1:])
    elif rest[1] != "venv":
        check_module(rest[1], rest[2:])


class _Understood(Exception):
    """The options were read."""


def check_module(name: str, options: list[str]) -> None:
    """Let the main program of a module read its options, and go no further."""
    read_options = tyro.cli

    def reads(*args: Any, **kwargs: Any) -> None:
        read_options(*args, **kwargs)
        raise _Understood

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [name, *options])
        patch.setattr("tyro.cli", reads)
        with pytest.raises(_Understood):
            runpy.run_module(name, run_name="__main__", alter_sys=True)


def check_pins(rest: list[str]) -> None:
    """What is installed in an exact version is installed in that which `make setup` installs."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for word in rest[1:]:
        if "==" in word:
            assert str(Requirement(word)) in pins


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")])
def test_every_command_of_a_page_is_understood(page: str, folder: Path) -> None:
    elsewhere = RUN_ELSEWHERE.get(page, "")
    if elsewhere and (ROOT / elsewhere).is_dir():
        pytest.skip(f"{elsewhere} has the parts that the commands name")
    for script in blocks(page, "bash"):
        for words in commands(script, folder):
            if not elsewhere or elsewhere not in words:
                check(words)


def test_a_command_that_does_not_exist_or_has_no_such_option_is_found(folder: Path) -> None:
    with pytest.raises(AssertionError, match="command not found"):
        commands("pmlx train", folder)
    ((words),) = commands("for n in 1; do OMP=1 pmlm train --budgets $n; done", folder)
    assert words == ["pmlm", "train", "--budgets", "1"]
    with pytest.raises(SystemExit):
        check(words)


def test_the_page_of_commands_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| `pmlm (\w+)` \|", PAGES["docs/commands.md"], re.MULTILINE)
    assert sorted(rows) == sorted(COMMANDS)


def test_the_pages_have_commands_to_check() -> None:
    assert sum(len(blocks(page, "bash")) for page in PAGES) > 80
