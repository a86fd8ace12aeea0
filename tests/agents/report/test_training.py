"""The summary that is printed after training."""

from __future__ import annotations

from typing import Any

import pytest

from agents.report.training import training_summary


def _metrics(rollouts: int) -> list[dict[str, Any]]:
    """Eight updates, from a delta of about 0.01 to one of about 0.08."""
    shares = {f"share_{name}": 0.1 for name in ("llm", "encoder", "scorer", "models")}
    return [
        {"deltas": [0.01 * update + 0.001 * i for i in range(rollouts)], "failed": 0, **shares}
        for update in range(1, 9)
    ]


@pytest.mark.parametrize(("rollouts", "said"), [(1, "too few episodes (2) for an interval"), (5, "[+5.5")])
def test_a_gain_has_an_interval_where_ten_episodes_or_more_are_compared(rollouts: int, said: str) -> None:
    assert f"gain +6.00 {said}" in training_summary(_metrics(rollouts))


def test_of_training_without_an_episode_it_says_so() -> None:
    assert training_summary([]) == "No episode was played in training"
