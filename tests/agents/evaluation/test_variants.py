"""The before / after table, with made-up scores and traces."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from agents.evaluation.metrics import METRICS
from agents.evaluation.variants import evaluation_of, summarise, table
from pmlm_env.core.edits import deletions
from tests.agents.evaluation.made_up import EPISODE, make_trace

F1 = {
    "keep_all": [0.6, 0.6, 0.7],
    "random": [0.6, 0.5, 0.7],
    "agent": [0.7, 0.8, 0.75],
    "single_rule": [0.65, 0.7, 0.7],
    "echo": [0.8, 0.7, 0.7],
    "label": [0.4, 0.4, 0.4],
}


def _evaluation(times: int = 4, **without: bool) -> dict[str, Any]:
    """What ``evaluation.json`` holds: the patients of F1, each ``times`` times."""
    n = 3 * times
    scores = {
        variant: {name: np.full(n, 0.5) for name in METRICS}
        | {"bertscore_f1": np.array(f1 * times), "margin": np.array(f1 * times) / 10}
        for variant, f1 in F1.items()
        if not without.get(variant)
    }
    summary = {**summarise(scores, 0), "edits": {"keep_all": 1, "random": 3, "agent": 2, "single_rule": 1}}
    return {"summary": summary, "n_patients": n, "without_reply": []}


def test_differences_are_paired_by_patient() -> None:
    summary = _evaluation()["summary"]
    expected = {"random": -0.1 / 3, "agent": 0.35 / 3, "single_rule": 0.15 / 3, "echo": 0.3 / 3, "label": -0.7 / 3}
    expected |= {"agent_over_random": 0.45 / 3, "agent_over_echo": 0.05 / 3, "agent_over_single_rule": 0.2 / 3}
    assert {name: delta["mean"] for name, delta in summary["delta"].items()} == pytest.approx(expected)
    margins = {name: delta["mean"] for name, delta in summary["margin_delta"].items()}
    assert margins == pytest.approx({name: value / 10 for name, value in expected.items()})
    low, high = summary["delta"]["agent_over_single_rule"]["ci95"]
    assert 0.05 - 1e-9 <= low <= 0.2 / 3 <= high <= 0.1 + 1e-9


@pytest.mark.parametrize("times", [1, 3])
def test_of_a_few_patients_there_is_no_interval_and_no_verdict(times: int) -> None:
    evaluation = _evaluation(times)
    assert evaluation["summary"]["delta"]["agent"] == {"mean": pytest.approx(0.35 / 3), "ci95": None}
    lines = table(evaluation).split("paired by patient:")[1].strip().splitlines()
    changes = [line for line in lines if " - " in line]
    assert changes
    assert all(line.endswith(f"too few patients ({3 * times}) for an interval") for line in changes)
    assert json.loads(json.dumps(evaluation["summary"], allow_nan=False)) == evaluation["summary"]


def test_a_mean_is_over_the_patients_who_have_a_value() -> None:
    scores = {variant: {name: np.full(3, 0.5) for name in METRICS} for variant in F1}
    scores["agent"]["margin"] = np.array([0.1, np.nan, 0.2])
    assert summarise(scores, 0)["agent"]["margin"] == pytest.approx(0.15)


def test_a_margin_that_cannot_be_had_is_null_and_without_a_difference() -> None:
    margin = np.full(3, np.nan)
    scores = {variant: {name: np.full(3, 0.5) for name in METRICS} | {"margin": margin} for variant in F1}
    summary = summarise(scores, 0)
    assert summary["agent"]["margin"] is None
    assert summary["margin_delta"] == {}
    assert "agent" in summary["delta"]
    text = table({"summary": {**summary, "edits": {}}, "n_patients": 3, "without_reply": []})
    assert re.search(r"after \(agent\) .* - +50 ", text)
    assert "Change of the margin" not in text


def test_the_table_has_the_echo_beside_the_agent_and_what_is_personal() -> None:
    text = table(_evaluation())
    rows = {line[:20].strip(): line[20:].split() for line in text.splitlines()[1:8]}
    assert list(rows) == [
        "", "before (keep all)", "random deletion", "best single rule", "after (agent)", "control: echo",
        "control: label",
    ]  # fmt: skip
    assert rows["control: echo"][4:6] == ["73.33", "7.33"]
    assert rows["after (agent)"][-1] == "2"
    assert rows["control: echo"][-1] == "-"
    assert re.search(r"^agent - echo +\+1\.67  \[", text, re.MULTILINE)
    assert re.search(r"^agent - rule \(personal\) +\+6\.67  \[.*better$", text, re.MULTILINE)


def test_the_columns_are_in_line_also_beside_the_longest_name() -> None:
    evaluation = _evaluation()
    evaluation["summary"]["random-letter"] = evaluation["summary"]["label"]
    lines = table(evaluation).splitlines()[1:9]
    assert any(line.startswith("control: random-letter ") for line in lines)
    assert len({len(line) for line in lines}) == 1


def test_without_a_rule_the_table_has_none() -> None:
    text = table(_evaluation(single_rule=True))
    assert "rule" not in text
    assert "agent - echo" in text


def test_no_table_of_an_agent_is_made_without_the_echo() -> None:
    with pytest.raises(ValueError, match="no echo beside the agent: make it again with `pmlm evaluate`"):
        table(_evaluation(echo=True))


def test_the_figures_are_means_of_the_traces_and_differences_of_their_variants() -> None:
    f1 = {"keep_all": [0.5, 0.6], "agent": [0.7, 0.9], "echo": [0.4, 0.2]}
    traces = [
        make_trace(patient=patient, variant=variant, after={"bertscore_f1": value, "margin": None})
        for variant, values in f1.items()
        for patient, value in zip("ab", values, strict=True)
    ]
    evaluation = evaluation_of(traces, 0)
    assert (evaluation["n_patients"], evaluation["without_reply"]) == (2, [])
    summary = evaluation["summary"]
    means = {variant: summary[variant]["bertscore_f1"] for variant in f1}
    assert means == pytest.approx({"keep_all": 0.55, "agent": 0.8, "echo": 0.3})
    assert summary["delta"]["agent_over_echo"]["mean"] == pytest.approx(0.5)
    assert summary["agent"]["margin"] is None
    assert summary["margin_delta"] == {}


def test_a_patient_without_a_reply_to_one_variant_is_left_out_of_all_and_named() -> None:
    traces = [
        make_trace(patient=patient, variant=variant, after={"bertscore_f1": f1})
        for variant in ("keep_all", "agent", "echo")
        for patient, f1 in (("a", 0.5), ("b", 0.9))
    ]
    traces[3] = make_trace(patient="b", variant="agent", error="the reply was filtered")
    evaluation = evaluation_of(traces, 0)
    assert (evaluation["n_patients"], evaluation["without_reply"]) == (1, ["b"])
    assert evaluation["summary"]["echo"]["bertscore_f1"] == 0.5
    everyone_fails = [make_trace(patient=patient, error="the reply was filtered") for patient in "ab"]
    with pytest.raises(RuntimeError, match=r"no patient has all replies, .*; the last error: the reply was filtered"):
        evaluation_of(everyone_fails, 0)


def test_edits_are_counted_in_how_many_ways_prompts_were_edited() -> None:
    ways = {"keep_all": [(), (), ()], "agent": [(0, 1), (1, 0), (2,)], "echo": [(), (), ()]}
    traces = [
        make_trace(patient=patient, variant=variant, edits=deletions(EPISODE, slots))
        for variant, each in ways.items()
        for patient, slots in zip("abc", each, strict=True)
    ]
    assert evaluation_of(traces, 0)["summary"]["edits"] == {"keep_all": 1, "agent": 2}
