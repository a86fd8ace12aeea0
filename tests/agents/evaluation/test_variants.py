"""The before / after table, on made-up scores."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from agents.evaluation.metrics import METRICS
from agents.evaluation.variants import summarise, table

F1 = {
    "keep_all": [0.6, 0.6, 0.7],
    "random": [0.6, 0.5, 0.7],
    "policy": [0.7, 0.8, 0.75],
    "single_rule": [0.65, 0.7, 0.7],
    "echo": [0.8, 0.7, 0.7],
    "label": [0.4, 0.4, 0.4],
}


def _evaluation(times: int = 4, **without: bool) -> dict[str, Any]:
    """What ``evaluate_arms`` returns, but for the patients: those of F1, each ``times`` times."""
    n = 3 * times
    scores = {
        arm: {name: np.full(n, 0.5) for name in METRICS}
        | {"bertscore_f1": np.array(f1 * times), "margin": np.array(f1 * times) / 10}
        for arm, f1 in F1.items()
        if not without.get(arm)
    }
    summary = {**summarise(scores, 0), "edits": {"keep_all": 1, "random": 3, "policy": 2, "single_rule": 1}}
    return {"summary": summary, "n_patients": n, "without_reply": []}


def test_differences_are_paired_by_patient() -> None:
    summary = _evaluation()["summary"]
    expected = {"random": -0.1 / 3, "policy": 0.35 / 3, "single_rule": 0.15 / 3, "echo": 0.3 / 3, "label": -0.7 / 3}
    expected |= {"policy_over_random": 0.45 / 3, "policy_over_echo": 0.05 / 3, "policy_over_single_rule": 0.2 / 3}
    assert {name: delta["mean"] for name, delta in summary["delta"].items()} == pytest.approx(expected)
    margins = {name: delta["mean"] for name, delta in summary["margin_delta"].items()}
    assert margins == pytest.approx({name: value / 10 for name, value in expected.items()})
    low, high = summary["delta"]["policy_over_single_rule"]["ci95"]
    assert 0.05 - 1e-9 <= low <= 0.2 / 3 <= high <= 0.1 + 1e-9


@pytest.mark.parametrize("times", [1, 3])
def test_of_a_few_patients_there_is_no_interval_and_no_verdict(times: int) -> None:
    evaluation = _evaluation(times)
    assert evaluation["summary"]["delta"]["policy"] == {"mean": pytest.approx(0.35 / 3), "ci95": None}
    lines = table(evaluation).split("paired by patient:")[1].strip().splitlines()
    changes = [line for line in lines if " - " in line]
    assert changes
    assert all(line.endswith(f"too few patients ({3 * times}) for an interval") for line in changes)
    assert json.loads(json.dumps(evaluation["summary"], allow_nan=False)) == evaluation["summary"]


def test_a_margin_that_cannot_be_had_is_null_and_without_a_difference() -> None:
    scores = {arm: {name: np.full(3, 0.5) for name in METRICS} | {"margin": np.array([0.1, np.nan, 0.1])} for arm in F1}
    summary = summarise(scores, 0)
    assert summary["policy"]["margin"] is None
    assert summary["margin_delta"] == {}
    assert "policy" in summary["delta"]
    text = table({"summary": {**summary, "edits": {}}, "n_patients": 3, "without_reply": []})
    assert re.search(r"after \(policy\) .* - +50 ", text)
    assert "Change of the margin" not in text


def test_the_table_has_the_echo_beside_the_policy_and_what_is_personal() -> None:
    text = table(_evaluation())
    rows = {line[:20].strip(): line[20:].split() for line in text.splitlines()[1:8]}
    assert list(rows) == [
        "", "before (keep all)", "random deletion", "best single rule", "after (policy)", "control: echo",
        "control: label",
    ]  # fmt: skip
    assert rows["control: echo"][4:6] == ["73.33", "7.33"]
    assert rows["after (policy)"][-1] == "2"
    assert rows["control: echo"][-1] == "-"
    assert re.search(r"^policy - echo +\+1\.67  \[", text, re.MULTILINE)
    assert re.search(r"^policy - rule \(personal\) +\+6\.67  \[.*better$", text, re.MULTILINE)


def test_without_a_rule_nothing_is_said_of_one() -> None:
    text = table(_evaluation(single_rule=True))
    assert "rule" not in text
    assert "policy - echo" in text


def test_no_table_of_a_policy_is_made_without_the_echo() -> None:
    with pytest.raises(ValueError, match="no echo beside the policy: make it again with `pmlm evaluate`"):
        table(_evaluation(echo=True))
