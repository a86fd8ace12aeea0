from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import fresh
from tests.llm.tiny_llms import talkative

pytestmark = [pytest.mark.once, pytest.mark.real]

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_runs_as_it_stands(path: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PMLM_DEFAULT_LLM": str(talkative(tmp_path))}
    done = fresh.run("path", path, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "reward" in done.stdout
