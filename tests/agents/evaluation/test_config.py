"""Calls of an evaluation: as in training, except for what is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.evaluation.config import EvaluationCalls
from agents.model_options import CallOptions
from agents.settings import plain

FILE = Path("run/config.json")
TRAINED = CallOptions(
    max_llm_calls=100, max_cost=2.5, budget_file=Path("limits.toml"), max_failures=3, concurrency=4, replay=True
)


def test_nothing_given_leaves_the_calls_of_training() -> None:
    assert EvaluationCalls().over(plain(TRAINED), FILE) == TRAINED


@pytest.mark.parametrize("given", [{"max_failures": 64}, {"max_llm_calls": 0}, {"max_cost": 0.0}, {"concurrency": 1}])
def test_what_is_given_replaces_the_calls_of_training_even_if_it_is_a_default_or_zero(given: dict[str, Any]) -> None:
    assert EvaluationCalls(**given).over(plain(TRAINED), FILE) == replace(TRAINED, **given)


def test_only_the_user_allows_values_to_be_sent() -> None:
    saved = plain(replace(TRAINED, send_values=True))
    assert not EvaluationCalls().over(saved, FILE).send_values
    assert EvaluationCalls(send_values=True).over(saved, FILE).send_values
