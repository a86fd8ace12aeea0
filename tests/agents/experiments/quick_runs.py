"""What the tests of experiments on patients have in common: quick runs with the rule-based LLM, and their tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pmlm_env.core.episodes import EpisodeSet
from tests.commands import pmlm
from tests.real.runs import small_models


def quick(name: str, out: Path, *more: object, llm: bool = True) -> int:
    """Run an experiment with ``--quick`` and return its exit code."""
    responder = ["--llm", "responder"] if llm else []
    return pmlm("experiment", name, "--quick", *responder, "--device", "cpu", *small_models(), *more, "--out", out)


def runs_of(results: Path) -> list[dict[str, Any]]:
    """Return the lines of ``runs.jsonl``."""
    return [json.loads(line) for line in (results / "runs.jsonl").read_text().splitlines()]


def result_of(results: Path, **cell: Any) -> dict[str, Any]:
    """Return the result of the one run whose cell has some values."""
    (found,) = [run["result"] for run in runs_of(results) if cell.items() <= run["cell"].items()]
    return found


def held_out(results: Path) -> EpisodeSet:
    """Return the test patients of an experiment whose runs all have the same prompts."""
    (folder,) = [path for path in (results.parent / "prepared").iterdir() if path.is_dir()]
    return EpisodeSet.load(folder).of("test")


def table_after(text: str, line: str) -> list[dict[str, str]]:
    """Return the rows of the first table after a line that begins with some text."""
    lines = text.splitlines()
    start = next(i for i, each in enumerate(lines) if each.startswith(line))
    start += next(i for i, each in enumerate(lines[start:]) if each.startswith("|"))
    rows = []
    for each in lines[start:]:
        if not each.startswith("|"):
            break
        rows.append([cell.strip() for cell in each.split("|")[1:-1]])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def made_up(row: str, result: dict[str, Any], seed: int = 0, **cell: Any) -> dict[str, Any]:
    """Return a run with some patients and models, and metrics that are 0 unless ``result`` has them."""
    patients = {"cohort": "simulated-paper", "n": 9, "train": 5, "test": 4, "pipeline": {"template": "default", "k": 10}}
    models = {"llm": "a", "n_edits": 10}
    names = ("bertscore_f1", "margin", "diagnosis_named", "wrong_diagnosis_named", "words")
    zeros = dict.fromkeys(names, [0.0] * len(result["patients"]))
    metrics = {**zeros, **result.get("metrics", {})}
    return {
        "cell": {"row": row, "seed": seed, "patients": patients, "models": models, **cell},
        "result": {**result, "metrics": metrics},
    }
