"""What is left of a budget that the next batch would exceed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agents.run_folder import RunFolder
from tests.commands import pmlm
from tests.real.runs import prepare, small_models, train

pytestmark = [pytest.mark.once, pytest.mark.real]


@pytest.mark.parametrize(("budget", "updates"), [(14, 2), (3, 0), (1, 0)])
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


def test_an_agent_that_is_fitted_again_with_another_budget_says_that_it_may_need_other_replies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    common = ["--agent", "surrogate", "--rows", 4, "--episodes", prepare(tmp_path / "prepared"), "--llm", "responder"]
    assert pmlm("train", *common, "--run", run, "--n-edits", 2, "--budget", 14, *small_models()) == 0
    assert "of the 14 completions are left, because the next batch needs " in caplog.text
    assert "--resume" not in caplog.text
    assert pmlm("train", "--run", run, "--resume") == 0
    assert "fitted again" not in caplog.text
    assert pmlm("train", "--run", run, "--resume", "--budget", 20) == 0
    assert "a budget of 20 instead of 14 completions" in caplog.text
    assert "up to 20 replies" in caplog.text
