"""README: what it tells people to paste runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[1]
SNIPPETS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
SMALL = [
    "--llm", "responder", "--n-edits", "3", "--budget", "16", "--patients", "2", "--rollouts", "2", "--train-patients",
    "12", "--test-patients", "4", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def after_a_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small demo was run, as README says to do first."""
    folder = tmp_path_factory.mktemp("pasted")
    command = [sys.executable, "-m", "agents.cli", "demo", *SMALL]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_there_are_two_snippets() -> None:
    assert len(SNIPPETS) == 2


@pytest.mark.parametrize("number", range(2))
def test_a_snippet_runs_as_pasted(number: int, after_a_demo: Path) -> None:
    code = SNIPPETS[number]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=after_a_demo, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
