"""What a patient's own values are worth in replies, by the bundled scorer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.personal_letters import REPLIES, measure, table
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.rewards.bertscore import BertScorer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.real
@pytest.mark.once
def test_the_right_values_score_above_those_of_another_patient_with_the_condition() -> None:
    found = measure(simulate_cohort(600, personal=1), 16, BertScorer())
    for metric in ("f1", "margin"):
        means = {name: np.mean(found[name][metric]) for name in REPLIES}
        assert means["the patient's"] > means["the patient's findings, the other's advice"] + 0.01
        assert means["the patient's findings, the other's advice"] > means["the other patient's"] + 0.01


def test_the_page_has_the_committed_measurement() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "personal_letters.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
    assert f"<!-- personal-letters -->\n\n{table(results)}\n\n<!-- end of personal-letters -->" in page
