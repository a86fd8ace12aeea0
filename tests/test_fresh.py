"""Whether programs in forked processes are as alone as in new ones: other tests rely on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import fresh

pytestmark = pytest.mark.once


def test_a_program_has_its_own_folder_variables_and_arguments_and_nothing_of_ours(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ.get('MINE'), sys.argv[1:], 'pmlm_env' in sys.modules)"
    done = fresh.run("-c", code, "a b", 3, cwd=tmp_path, env={**os.environ, "MINE": "yes"})
    assert (done.stdout, done.stderr) == (f"{tmp_path} yes ['a b', '3'] False\n", "")
    assert "MINE" not in os.environ


def test_nothing_of_a_program_is_left_for_the_next_one() -> None:
    assert fresh.run("-c", "import gymnasium, pmlm_env; gymnasium.mine = print(gymnasium.spec('PMLM-v0').id)").stdout
    after = fresh.run("-c", "import gymnasium; gymnasium.spec('PMLM-v0')")
    assert after.returncode == 1
    assert "PMLM" in after.stderr.splitlines()[-1]
    assert fresh.run("-c", "import gymnasium; gymnasium.mine").returncode == 1


@pytest.mark.parametrize(
    ("code", "expected"), [("import sys; sys.exit(3)", 3), ("1 / 0", 1), ("import os; os.abort()", -6), ("", 0)]
)
def test_its_end_is_known(code: str, expected: int) -> None:
    done = fresh.run("-c", code)
    assert done.returncode == expected
    assert ("ZeroDivisionError" in done.stderr) == ("1 / 0" in code)


def test_a_file_is_a_main_program_and_what_it_says_at_the_end_is_heard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import atexit\nif __name__ == '__main__':\n    atexit.register(print, 'end')\n"
    )
    assert fresh.run("path", tmp_path / "script.py").stdout == "end\n"


def test_it_is_this_python() -> None:
    assert fresh.run("-c", "import sys; print(sys.executable)").stdout.strip() == sys.executable
