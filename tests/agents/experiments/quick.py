"""Quick experiments on a few men: commands, and what they wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmlm_env.core.episodes import EpisodeSet
from tests.real.runs import small_models

#: The paper's cuts, which leave no validation patient.
PAPER_CUTS = ["--train-until", "2021-12-31", "--validation-until", "2022-06-30"]


def command(name: str, men: Path, *more: object) -> list[object]:
    """Return a quick experiment on the men, with the rule-based LLM unless ``more`` names another one."""
    stages = ["--cohort", men, "--k", 2, "--n-folds", 2, *PAPER_CUTS]
    llm = [] if {"--llm", "--llms"} & {*more} else ["--llm", f"responder:{men / 'schema.toml'}"]
    return ["experiment", name, "--quick", "--device", "cpu", *stages, *llm, *small_models(), *more]


def runs(results: Path) -> list[dict[str, Any]]:
    """Return the lines of an experiment's file."""
    return [json.loads(line) for line in (results / "runs.jsonl").read_text().splitlines()]


def prepared(results: Path) -> Iterator[EpisodeSet]:
    """Yield the prompts that the experiments of an output folder have made, a set for each pipeline."""
    for words in sorted((results.parent / "prepared").glob("*/episodes.jsonl")):
        yield EpisodeSet.load(words.parent)


def table(text: str, head: str) -> list[dict[str, str]]:
    """Return the rows of the first Markdown table whose head begins with some cells."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.split("|")[1:-1]])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
