"""Results are reproducible: agents on PMLMLite-v0 match the committed results to the last digit.

Network agents are excluded because their results depend on how a processor rounds.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from agents.problem import BudgetSpentError, MeteredReward, Problem, blind
from agents.registry import class_of, make, settings_of
from pmlm_env.core.edits import Prompts
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes
from tests.problems import slots_of

RUNS = Path(__file__).parents[2] / "benchmarks" / "results" / "lite" / "runs.jsonl"


@pytest.mark.parametrize(
    "name",
    [
        "lexicon",
        "surrogate",
        pytest.param("tree-surrogate", marks=pytest.mark.once),  # other versions of scikit-learn draw otherwise
        "single-rule",
        "task-grips",
        "task-genetic",
        "random-p",
        "random-n",
        "keep-all",
        "self-information-low",
        "self-information-high",
    ],
)
def test_each_patients_delta_is_the_committed_one(name: str) -> None:
    budget = 600 if class_of(name).learns else 0
    lines = [json.loads(line) for line in RUNS.read_text().splitlines()]
    (line,) = [each for each in lines if (each["agent"], each["budget"], each["seed"]) == (name, budget, 0)]
    everybody = lite_episodes()
    train, test = everybody.of("train"), everybody.of("test")
    agent, meter = make(name, settings_of(name, "lite"), 0), MeteredReward(LiteReward(train), budget)
    with suppress(BudgetSpentError):
        agent.fit(Problem(train, HashedEncoder(), meter, 10, everybody.max_words))
    problem = Problem(blind(test), HashedEncoder(), None, 10, everybody.max_words)
    everyone = list(range(len(test)))
    kept = problem.batch(everyone).kept
    for row, slots in zip(kept, slots_of(agent.refine(problem)), strict=True):
        row[list(slots)] = False
    deltas = LiteReward(test)(everyone, Prompts(test, everyone, kept)).delta
    assert meter.calls == line["calls"]
    assert [round(float(delta), 6) for delta in deltas] == line["deltas"]
