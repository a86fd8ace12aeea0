"""README: what it tells people to paste runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import pmlm
from tests.llm.tiny_llms import talkative

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages")]

ROOT = Path(__file__).resolve().parents[1]
SNIPPETS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
SMALL = [
    "--llm", "responder", "--n-edits", "3", "--budget", "16", "--patients", "2", "--rollouts", "2", "--train-patients",
    "12", "--test-patients", "2", "--n-folds", "2", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def after_a_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small demo was run, as README says to do first."""
    folder = tmp_path_factory.mktemp("pasted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert pmlm("simulate", "--out", "cohort", "--patients", 80) == 0
        assert pmlm("demo", "--cohort", "cohort", *SMALL) == 0
        assert pmlm("simulate", "--out", "new", "--patients", 3, "--seed", 1) == 0
    return folder


def test_there_are_two_snippets() -> None:
    assert len(SNIPPETS) == 2


@pytest.mark.parametrize("number", range(2))
def test_a_snippet_runs_as_pasted(number: int, after_a_demo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SNIPPETS[number]]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PMLM_DEFAULT_LLM": str(talkative(tmp_path))}
    done = subprocess.run(command, cwd=after_a_demo, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
