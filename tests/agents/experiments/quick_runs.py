"""Quick experiments on simulated patients, and runs whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pmlm_env.core.episodes import EpisodeSet
from tests.agents.experiments.quick import prepared, runs, table
from tests.commands import pmlm
from tests.real.runs import small_models


def quick(name: str, out: Path, *more: object, llm: bool = True) -> int:
    """Run an experiment with ``--quick`` and return its exit code."""
    responder = ["--llm", "responder"] if llm else []
    return pmlm("experiment", name, "--quick", *responder, "--device", "cpu", *small_models(), *more, "--out", out)


def result_of(results: Path, **cell: Any) -> dict[str, Any]:
    """Return the result of the one run whose cell has some values."""
    (found,) = [run["result"] for run in runs(results) if cell.items() <= run["cell"].items()]
    return found


def held_out(results: Path) -> EpisodeSet:
    """Return the test patients of an experiment whose runs all have the same prompts."""
    (everybody,) = prepared(results)
    return everybody.of("test")


def table_after(text: str, line: str) -> list[dict[str, str]]:
    """Return the rows of the first table after some text."""
    return table(text[text.index(line) :], "|")


def made_up(row: str, result: dict[str, Any], seed: int = 0, **cell: Any) -> dict[str, Any]:
    """Return a run with some patients and models, and metrics that are 0 unless ``result`` has them."""
    patients = {
        "cohort": "simulated-paper",
        "n": 9,
        "train": 5,
        "test": 4,
        "pipeline": {"template": "default", "k": 10},
    }
    models = {"llm": "a", "n_edits": 10}
    names = ("bertscore_f1", "margin", "diagnosis_named", "wrong_diagnosis_named", "words")
    zeros = dict.fromkeys(names, [0.0] * len(result["patients"]))
    metrics = {**zeros, **result.get("metrics", {})}
    return {
        "cell": {"row": row, "seed": seed, "patients": patients, "models": models, **cell},
        "result": {**result, "metrics": metrics},
    }
