"""Made-up benchmark runs with known numbers, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

PATIENTS = [f"test-{i}" for i in range(12)]
NOISE = np.random.default_rng(0).normal(0, 0.002, size=len(PATIENTS))


def line(agent: str, budget: int, seed: int = 0, mean: float = 0.01, env: str = "lite", **more: Any) -> dict[str, Any]:
    deltas = mean + NOISE - NOISE.mean()
    return {
        "agent": agent,
        "track": "inductive",
        "env": env,
        "budget": budget,
        "seed": seed,
        "calls": budget and budget - 2,
        "patients": PATIENTS,
        "deltas": deltas.tolist(),
        "history": [[calls, 8, mean * calls / budget] for calls in range(20, budget, 20)],
        "versions": {"machine": "abacus", "torch": "9.9"},
        **more,
    }


def column(mean: float) -> list[float]:
    """A metric's values, one a patient."""
    return (mean + 10 * (NOISE - NOISE.mean())).tolist()


def measured(f1: float, **more: float) -> dict[str, list[float]]:
    values = {"rougeL": 0.25, "bertscore_f1": f1, "margin": f1 / 10, "diagnosis_named": 0.5,
              "wrong_diagnosis_named": 0.2, "copy": 0.75, "words": 40.0, "cut": 0.12, **more}  # fmt: skip
    return {name: column(value) for name, value in values.items()}


def echo(mean: float = -0.02, env: str = "lite", **more: Any) -> dict[str, Any]:
    """The control without which no agent may stand in a table."""
    return line("echo", 0, mean=mean, env=env, **{"track": "control", "seeded": False, "history": [], **more})


def benchmark() -> list[dict[str, Any]]:
    lines = [echo(metrics=measured(0.55, copy=1.0)), line("keep-all", 0, mean=0.0, seeded=False)]
    for seed in range(3):
        metrics = measured(0.6, diagnosis_named=0.4 + 0.1 * seed)
        deleted = [["sentence,", "instruction", 96], ["a|b", "peer", 5 + seed]]
        for budget in (100, 400):
            gain = 0.01 * budget / 100 + 0.001 * seed
            lines += [line("leave-one-out", budget, seed, gain, metrics=metrics, deleted=deleted, edits=3 + seed)]
            lines += [line("rloo", budget, seed, gain / 2), line("surrogate", budget, seed, gain + 0.01)]
            lines += [line("single-rule", budget, seed, gain / 4)]
        lines += [line("best_of_n", 16, seed, 0.082, track="oracle", claimed=0.12)]
        lines += [line("greedy", 16, seed, 0.05, track="oracle", claimed=0.2)]
    return lines


def write(folder: Path, lines: list[dict[str, Any]], end: str = "") -> Path:
    for env in {line["env"] for line in lines}:
        (folder / env).mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines if line["env"] == env)
        (folder / env / "runs.jsonl").write_text(text + end, encoding="utf-8")
    return folder
