"""The table of peers' agreement in the docs is that of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.patient_encoders import AGENTS, nested_bootstrap, table

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "patient_encoders.json").read_text())


def test_the_docs_have_the_table_of_the_results() -> None:
    assert table(RESULTS["shares"], 1) in (ROOT / "docs" / "learned-encoder.md").read_text()


def test_an_interval_of_one_cohort_is_that_of_its_patients_and_cohorts_may_differ_in_size() -> None:
    rng, n = np.random.default_rng(0), 400
    alone = nested_bootstrap([rng.normal(size=n)], rng)
    assert alone.low is not None
    assert alone.high is not None
    assert alone.high - alone.low == pytest.approx(2 * 1.96 / np.sqrt(n), rel=0.1)
    runs = [rng.normal(seed, size=n + seed) for seed in range(3)]
    several = nested_bootstrap(runs, rng)
    assert several.mean == pytest.approx(np.mean([run.mean() for run in runs]))
    assert several.low is not None
    assert several.low < 0.5  # the cohorts' means are 0, 1 and 2


@pytest.mark.parametrize("signal", RESULTS["shares"])
def test_every_encoder_was_measured_with_all_seeds(signal: str) -> None:
    runs = RESULTS["shares"][signal]
    assert {"labels", "summaries", "random weights", "drawn at random", *AGENTS} <= runs.keys()
    assert len({len(each) for each in runs.values()}) == 1
