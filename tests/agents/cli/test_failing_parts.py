"""An error of somebody's own class is one line that names the class, the method and the place, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from tests.commands import pmlm
from tests.real.runs import options, prepare

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages")]

PARTS = Path(__file__).parents[2] / "failing_parts.py"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_cohort(simulate_cohort(60, seed=1), folder / "cohort")
    prepare(folder / "prepared")
    return folder


def said(capsys: pytest.CaptureFixture[str], command: str, *arguments: object) -> str:
    """What a command says at last, in one line."""
    assert pmlm(command, *arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" not in lines
    assert sum(line.startswith("pmlm ") for line in lines) == 1
    return lines[-1]


@pytest.mark.parametrize(
    ("option", "name", "method", "error"),
    [
        ("--predictor", "FailsToFit", "fit", "KeyError: 'condition'"),
        (
            "--predictor",
            "FailsToFitShapes",
            "fit",
            "ValueError: operands could not be broadcast together with shapes (2,) (3,)",
        ),
        ("--predictor", "FailsToPredict", "predict_proba", "NotImplementedError"),
        ("--predictor", "FailsToSave", "save", "ZeroDivisionError: division by zero"),
        ("--retriever", "FailsToFind", "peers", "AttributeError: no such vector"),
        ("--source", "fails", "fails", "TypeError: unsupported operand type(s) for +: 'NoneType' and 'int'"),
    ],
)
def test_of_a_stage(
    option: str,
    name: str,
    method: str,
    error: str,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = ["--cohort", work / "cohort", "--out", tmp_path, "--k", 2, "--n-folds", 2, "--device", "cpu"]
    line = said(capsys, "prepare", *usual, option, f"tests.failing_parts:{name}")
    assert line.startswith(
        f"pmlm prepare: the {option[2:]} tests.failing_parts:{name} failed in {method} ({PARTS}, line "
    )
    assert line.endswith(f"): {error}")


@pytest.mark.real
@pytest.mark.parametrize(
    ("option", "name", "method", "error"),
    [
        ("--reward", "FailsToScore", "score", "IndexError: past the end"),
        ("--llm", "FailsToReply", "replies", "IndexError: list index out of range"),
    ],
)
def test_of_a_model(
    option: str,
    name: str,
    method: str,
    error: str,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = ["--episodes", work / "prepared", "--run", tmp_path / "run", *options(), "--budget", 12]
    chosen = {"--llm": "responder", option: f"tests.failing_parts:{name}"}
    line = said(capsys, "train", *usual, *(word for pair in chosen.items() for word in pair))
    part = {"--llm": "LLM"}.get(option, option[2:])
    assert line.startswith(f"pmlm train: the {part} tests.failing_parts:{name} failed in {method} ({PARTS}, line ")
    assert line.endswith(f"): {error}")
