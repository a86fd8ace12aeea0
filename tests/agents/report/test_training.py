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


def test_one_update_is_not_compared_with_itself() -> None:
    first, _ = training_summary(_metrics(5)[:1]).splitlines()
    assert first == "Sampled deltas on training patients, in points: +1.20 in the only update"


@pytest.mark.parametrize(("updates", "part"), [(2, "update"), (3, "update"), (4, "quarter")])
def test_few_updates_are_not_called_quarters(updates: int, part: str) -> None:
    said = training_summary(_metrics(5)[:updates]).splitlines()[0]
    assert f"first {part} +1.20, last {part} {updates + 0.2:+.2f}, gain" in said


def test_a_reward_of_another_unit_is_not_in_points() -> None:
    first, _ = training_summary(_metrics(5), in_points=False).splitlines()
    assert first == (
        "Sampled deltas on training patients: first quarter +0.02, last quarter +0.08, gain +0.06 [+0.06, +0.06]"
    )
