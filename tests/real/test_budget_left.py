"""What is left of a budget that the next batch would exceed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agents.run_folder import RunFolder
from tests.real.runs import prepare, train

pytestmark = [pytest.mark.once, pytest.mark.real]


@pytest.mark.parametrize(("budget", "updates"), [(14, 2), (3, 0)])
def test_the_budget_that_the_next_batch_needs_is_named_and_is_enough(
    budget: int, updates: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepared, run = prepare(tmp_path / "prepared"), RunFolder(tmp_path / "run")
    assert train(prepared, run.path, budget=budget) == 0
    assert run.updates() == updates
    if updates:
        left = budget - run.budget_spent()
        assert f"{left} of the {budget} completions are left, because the next batch needs " in caplog.text
    (enough,) = re.findall(r"--resume --budget (\d+)", caplog.text)
    assert int(enough) > budget
    caplog.clear()
    assert train(prepared, run.path, "--resume", budget=int(enough)) == 0
    assert run.updates() == updates + 1
    assert "are left" not in caplog.text
